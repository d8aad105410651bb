"""Properties of every request and response, however they are split."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.adapters import adapter_name, load_adapter
from wsgi_asgi_conformance.apps import http_app
from wsgi_asgi_conformance.asgi_server import ASGIConnection, ASGIServer, ToASGI
from wsgi_asgi_conformance.exchange import in_thread
from wsgi_asgi_conformance.samples import http_scope
from wsgi_asgi_conformance.strategies import (
    ODD_LENGTHS,
    PARTS,
    PROPERTY,
    REQUEST_BYTES,
    REQUESTS,
    RESPONSES,
    Parts,
    Request,
    Response,
    blocks_of,
    joined_headers,
    maybe_parsed,
)
from wsgi_asgi_conformance.types import ASGIApp, Environ, Receive, Scope, Send, StartResponse

# A method of wsgi.input, and its arguments.
Call: TypeAlias = tuple[str, *tuple[int, ...]]

SIZES = st.integers(0, 12) | st.sampled_from([-1, 65_536, 80_000])
CALLS: st.SearchStrategy[list[Call]] = st.lists(
    st.sampled_from([("read",), ("readline",), ("readlines",), ("next",)])
    | st.tuples(st.sampled_from(["read", "readline", "readlines"]), SIZES),
    max_size=6,
)


def check_reads(stream: Any, body: bytes, calls: list[Call]) -> None:
    """Read `body` from `stream` with `calls` and then read(), and check each result against PEP 3333."""
    lines: Iterator[bytes] = iter(stream)
    for name, *sizes in calls:
        size = sizes[0] if sizes and sizes[0] >= 0 else len(body)
        line = body[: body.find(b"\n") + 1] or body
        if name == "next":
            got = next(lines, b"")
            assert got == line
        elif name == "readlines":
            block = stream.readlines(*sizes)
            got = b"".join(block)
            assert block == got.splitlines(keepends=True) or b"\r" in got  # only splitlines() ends a line at a CR
            assert all(each.find(b"\n") in (-1, len(each) - 1) for each in block)
            # A hint of 0 or less sets no limit, and any hint may be ignored.
            assert len(got) >= min(size or len(body), len(body))
            assert got == body[: len(got)]
        else:
            got = getattr(stream, name)(*sizes)
            assert got == (body if name == "read" else line)[:size]
        body = body[len(got) :]
    assert stream.read() == body
    assert (stream.read(), stream.read(1), stream.readline(), stream.readlines()) == (b"", b"", b"", [])


@clause("ASGI-HTTP-100", "ASGI-HTTP-043", "P3333-071", "P3333-073", "P3333-074", "P3333-077", "P3333-079", "P3333-080")
def test_any_reads_of_any_split_give_the_body(adapt: ToASGI, serve: ASGIServer) -> None:
    """The app reads the same body, however it is split into messages and whatever calls read it."""
    case: dict[str, Any] = {}

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        check_reads(environ["wsgi.input"], case["body"], case["calls"])
        start_response("200 OK", [])
        return []

    adapter = adapt(app)

    @PROPERTY
    @given(PARTS, CALLS)
    def check(parts: Parts, calls: list[Call]) -> None:
        blocks = blocks_of(parts)
        case.update(body=b"".join(blocks), calls=calls)
        serve(adapter, http_scope("POST"), *blocks).finish()

    check()


@clause("ASGI-HTTP-104", "ASGI-HTTP-069", "P3333-020", "P3333-135", "P3333-136")
def test_any_split_of_a_response_is_the_body(adapt: ToASGI, serve: ASGIServer) -> None:
    """The client gets the same body, whether the app writes it or returns it in a list, a tuple or an iterator."""
    case: dict[str, Any] = {}

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        headers = [("Content-Length", str(sum(map(len, case["blocks"]))))] if case["length"] else []
        write = start_response("200 OK", headers)
        written: int = case["written"]
        for block in case["blocks"][:written]:
            write(block)
        kind: Callable[[Iterable[bytes]], Iterable[bytes]] = case["kind"]
        return kind(case["blocks"][written:])

    adapter = adapt(app)

    @PROPERTY
    @given(PARTS, st.integers(0, 2), st.sampled_from([list, tuple, iter]), st.booleans())
    def check(parts: Parts, written: int, kind: Any, length: bool) -> None:
        blocks = blocks_of(parts)
        case.update(blocks=blocks, written=written, kind=kind, length=length)
        connection = serve(adapter).finish()
        assert (connection.body, connection.complete) == (b"".join(blocks), True)

    check()


def scope_of(request: Request) -> dict[str, Any]:
    """Return the scope of a request, as uvicorn builds it."""
    path = request.mount.encode() + request.path
    return http_scope(
        request.method,
        path.decode("utf-8", "replace"),
        raw_path=request.raw_path,
        root_path=request.mount,
        query_string=request.query.encode(),
        headers=[(b"host", b"example.org"), *request.headers],
    )


def answer_of(connection: ASGIConnection) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    return connection.status, connection.headers, connection.body


@clause("P3333-010", "ASGI-HTTP-004", "ASGI-HTTP-109", "ASGI-HTTP-110", "ASGI-HTTP-111")
def test_a_way_there_and_back_changes_nothing(adapt: ToASGI, serve: ASGIServer, pytestconfig: pytest.Config) -> None:
    """Behind both adapters, an ASGI app gets the same scope and body as without them, and answers the same."""
    if adapter_name(pytestconfig, "asgi_to_wsgi") == "none":
        pytest.skip("no adapter of the other direction was given")
    case: dict[str, Response] = {}
    seen: list[Any] = []

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body, message = b"", await receive()
        while message.get("more_body"):
            body, message = body + message["body"], await receive()
        keys = ("method", "path", "raw_path", "root_path", "query_string", "http_version", "scheme", "client", "server")
        headers = joined_headers(list(scope["headers"]))
        seen.append(({key: scope.get(key) for key in keys}, sorted(headers), body + message["body"]))
        response = case["response"]
        await send({"type": "http.response.start", "status": response.status, "headers": response.headers})
        for block in response.blocks:
            await send({"type": "http.response.body", "body": block, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    inner: Any = load_adapter(pytestconfig, "asgi_to_wsgi")(app)
    adapter: ASGIApp = adapt(inner)

    @PROPERTY
    @given(REQUESTS, RESPONSES)
    def check(request: Request, response: Response) -> None:
        case["response"] = response
        alone = serve(app, scope_of(request), *request.blocks).finish()
        behind = serve(adapter, scope_of(request), *request.blocks).finish()
        expected = answer_of(alone)
        if request.method == "HEAD" or response.status in (204, 304):
            expected = (*expected[:2], b"")
        assert answer_of(behind) == expected
        assert seen.pop() == seen.pop()

    try:
        check()
    finally:
        if hasattr(inner, "close"):
            in_thread(inner.close, serve.deadline)


# Werkzeug's client has no connection, and derives the request target from the path.
NOT_COMPARED = {"REMOTE_ADDR", "REMOTE_PORT", "HTTPS", "RAW_URI", "REQUEST_URI"}


def variables_of(environ: Environ) -> dict[str, Any]:
    """Return the variables of an environ that describe the request, normalised for comparison."""
    variables = {key: value for key, value in environ.items() if key.isupper() and key not in NOT_COMPARED}
    # A space after the comma and a CONTENT_LENGTH of 0 are optional.
    variables = {key: value.replace(", ", ",") for key, value in variables.items()}
    if variables.get("CONTENT_LENGTH") == "0":
        del variables["CONTENT_LENGTH"]
    return variables | {"wsgi.version": environ["wsgi.version"], "wsgi.url_scheme": environ["wsgi.url_scheme"]}


@clause("ASGI-HTTP-089", "ASGI-HTTP-092", "ASGI-HTTP-093", "ASGI-HTTP-094", "ASGI-HTTP-096", "ASGI-HTTP-099")
def test_environ_is_what_werkzeug_makes_of_the_request(
    environ_for: Callable[..., Environ],
) -> None:
    """For any request, the adapter builds the environ that Werkzeug's test client builds."""
    EnvironBuilder = pytest.importorskip("werkzeug.test").EnvironBuilder  # noqa: N806  # a class
    texts = st.text("ab/ %+;=&\xe9\u20ac\U0001f600\x00~", max_size=8).map(
        lambda text: f"/a{text}"
    )  # after two slashes, Werkzeug expects a host

    @PROPERTY
    @given(REQUESTS, texts, st.booleans(), st.sampled_from([None, "text/plain", "a/b; c=d"]))
    def check(request: Request, path: str, https: bool, content_type: str | None) -> None:
        headers = [(name.decode(), value.decode("latin-1")) for name, value in request.headers if name != b"cookie"]
        body = b"".join(request.blocks)
        scheme = "https" if https else "http"
        builder = EnvironBuilder(
            path=path.replace("%", "%25"),
            base_url=f"{scheme}://example.org:8080{request.mount}",
            query_string=request.query,
            method=request.method,
            headers=headers,
            data=body,
            content_type=content_type,
        )
        raw = [(b"host", b"example.org:8080")]
        raw += [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
        if body:
            raw.append((b"content-length", b"%d" % len(body)))
        if content_type:
            raw.append((b"content-type", content_type.encode()))
        environ = environ_for(
            method=request.method,
            path=request.mount + path,
            raw_path=None,
            root_path=request.mount,
            query_string=request.query.encode(),
            headers=raw,
            scheme=scheme,
            server=("example.org", 8080),
        )
        expected = builder.get_environ()
        builder.close()
        assert variables_of(environ) == variables_of(expected)

    check()


@clause("RFC3875-024", "RFC9112-001", "RFC9112-003", "P3333-150")
def test_whatever_h11_takes_for_a_request_is_answered(adapt: ToASGI, serve: ASGIServer) -> None:
    """Every request that h11 accepts is answered by the app, or with 400 for a bad length, and never raises."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.input"].read(min(int(environ.get("CONTENT_LENGTH") or 0), 100))
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode("latin-1")]

    adapter = adapt(app)

    @PROPERTY
    @given(REQUEST_BYTES, ODD_LENGTHS)
    def check(sent: bytes, odd_length: bytes | None) -> None:
        request = maybe_parsed(sent)
        if request is None or not request.whole:
            return
        raw_path, _, query = request.target.partition(b"?")
        path = unquote_to_bytes(raw_path)
        scope = http_scope(
            request.method,
            path.decode("utf-8", "replace"),
            raw_path=raw_path,
            query_string=query,
            headers=request.headers + ([] if odd_length is None else [(b"content-length", odd_length)]),
            http_version=request.http_version,
        )
        connection = serve(adapter, scope, *request.blocks).finish()
        assert connection.status in ((200,) if odd_length is None else (200, 400))
        if connection.status == 200 and request.method != "HEAD" and path.startswith(b"/"):
            assert connection.body == path

    check()
