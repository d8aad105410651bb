"""The two translations of a request's target undo each other, in each form in which servers pass it."""

from typing import Any, NamedTuple
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bridge.sansio.request import environ_from_scope, scope_from_environ
from bridge.types import Environ

# The same examples in every run, without a time limit.
PROPERTY = settings(derandomize=True, deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])

AUTHORITIES = ["http://example.org", "HTTPS://example.org:81", "http://[::1]:8080", "http://user@h"]
ROOTS = ["", "/base", "/b\xe9/c d"]


class Path(NamedTuple):
    """A path as the client sent it, and decoded."""

    raw: bytes
    decoded: bytes

    @property
    def text(self) -> str:
        return self.decoded.decode("utf-8", "replace")

    @property
    def native(self) -> str:
        return self.decoded.decode("latin-1")


def _encoded(path: bytes, spellings: list[int]) -> bytes:
    """Return a path, percent-encoded in one of several ways; a slash may be encoded, too."""
    pieces = []
    for index, byte in enumerate(path):
        spelling = spellings[index % len(spellings)]
        bare = chr(byte) in "/~-._:@!$&'()*+,;=" or (byte < 128 and chr(byte).isalnum())
        pieces.append(bytes([byte]) if bare and spelling < 2 else (b"%%%02X", b"%%%02x")[spelling % 2] % byte)
    return b"".join(pieces)


def paths(prefix: bytes = b"/") -> st.SearchStrategy[Path]:
    """Return paths of any bytes; many hold text that could be misread, such as an encoded percent sign."""
    tricky = st.sampled_from([b"/", b"//", b"%2F", b"%", b"?", b"#", b"*", b"http://h/", b"/base", b"\xef\xbf\xbd"])
    text = st.text(max_size=4).map(lambda text: text.encode("utf-8", "replace"))
    pieces = st.lists(tricky | text | st.binary(max_size=3), max_size=5).map(b"".join)
    spellings = st.lists(st.integers(0, 3), min_size=1, max_size=7)

    def make(rest: bytes, spellings: list[int]) -> Path:
        return Path(prefix + _encoded(rest, spellings), prefix + rest)

    return st.builds(make, pieces, spellings)


def scope_with(**keys: Any) -> dict[str, Any]:
    return {"type": "http", "http_version": "1.1", "method": "GET", "query_string": b"q=http://h/?", **keys}


def environ_with(**variables: Any) -> Environ:
    return {"REQUEST_METHOD": "GET", "QUERY_STRING": "q=http://h/?", **variables}


def there_and_back(**keys: Any) -> tuple[str, str, bytes]:
    scope = scope_from_environ(environ_from_scope(scope_with(**keys)))
    assert scope["query_string"] == b"q=http://h/?"
    return scope["root_path"], scope["path"], scope["raw_path"]


def back_again(**variables: Any) -> Environ:
    return environ_from_scope(scope_from_environ(environ_with(**variables)))


# --- A scope, as an environ, as a scope -------------------------------------------------------------


@PROPERTY
@given(paths(), st.sampled_from(ROOTS))
def test_a_path_behind_its_root_is_the_same_again(path: Path, root: str) -> None:
    """`path` and `raw_path` begin with `root_path`, as the ASGI spec requires."""
    raw = quote(root).encode() + path.raw
    assert there_and_back(root_path=root, path=root + path.text, raw_path=raw) == (root, root + path.text, raw)


@PROPERTY
@given(paths().filter(lambda path: not path.decoded.startswith(b"/base")))
def test_a_path_that_a_proxy_has_cut_gets_its_root_back(path: Path) -> None:
    """Older servers leave `root_path` out of both; the spec requires it in both."""
    found = there_and_back(root_path="/base", path=path.text, raw_path=path.raw)
    assert found == ("/base", f"/base{path.text}", b"/base" + path.raw)


@PROPERTY
@given(paths() | st.just(Path(b"", b"")), st.sampled_from(AUTHORITIES), st.sampled_from(ROOTS), st.booleans())
@example(Path(b"/", b"/"), AUTHORITIES[0], "", True)
def test_a_url_is_its_path_again(path: Path, authority: str, root: str, cut: bool) -> None:
    """hypercorn and daphne leave a target in absolute form in both, or only in `raw_path`."""
    raw = quote(root).encode() + path.raw or b"/"
    text = root + path.text or "/"
    found = there_and_back(
        root_path=root, path=text if cut else authority + root + path.text, raw_path=authority.encode() + raw
    )
    assert found == (root, text, raw)


@PROPERTY
@given(paths(), st.sampled_from(AUTHORITIES))
def test_a_url_behind_uvicorns_root_path_is_its_path_again(path: Path, authority: str) -> None:
    """uvicorn --root-path /base puts /base in front of any target, even a URL."""
    url = f"/base{authority}"
    found = there_and_back(root_path="/base", path=url + path.text, raw_path=url.encode() + path.raw)
    assert found == ("/base", f"/base{path.text}", b"/base" + path.raw)


@PROPERTY
@given(paths(b"~"))
def test_a_target_without_a_slash_keeps_its_bytes(path: Path) -> None:
    """The target gets a slash, because PATH_INFO begins with one, and loses no byte (RFC 3875 4.1.5)."""
    root, text, raw = there_and_back(path=path.text, raw_path=path.raw)
    assert (root, text, unquote_to_bytes(raw)) == ("", f"/{path.text}", b"/" + path.decoded)


def test_an_asterisk_is_one_again() -> None:
    """OPTIONS * has no PATH_INFO, and is recognised by its target."""
    assert there_and_back(path="*", raw_path=b"*") == ("", "*", b"*")


@PROPERTY
@given(st.text(st.characters(codec="utf-8")), st.sampled_from(ROOTS))
def test_a_path_without_a_raw_path_gets_one(path: str, root: str) -> None:
    """If the server passes no target, `raw_path` is the quoted path."""
    found = there_and_back(root_path=root, path=f"{root}/{path}")
    assert found[:2] == (root, f"{root}/{path}")
    assert unquote_to_bytes(found[2]) == f"{root}/{path}".encode()
    assert b"?" not in found[2]


# --- An environ, as a scope, as an environ ------------------------------------------------------------


@PROPERTY
@given(paths(), st.sampled_from(["RAW_URI", "REQUEST_URI"]), st.sampled_from(["", *AUTHORITIES]), st.booleans())
def test_a_target_is_the_same_again(path: Path, name: str, authority: str, cut: bool) -> None:
    """A target in origin or absolute form comes back in origin form, whichever variable holds it."""
    path_info = path.native if cut else authority + path.native
    target = path.raw.decode("latin-1") + "?q=http://h/?"
    environ = back_again(SCRIPT_NAME="", PATH_INFO=path_info, **{name: authority + target})
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("", path.native)
    assert environ["RAW_URI"] == environ["REQUEST_URI"] == target


@PROPERTY
@given(paths(), st.booleans())
def test_a_target_below_a_script_name_is_the_same_again(path: Path, configured: bool) -> None:
    """A server whose SCRIPT_NAME is configured leaves it out of the target, and it is added."""
    raw = path.raw.decode("latin-1")
    environ = back_again(SCRIPT_NAME="/base", PATH_INFO=path.native, RAW_URI=raw if configured else f"/base{raw}")
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/base", path.native)
    assert environ["RAW_URI"] == f"/base{raw}?q=http://h/?"


@PROPERTY
@given(paths(), st.sampled_from(["", *AUTHORITIES]), st.sampled_from(["", "/b\xc3\xa9"]))
def test_a_path_without_a_target_keeps_its_bytes(path: Path, authority: str, script_name: str) -> None:
    """wsgiref, gevent and granian pass no target, so the path is quoted again."""
    environ = back_again(SCRIPT_NAME=script_name, PATH_INFO=authority + path.native)
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == (script_name, path.native)
    raw_path, _, query = environ["RAW_URI"].partition("?")
    assert unquote_to_bytes(raw_path) == script_name.encode("latin-1") + path.decoded
    assert query == "q=http://h/?"


@PROPERTY
@given(st.lists(st.binary(min_size=1, max_size=4).filter(lambda part: b"/" not in part), min_size=2, max_size=4))
@pytest.mark.parametrize("slash", ["%2F", "%2f"])
def test_a_slash_that_the_server_left_encoded_is_one_again(slash: str, parts: list[bytes]) -> None:
    """cheroot decodes everything in a path except slashes, and only the target shows that they were encoded."""
    raw = "/" + slash.join(quote_from_bytes(part, "") for part in parts)
    path_info = "/" + slash.join(part.decode("latin-1") for part in parts)
    environ = back_again(PATH_INFO=path_info, REQUEST_URI=raw)
    assert environ["PATH_INFO"] == "/" + "/".join(part.decode("latin-1") for part in parts)
    assert environ["REQUEST_URI"] == raw + "?q=http://h/?"
