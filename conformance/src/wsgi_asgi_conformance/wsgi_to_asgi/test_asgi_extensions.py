import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.asgi_server import ASGIConnection, ASGIServer, ToASGI
from wsgi_asgi_conformance.samples import http_scope
from wsgi_asgi_conformance.types import Environ, StartResponse

# Every extension that a server may offer for a response.
ALL: dict[str, dict[str, Any]] = {
    f"http.response.{name}": {} for name in ("push", "zerocopysend", "pathsend", "early_hint", "trailers", "debug")
}
PLAIN = {"http.response.start", "http.response.body"}
CONTENT = b"0123456789" * 10


def uses_all(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer so that the adapter could use any of the extensions."""
    links = [("Link", "</a.css>; rel=preload; as=style")]
    environ.get("wsgi.early_hints", lambda headers: None)(links)
    start_response("200 OK", links)
    wrapper: Callable[[Any], Iterable[bytes]] = environ.get("wsgi.file_wrapper", lambda file: [file.read()])
    return wrapper(io.BytesIO(CONTENT))


@clause("ASGI-CORE-039", "ASGI-EXT-029")
@pytest.mark.parametrize("extensions", [{}, None, {"tls": {}}, {"other": {}}, "missing"], ids=repr)
def test_what_the_server_does_not_offer_is_not_sent(adapt: ToASGI, serve: ASGIServer, extensions: Any) -> None:
    """If the scope offers no extension, a response consists of http.response.start and http.response.body only."""
    scope = http_scope(extensions=extensions)
    if extensions == "missing":
        del scope["extensions"]
    connection = serve(adapt(uses_all), scope).finish()
    assert {message["type"] for message in connection.sent} == PLAIN
    assert connection.body == CONTENT


@clause("ASGI-EXT-002", "ASGI-EXT-008", "ASGI-EXT-029")
def test_what_the_server_offers_is_used_in_its_place(adapt: ToASGI, serve: ASGIServer) -> None:
    """Pushes are sent within the response, early hints and debug before it, and a file that has no path as body."""
    connection = serve(adapt(uses_all), http_scope(extensions=ALL)).finish()
    kinds = [message["type"].removeprefix("http.response.") for message in connection.sent]
    start, end = kinds.index("start"), len(kinds) - 1
    assert kinds[end] == "body"
    assert connection.body == CONTENT
    for index, (kind, message) in enumerate(zip(kinds, connection.sent, strict=True)):
        assert kind in ("start", "body", "push", "early_hint", "debug")
        if kind == "push":
            assert start < index < end
            assert type(message["path"]) is str
            assert all(name == name.lower() and not name.startswith(b":") for name, _ in message["headers"])
        elif kind in ("early_hint", "debug"):
            assert index < start
    assert kinds.count("debug") <= 1


def serve_file(
    adapt: ToASGI, serve: ASGIServer, path: Path, offset: int = 0, headers: Iterable[tuple[str, str]] = (), **keys: Any
) -> tuple[ASGIConnection, list[Any]]:
    """Serve a file with wsgi.file_wrapper to a server that offers pathsend; return the connection and the file."""
    files: list[Any] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if "wsgi.file_wrapper" not in environ:
            start_response("501 Not Implemented", [])
            return []
        files.append(path.open("rb"))
        files[0].seek(offset)
        start_response("200 OK", list(headers))
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](files[0], 10)
        return wrapped

    extensions: dict[str, Any] = {"http.response.pathsend": {}}
    connection = serve(adapt(app), http_scope(**{"extensions": extensions, **keys})).finish()
    if not files:
        pytest.skip("the adapter has no wsgi.file_wrapper")
    return connection, files


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of 100 bytes."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


@clause("ASGI-EXT-016")
@pytest.mark.parametrize("headers", [[], [("Content-Length", "100")]], ids=["", "content-length"])
def test_a_whole_file_may_be_sent_by_its_path(
    adapt: ToASGI, serve: ASGIServer, path: Path, headers: list[tuple[str, str]]
) -> None:
    """http.response.pathsend has the absolute path and is the only message after the start; the file is closed."""
    connection, files = serve_file(adapt, serve, path, headers=headers)
    if connection.sent[1]["type"] == "http.response.body":
        pytest.skip("the adapter does not use http.response.pathsend")
    start, pathsend = connection.sent
    assert start["type"] == "http.response.start"
    assert pathsend == {"type": "http.response.pathsend", "path": str(path)}
    assert files[0].closed


@clause("ASGI-EXT-008", "ASGI-EXT-016")
@pytest.mark.parametrize(
    ("offset", "headers", "keys", "body"),
    [
        (5, [], {}, CONTENT[5:]),
        (0, [("Content-Length", "7")], {}, CONTENT[:7]),
        (0, [], {"extensions": {}}, CONTENT),
        (0, [], {"extensions": {"http.response.zerocopysend": {}}}, CONTENT),
    ],
    ids=["offset", "content-length", "not-offered", "zerocopysend-only"],
)
def test_a_file_is_sent_as_body_where_its_path_would_not_do(
    adapt: ToASGI,
    serve: ASGIServer,
    path: Path,
    offset: int,
    headers: list[tuple[str, str]],
    keys: dict[str, Any],
    body: bytes,
) -> None:
    """A file is sent as body if only part of it is wanted, or if the server does not offer pathsend."""
    connection, files = serve_file(adapt, serve, path, offset, headers, **keys)
    if any(message["type"] == "http.response.zerocopysend" for message in connection.sent):
        pytest.skip("the adapter uses http.response.zerocopysend")
    assert {message["type"] for message in connection.sent} == PLAIN
    assert connection.body == body
    assert files[0].closed


@clause("ASGI-EXT-022")
@pytest.mark.parametrize("offered", [True, False])
def test_early_hints_are_there_where_the_server_has_them(adapt: ToASGI, serve: ASGIServer, offered: bool) -> None:
    """wsgi.early_hints sends the links as bytes before the response; without the extension, it is missing."""
    found: list[bool] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        found.append("wsgi.early_hints" in environ)
        if found[0]:
            environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload"), ("link", "</b.css>; rel=preload")])
        start_response("200 OK", [])
        return [b"one"]

    extensions: dict[str, Any] = {"http.response.early_hint": {}} if offered else {}
    connection = serve(adapt(app), http_scope(extensions=extensions)).finish()
    if not offered:
        assert found == [False]
    elif not found[0]:
        pytest.skip("the adapter has no wsgi.early_hints")
    else:
        *hints, start, _ = connection.sent
        assert start["type"] == "http.response.start"
        assert {hint["type"] for hint in hints} == {"http.response.early_hint"}
        links = [link for hint in hints for link in hint["links"]]
        assert links == [b"</a.css>; rel=preload", b"</b.css>; rel=preload"]
