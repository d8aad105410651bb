from urllib.parse import quote, quote_from_bytes

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bridge.sansio.paths import paths_from_environ, script_name_and_path_info_from_scope
from bridge.sansio.request import (
    environ_from_scope,
    scope_from_environ,
)
from bridge.types import Environ
from tests.sansio.requests import environ_with, scope_with

# The same examples in every run, without a time limit.
PROPERTY = settings(derandomize=True, deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])


# --- Path ---------------------------------------------------------------------------------------

# root_path, path, raw_path <-> SCRIPT_NAME, PATH_INFO, RAW_URI
PATHS = [
    (("", "/", None), ("", "/", None)),
    (("", "/", b"/"), ("", "/", "/")),
    (("", "/FooBar", None), ("", "/FooBar", None)),
    (("", "//a//b/../c;x=1", b"//a//b/../c;x=1"), ("", "//a//b/../c;x=1", "//a//b/../c;x=1")),
    (("/base", "/base", None), ("/base", "", None)),
    (("/base", "/base/", None), ("/base", "/", None)),
    (("/base", "/base/x", b"/base/x"), ("/base", "/x", "/base/x")),
    (("/base", "/base/base", None), ("/base", "/base", None)),
    (("/a/b", "/a/b/c", b"/a/b/c"), ("/a/b", "/c", "/a/b/c")),
    (("", "/a b", b"/a%20b"), ("", "/a b", "/a%20b")),
    (("", "/a/b", b"/a%2Fb"), ("", "/a/b", "/a%2Fb")),
    (("", "/a?b", b"/a%3Fb"), ("", "/a?b", "/a%3Fb")),
    (("", "/100%", b"/100%25"), ("", "/100%", "/100%25")),
    (("", "/100%25", b"/100%2525"), ("", "/100%25", "/100%2525")),
    (("", "/\u4e2d\U0001f600", None), ("", "/\xe4\xb8\xad\xf0\x9f\x98\x80", None)),
    (("", "/caf\xe9", b"/caf%C3%A9"), ("", "/caf\xc3\xa9", "/caf%C3%A9")),
    (("", "/caf\xe9", b"/caf\xc3\xa9"), ("", "/caf\xc3\xa9", "/caf\xc3\xa9")),
    (("/b\xe9", "/b\xe9/\xfc", None), ("/b\xc3\xa9", "/\xc3\xbc", None)),
    (("/b\xe9", "/b\xe9/\xfc", b"/b%C3%A9/%C3%BC"), ("/b\xc3\xa9", "/\xc3\xbc", "/b%C3%A9/%C3%BC")),
    # Bytes that are not UTF-8, which servers decode to U+FFFD, and a real U+FFFD.
    (("", "/\ufffd", b"/%FF"), ("", "/\xff", "/%FF")),
    (("", "/\ufffd", b"/%EF%BF%BD"), ("", "/\xef\xbf\xbd", "/%EF%BF%BD")),
    (("/base", "/base/\ufffdx", b"/base/%FFx"), ("/base", "/\xffx", "/base/%FFx")),
    (("/b\xe9", "/b\xe9/\ufffd", b"/b%C3%A9/%80"), ("/b\xc3\xa9", "/\x80", "/b%C3%A9/%80")),
]


@pytest.mark.parametrize(("paths", "variables"), PATHS)
def test_paths_are_the_same_both_ways(
    paths: tuple[str, str, bytes | None], variables: tuple[str, str, str | None]
) -> None:
    """Text as UTF-8, UTF-8 as latin-1, `path` begins with `root_path` (ASGI HTTP spec, WSGI Compatibility)."""
    (root_path, path, raw_path), (script_name, path_info, raw_uri) = paths, variables
    scope = scope_with(root_path=root_path, path=path, raw_path=raw_path)
    assert script_name_and_path_info_from_scope(scope) == (script_name, path_info)
    assert environ_from_scope(scope).get("RAW_URI") == raw_uri
    environ = {"SCRIPT_NAME": script_name, "PATH_INFO": path_info, "RAW_URI": raw_uri}
    assert paths_from_environ(environ) == (root_path, path, quote(path).encode() if raw_path is None else raw_path)


@PROPERTY
@example(path=b"\xff", script_name="", target=True)
@example(path=b"%2f?#;", script_name="/base", target=True)
@given(st.binary(), st.sampled_from(["", "/base", "/b\xc3\xa9"]), st.booleans())
def test_path_of_any_bytes_survives_the_way_there_and_back(path: bytes, script_name: str, target: bool) -> None:
    """environ -> scope -> environ keeps every byte of PATH_INFO, and the request target (RFC 3875 4.1.5)."""
    path_info = "/" + path.decode("latin-1")
    environ = environ_with(SCRIPT_NAME=script_name, PATH_INFO=path_info)
    if target:
        environ["RAW_URI"] = quote_from_bytes((script_name + path_info).encode("latin-1")) + "?a=%20"
        environ["QUERY_STRING"] = "a=%20"
    back = environ_from_scope(scope_from_environ(environ))
    assert {**back, **environ} == back


@PROPERTY
@given(st.text(st.characters()), st.text(st.characters()), st.none() | st.binary())
def test_path_of_any_text_makes_a_sound_split(path: str, root_path: str, raw_path: bytes | None) -> None:
    """Whatever a server passes, both are latin-1, and begin with `/` or are empty (RFC 3875 4.1.5 and 4.1.13)."""
    scope = scope_with(path=path, root_path=root_path, raw_path=raw_path)
    script_name, path_info = script_name_and_path_info_from_scope(scope)
    assert max(script_name + path_info, default="") <= "\xff"
    assert path_info == "" or path_info.startswith("/")
    assert script_name == "" or (script_name.startswith("/") and not script_name.endswith("/"))


@pytest.mark.parametrize(
    ("root_path", "path", "split"),
    [
        ("/", "/foo", ("", "/foo")),
        ("//", "/foo", ("", "/foo")),
        ("/base/", "/base/foo", ("/base", "/foo")),
        ("/base/", "/base", ("/base", "")),
        ("base", "/base/foo", ("/base", "/foo")),
        ("/base", "/basement", ("/base", "/basement")),
        ("/base", "/other", ("/base", "/other")),
        ("/base", "/", ("/base", "/")),
        ("/base", "/base/base/x", ("/base", "/base/x")),
        ("/base", "/Base/x", ("/base", "/Base/x")),
        ("/base", "/x/base", ("/base", "/x/base")),
        ("/base", "base/x", ("/base", "/x")),
        (None, "/foo", ("", "/foo")),
        ("", "*", ("", "")),
        ("", "", ("", "")),
        ("/base", "", ("/base", "")),
        ("", "foo", ("", "/foo")),
        # The absolute form, in front of which uvicorn puts its --root-path, too.
        ("", "http://example.org/x", ("", "/x")),
        ("", "HTTP://example.org:81/x/y", ("", "/x/y")),
        ("", "http://[::1]:81/x", ("", "/x")),
        ("", "http://example.org", ("", "/")),
        ("/base", "http://example.org/base/x", ("/base", "/x")),
        ("/base", "/basehttp://example.org/x", ("/base", "/x")),
        ("/base/", "/base/http://example.org/x", ("/base", "/http://example.org/x")),
        ("", "/http://example.org/x", ("", "/http://example.org/x")),
        ("", "://example.org/x", ("", "/://example.org/x")),
        # A lone surrogate is an escaped byte (surrogateescape), or no character at all.
        ("", "/\udcff", ("", "/\xff")),
        ("", "/\ud800\xe9", ("", "/?\xc3\xa9")),
        ("/\udce9", "/\udce9/x", ("/\xe9", "/x")),
    ],
)
def test_root_path_is_stripped_once_at_a_segment_boundary(
    root_path: str | None, path: str, split: tuple[str, str]
) -> None:
    """Behind both kinds of proxy no character is lost, and SCRIPT_NAME does not end in `/` (RFC 3875 4.1.13)."""
    assert script_name_and_path_info_from_scope(scope_with(root_path=root_path, path=path)) == split


def test_root_path_may_be_left_out() -> None:
    """`root_path` and `raw_path` are optional (ASGI HTTP spec, Scope)."""
    assert script_name_and_path_info_from_scope({"path": "/caf\xe9"}) == ("", "/caf\xc3\xa9")


@pytest.mark.parametrize(
    ("root_path", "path", "raw_path", "path_info"),
    [
        # Proxy modes: the prefix is missing in `path`, in `raw_path` or in both.
        ("/base", "/base/\ufffd", b"/%FF", "/\xff"),
        ("/base", "/\ufffd", b"/base/%FF", "/\xff"),
        ("/base", "/\ufffd", b"/%FF", "/\xff"),
        # A target that does not begin with a slash, and one in absolute form.
        ("", "~\ufffdx", b"~%A9x", "/~\xa9x"),
        ("", "http://h/\ufffd", b"http://h/%FF", "/\xff"),
        ("", "/\ufffd", b"http://h/%FF", "/\xff"),
        ("/base", "http://h/base/\ufffd", b"http://h/base/%FF", "/\xff"),
        ("/base", "/basehttp://h/\ufffd", b"/basehttp://h/%FF", "/\xff"),
        # Middleware has rewritten `path`, so `raw_path` no longer matches, and `path` counts.
        ("", "/\ufffd", b"/other", "/\xef\xbf\xbd"),
        ("", "/\ufffd", b"/x%FF", "/\xef\xbf\xbd"),
        ("", "/caf\xe9", b"/caf%E9", "/caf\xc3\xa9"),
        ("", "/new", b"/%FF", "/new"),
        ("/base", "/\ufffd", b"/base%FF", "/\xef\xbf\xbd"),
        ("/base", "/\ufffd", b"/evil/%FF", "/\xef\xbf\xbd"),
        ("/\ud800", "/\ufffd", b"/%FF", "/\xff"),
        ("", "/\ufffd", b"", "/\xef\xbf\xbd"),
        ("", "/\ufffd", None, "/\xef\xbf\xbd"),
    ],
)
def test_raw_path_gives_bytes_back_only_while_it_agrees(
    root_path: str, path: str, raw_path: bytes | None, path_info: str
) -> None:
    """`raw_path` can restore the bytes of a path that is not UTF-8 (ASGI HTTP spec, WSGI encoding differences)."""
    scope = scope_with(root_path=root_path, path=path, raw_path=raw_path)
    assert script_name_and_path_info_from_scope(scope)[1] == path_info


@pytest.mark.parametrize(
    ("environ", "paths"),
    [
        ({}, ("", "/", b"/")),
        ({"SCRIPT_NAME": "", "PATH_INFO": ""}, ("", "/", b"/")),
        ({"SCRIPT_NAME": None, "PATH_INFO": None}, ("", "/", b"/")),
        ({"SCRIPT_NAME": "/"}, ("", "/", b"/")),
        ({"SCRIPT_NAME": "/", "PATH_INFO": "/x"}, ("", "/x", b"/x")),
        ({"SCRIPT_NAME": "/base/", "PATH_INFO": "/x"}, ("/base", "/base/x", b"/base/x")),
        ({"PATH_INFO": "*"}, ("", "*", b"*")),
        ({"PATH_INFO": "/a b/100%25?#;x=1"}, ("", "/a b/100%25?#;x=1", b"/a%20b/100%2525%3F%23;x=1")),
        # The target: RAW_URI rather than REQUEST_URI, without its query, if it matches the path.
        ({"PATH_INFO": "/a b", "REQUEST_URI": "/a%20b"}, ("", "/a b", b"/a%20b")),
        ({"PATH_INFO": "/a b", "RAW_URI": "/a%20b", "REQUEST_URI": "/a b"}, ("", "/a b", b"/a%20b")),
        ({"PATH_INFO": "/a b", "RAW_URI": "/a%20b?x=%20?y"}, ("", "/a b", b"/a%20b")),
        ({"PATH_INFO": "/a b", "RAW_URI": "/b"}, ("", "/a b", b"/a%20b")),
        ({"PATH_INFO": "/a b", "RAW_URI": b"/a b"}, ("", "/a b", b"/a%20b")),
        ({"PATH_INFO": "/a b", "RAW_URI": None}, ("", "/a b", b"/a%20b")),
        ({"PATH_INFO": "/a", "RAW_URI": "/a#b"}, ("", "/a", b"/a")),
        ({"PATH_INFO": "", "RAW_URI": "?x"}, ("", "/", b"/")),
        # OPTIONS *, as gunicorn, the other direction and cheroot pass it.
        ({"PATH_INFO": "*", "RAW_URI": "*"}, ("", "*", b"*")),
        ({"PATH_INFO": "", "RAW_URI": "*"}, ("", "*", b"*")),
        ({"PATH_INFO": "/*", "REQUEST_URI": "*"}, ("", "*", b"*")),
        ({"PATH_INFO": "/*", "REQUEST_URI": "/*"}, ("", "/*", b"/*")),
        ({"SCRIPT_NAME": "/base", "PATH_INFO": "", "RAW_URI": "*"}, ("/base", "/base", b"/base")),
        ({"PATH_INFO": "/x", "RAW_URI": "*"}, ("", "/x", b"/x")),
        # The absolute form: in the target alone (gunicorn), in PATH_INFO (gevent, wsgiref), or in both (uWSGI).
        ({"PATH_INFO": "/a b", "RAW_URI": "http://example.org:81/a%20b?x=1"}, ("", "/a b", b"/a%20b")),
        ({"PATH_INFO": "http://example.org:81/a b"}, ("", "/a b", b"/a%20b")),
        ({"PATH_INFO": "HTTP://h/a\xff", "REQUEST_URI": "HTTP://h/a%ff?x"}, ("", "/a\ufffd", b"/a%ff")),
        ({"PATH_INFO": "", "RAW_URI": "http://example.org?x=1"}, ("", "/", b"/")),
        ({"PATH_INFO": "http://example.org", "REQUEST_URI": "http://example.org"}, ("", "/", b"/")),
        ({"SCRIPT_NAME": "/b", "PATH_INFO": "/a", "RAW_URI": "http://h/b/a"}, ("/b", "/b/a", b"/b/a")),
        # Targets that only look like it.
        ({"PATH_INFO": "/http://h/a", "RAW_URI": "/http://h/a?z"}, ("", "/http://h/a", b"/http://h/a")),
        ({"PATH_INFO": "/a", "RAW_URI": "/a?u=http://h/b"}, ("", "/a", b"/a")),
        ({"PATH_INFO": "://h/a"}, ("", "://h/a", b"://h/a")),
        # A target that does not begin with a slash.
        ({"PATH_INFO": "~\xa9x", "REQUEST_URI": "~%A9x"}, ("", "~\ufffdx", b"~%A9x")),
        ({"PATH_INFO": "~\xef\xbf\xbdx", "REQUEST_URI": "~%A9x"}, ("", "~\ufffdx", b"~%A9x")),
        # cheroot and Apache may leave encoded slashes encoded; an encoded percent sign is not one of them.
        ({"PATH_INFO": "/a%2Fb c", "REQUEST_URI": "/a%2Fb%20c?x"}, ("", "/a/b c", b"/a%2Fb%20c")),
        ({"PATH_INFO": "/a%2fb", "REQUEST_URI": "/a%2fb"}, ("", "/a/b", b"/a%2fb")),
        ({"PATH_INFO": "/a%2Fb%2Fc", "REQUEST_URI": "/a%2Fb%252Fc"}, ("", "/a/b%2Fc", b"/a%2Fb%252Fc")),
        ({"PATH_INFO": "/a%2Fb", "REQUEST_URI": "/a%252Fb"}, ("", "/a%2Fb", b"/a%252Fb")),
        ({"PATH_INFO": "/a%2Fb"}, ("", "/a%2Fb", b"/a%252Fb")),
        ({"PATH_INFO": "/a%2Fb", "REQUEST_URI": "/c%2Fb"}, ("", "/a%2Fb", b"/a%252Fb")),
        ({"SCRIPT_NAME": "/b", "PATH_INFO": "/c%2Fd", "REQUEST_URI": "/b/c%2Fd"}, ("/b", "/b/c/d", b"/b/c%2Fd")),
        ({"SCRIPT_NAME": "/b", "PATH_INFO": "/c%2Fd", "REQUEST_URI": "/c%2Fd"}, ("/b", "/b/c/d", b"/b/c%2Fd")),
        # A server whose SCRIPT_NAME is configured leaves it out of the target.
        ({"SCRIPT_NAME": "/my app", "PATH_INFO": "/%", "RAW_URI": "/%25"}, ("/my app", "/my app/%", b"/my%20app/%25")),
        (
            {"SCRIPT_NAME": "/~a:@!$&'()*+,;=-._", "PATH_INFO": "/", "RAW_URI": "/"},
            ("/~a:@!$&'()*+,;=-._", "/~a:@!$&'()*+,;=-._/", b"/~a:@!$&'()*+,;=-._/"),
        ),
        # Bytes that are not UTF-8, without a target that holds them; and a target unchanged.
        ({"PATH_INFO": "/a b\xff"}, ("", "/a b\ufffd", b"/a%20b%FF")),
        ({"PATH_INFO": "/~a:@!$&'()*+,;=-._\xff"}, ("", "/~a:@!$&'()*+,;=-._\ufffd", b"/~a:@!$&'()*+,;=-._%FF")),
        ({"PATH_INFO": "/\xff", "RAW_URI": "/other"}, ("", "/\ufffd", b"/%FF")),
        ({"PATH_INFO": "/\xff", "RAW_URI": "/\xff"}, ("", "/\ufffd", b"/\xff")),
        ({"PATH_INFO": "/\xff", "RAW_URI": "/%ff"}, ("", "/\ufffd", b"/%ff")),
        ({"PATH_INFO": "/\xff", "RAW_URI": "/%FE"}, ("", "/\ufffd", b"/%FF")),
        # Werkzeug's server puts U+FFFD in PATH_INFO, and the target still has the bytes.
        ({"PATH_INFO": "/\xef\xbf\xbd", "RAW_URI": "/%FF"}, ("", "/\ufffd", b"/%FF")),
        ({"SCRIPT_NAME": "/b", "PATH_INFO": "/\xef\xbf\xbd", "RAW_URI": "/%FF"}, ("/b", "/b/\ufffd", b"/b/%FF")),
        ({"PATH_INFO": "/\xef\xbf\xbd", "RAW_URI": "/x%FF"}, ("", "/\ufffd", b"/%EF%BF%BD")),
        ({"SCRIPT_NAME": "/\xff", "PATH_INFO": "/x"}, ("/\ufffd", "/\ufffd/x", b"/%FF/x")),
        ({"SCRIPT_NAME": "/\xe4", "PATH_INFO": "\xb8\xad"}, ("/\ufffd", "/\ufffd\ufffd\ufffd", b"/%E4%B8%AD")),
        # Text beyond latin-1 is an error of the server, which has decoded UTF-8 or CGI's variables itself.
        ({"PATH_INFO": "/\u4e2d"}, ("", "/\u4e2d", b"/%E4%B8%AD")),
        ({"PATH_INFO": "/\udcff\u4e2d"}, ("", "/\ufffd\u4e2d", b"/%FF%E4%B8%AD")),
        ({"PATH_INFO": "/\ud800"}, ("", "/?", b"/%3F")),
    ],
)
def test_paths_are_read_from_whatever_the_server_gives(environ: Environ, paths: tuple[str, str, bytes]) -> None:
    """Absent and empty mean the same, nothing raises, and a stale target is ignored (PEP 3333, environ Variables)."""
    assert paths_from_environ(environ) == paths
