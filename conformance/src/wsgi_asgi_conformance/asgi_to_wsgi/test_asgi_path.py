from urllib.parse import unquote_to_bytes

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.asgi_to_wsgi.recording import Recording, scope_of
from wsgi_asgi_conformance.samples import http_environ
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIServer


@clause("ASGI-HTTP-013")
@pytest.mark.parametrize(
    ("path_info", "path"),
    [
        ("/", "/"),
        ("/\xe4\xb8\xad", "/中"),
        ("/a b", "/a b"),
        ("/100%", "/100%"),
        ("/a%2Fb", "/a%2Fb"),
        ("/a?b", "/a?b"),
    ],
)
def test_path_is_decoded_once(adapt: ToWSGI, serve: WSGIServer, path_info: str, path: str) -> None:
    """PATH_INFO is no longer percent-encoded, so the adapter decodes only its UTF-8; the query is not part of it."""
    scope = scope_of(adapt, serve, http_environ("GET", path_info, QUERY_STRING="x=1"))
    assert scope["path"] == path


@clause("ASGI-HTTP-013")
def test_a_slash_that_the_server_left_encoded_is_decoded(adapt: ToWSGI, serve: WSGIServer) -> None:
    """cheroot leaves %2F in PATH_INFO; the request's target shows that it was not an encoded percent sign."""
    environ = http_environ("GET", "/a%2Fb c", REQUEST_URI="/a%2Fb%20c")
    assert scope_of(adapt, serve, environ)["path"] == "/a/b c"
    environ = http_environ("GET", "/a%2Fb c", REQUEST_URI="/a%252Fb%20c")
    assert scope_of(adapt, serve, environ)["path"] == "/a%2Fb c"


@clause("ASGI-HTTP-014")
@pytest.mark.parametrize("script_name", ["", "/\xff"])
def test_a_path_that_is_not_utf_8_is_no_crash(adapt: ToWSGI, serve: WSGIServer, script_name: str) -> None:
    """The app gets some str for it, or the client gets a 400."""
    app = Recording()
    request = serve(adapt(app), http_environ("GET", "/\xff\xfe", SCRIPT_NAME=script_name)).finish()
    assert request.status.startswith("400 ") or (
        type(app.scopes[0]["path"]) is str and app.scopes[0]["path"].startswith("/")
    )


@clause("ASGI-HTTP-015")
@pytest.mark.parametrize("name", ["RAW_URI", "REQUEST_URI"])
@pytest.mark.parametrize(
    ("target", "path_info", "raw_path"),
    [
        ("/a%20b?x=1", "/a b", b"/a%20b"),
        ("/a%2Fb%3F", "/a/b?", b"/a%2Fb%3F"),
        ("/a?", "/a", b"/a"),
        ("http://example.org/a%20b?x=1", "/a b", b"/a%20b"),
        ("*", "", b"*"),
    ],
    ids=["query", "encoded", "empty query", "absolute", "asterisk"],
)
def test_raw_path_is_the_request_target_without_its_query(
    adapt: ToWSGI, serve: WSGIServer, name: str, target: str, path_info: str, raw_path: bytes
) -> None:
    """If the server passes the target, raw_path is the path as the client wrote it; it may also be absent."""
    environ = http_environ("GET", path_info, QUERY_STRING=target.partition("?")[2], **{name: target})
    assert scope_of(adapt, serve, environ).get("raw_path") in (None, raw_path)


@clause("ASGI-HTTP-015")
@pytest.mark.parametrize("path_info", ["/a b", "/a%20b", "/\xe4\xb8\xad", "/a?b#c"])
def test_raw_path_without_a_target_is_of_the_path(adapt: ToWSGI, serve: WSGIServer, path_info: str) -> None:
    """Without a target nobody knows what the client wrote, so raw_path is absent, or the path encoded anew."""
    raw_path = scope_of(adapt, serve, http_environ("GET", path_info)).get("raw_path")
    if raw_path is not None:
        assert b"?" not in raw_path
        assert unquote_to_bytes(raw_path) == path_info.encode("latin-1")


@clause("ASGI-HTTP-017", "ASGI-HTTP-110")
@pytest.mark.parametrize(
    ("variable", "query_string"),
    [
        (None, b""),
        ("", b""),
        ("a=1&b=%20+%C3%A9&a=%26", b"a=1&b=%20+%C3%A9&a=%26"),
        ("a=%ZZ&%", b"a=%ZZ&%"),
        ("a=?", b"a=?"),
        ("a=\xe9", b"a=\xe9"),
    ],
    ids=["absent", "empty", "encoded", "ill-encoded", "question mark", "latin-1"],
)
def test_query_string_stays_as_it_is(
    adapt: ToWSGI, serve: WSGIServer, variable: str | None, query_string: bytes
) -> None:
    """query_string is the bytes of QUERY_STRING, still percent-encoded."""
    assert scope_of(adapt, serve, http_environ(QUERY_STRING=variable))["query_string"] == query_string


@clause("ASGI-HTTP-018", "ASGI-HTTP-020", "ASGI-HTTP-107")
@pytest.mark.parametrize(
    ("script_name", "path_info", "root_path", "path"),
    [
        (None, "/x", "", "/x"),
        ("", "/x", "", "/x"),
        ("/base", "/x", "/base", "/base/x"),
        ("/base", "/", "/base", "/base/"),
        ("/base", "", "/base", "/base"),
        ("/base", "/base/x", "/base", "/base/base/x"),
        ("/\xe4\xb8\xad", "/\xe6\x96\x87", "/中", "/中/文"),
    ],
)
def test_root_path_is_script_name_and_path_begins_with_it(
    adapt: ToWSGI, serve: WSGIServer, script_name: str | None, path_info: str, root_path: str, path: str
) -> None:
    """root_path is SCRIPT_NAME and path is SCRIPT_NAME + PATH_INFO, both decoded as UTF-8."""
    scope = scope_of(adapt, serve, http_environ("GET", path_info, SCRIPT_NAME=script_name))
    assert scope.get("root_path", "") == root_path
    assert scope["path"] == path


@clause("ASGI-HTTP-107")
def test_a_character_may_be_split_between_script_name_and_path_info(adapt: ToWSGI, serve: WSGIServer) -> None:
    """The adapter does not fail if the server has cut off a prefix within a character."""
    app = Recording()
    request = serve(adapt(app), http_environ("GET", "\xa9/x", SCRIPT_NAME="/caf\xc3")).finish()
    assert request.status.startswith("400 ") or app.scopes[0]["path"].endswith("/x")
