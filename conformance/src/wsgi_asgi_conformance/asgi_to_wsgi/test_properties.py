"""Properties of any request and any response, however they are split."""

from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.adapters import adapter_name, load_adapter
from wsgi_asgi_conformance.apps import http_app
from wsgi_asgi_conformance.samples import http_environ
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
from wsgi_asgi_conformance.types import Environ, Receive, Scope, Send, StartResponse, WSGIApp
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIRequest, WSGIServer


class ShortReads:
    """A `wsgi.input` whose read() returns what has arrived, up to the size: a block, or some of it.

    `overread` tells whether more was asked for than the `length` that is left, if there is one.
    """

    def __init__(self, blocks: list[bytes], length: int | None) -> None:
        self.overread = False
        self._left = length
        self._blocks = [block for block in blocks if block]

    def read(self, size: int = -1) -> bytes:
        self.overread |= self._left is not None and not 0 <= size <= self._left
        block = self._blocks.pop(0) if self._blocks and size else b""
        if 0 < size < len(block):
            self._blocks.insert(0, block[size:])
            block = block[:size]
        if self._left is not None:
            self._left -= len(block)
        return block

    def readline(self, size: int = -1) -> bytes:
        raise AssertionError("a body that may be of one line is not read by line")

    def readlines(self, hint: int = -1) -> list[bytes]:
        return [self.readline()]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")


@clause("ASGI-HTTP-039", "ASGI-HTTP-040", "ASGI-HTTP-041", "RFC3875-027", "P3333-084", "CONV-002")
def test_any_split_of_a_request_is_the_body(adapt: ToWSGI, serve: WSGIServer) -> None:
    """The body is the same however the server's reads split it, and whenever the app asks for it."""
    case: dict[str, Any] = {}

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if case["late"]:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        body, more_body = b"", True
        while more_body:
            message = await receive()
            assert message["type"] == "http.request"
            body += message["body"]
            more_body = message["more_body"]
        assert body == case["body"]
        if not case["late"]:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    adapter = adapt(app)

    @PROPERTY
    @given(PARTS, st.booleans(), st.booleans())
    def check(parts: Parts, terminated: bool, late: bool) -> None:
        blocks = blocks_of(parts)
        body = b"".join(blocks)
        case.update(body=body, late=late)
        # After a body with a length, the next request may follow.
        stream = ShortReads(blocks, None) if terminated else ShortReads([*blocks, b"GET / HTTP/1.1"], len(body))
        length = {"CONTENT_LENGTH": None if terminated else str(len(body)), "wsgi.input_terminated": terminated}

        def with_short_reads(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            return adapter({**environ, "wsgi.input": stream}, start_response)

        assert serve(with_short_reads, http_environ("POST", **length)).finish().body == b"done"
        assert not stream.overread

    check()


@clause("ASGI-HTTP-067", "ASGI-HTTP-105", "P3333-026", "P3333-128")
def test_any_split_of_a_response_is_the_body(adapt: ToWSGI, serve: WSGIServer) -> None:
    """The body is the same however the app splits it into messages."""
    case: dict[str, Any] = {}

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        blocks: list[bytes] = case["blocks"]
        headers = [(b"content-length", b"%d" % sum(map(len, blocks)))] if case["length"] else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for index, block in enumerate(blocks):
            more_body = case["more"] or index < len(blocks) - 1
            await send({"type": "http.response.body", "body": block, "more_body": more_body})
        if case["more"] or not blocks:
            await send({"type": "http.response.body", "body": b""})

    adapter = adapt(app)

    @PROPERTY
    @given(PARTS, st.booleans(), st.booleans())
    def check(parts: Parts, more: bool, length: bool) -> None:
        blocks = blocks_of(parts)
        case.update(blocks=blocks, more=more, length=length)
        request = serve(adapter).finish()
        assert request.body == b"".join(blocks)
        (returned,) = request.values("return")
        assert not hasattr(returned, "__len__") or len(returned) == len(request.blocks)

    check()


def environ_of(request: Request) -> Environ:
    """Return the environ of a request."""
    headers = joined_headers(request.headers)
    variables = {f"HTTP_{name.decode().upper().replace('-', '_')}": value.decode("latin-1") for name, value in headers}
    return http_environ(
        request.method,
        request.path.decode("latin-1"),
        b"".join(request.blocks),
        SCRIPT_NAME=request.mount.encode().decode("latin-1"),
        QUERY_STRING=request.query,
        **variables,
    )


def answer_of(request: WSGIRequest) -> tuple[str, list[tuple[str, str]], bytes]:
    return request.status.split()[0], request.headers, request.body


@clause("P3333-010", "P3333-160", "P3333-003", "ASGI-HTTP-109", "ASGI-HTTP-110")
def test_a_way_there_and_back_changes_nothing(adapt: ToWSGI, serve: WSGIServer, pytestconfig: pytest.Config) -> None:
    """A WSGI app behind both adapters gets the same environ and body, and gives the same response, as without them."""
    if adapter_name(pytestconfig, "wsgi_to_asgi") == "none":
        pytest.skip("no adapter of the other direction was given")
    case: dict[str, Response] = {}
    seen: list[tuple[Environ, bytes]] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        variables = {key: value for key, value in environ.items() if key.isupper()}
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        seen.append((variables | {"wsgi.url_scheme": environ["wsgi.url_scheme"]}, body))
        response = case["response"]
        headers = [(name.decode(), value.decode("latin-1")) for name, value in response.headers]
        start_response(f"{response.status} -", headers)
        return iter(response.blocks)

    adapter: WSGIApp = adapt(load_adapter(pytestconfig, "wsgi_to_asgi")(app))

    @PROPERTY
    @given(REQUESTS, RESPONSES)
    def check(request: Request, response: Response) -> None:
        case["response"] = response
        alone = serve(app, environ_of(request)).finish()
        behind = serve(adapter, environ_of(request)).finish()
        expected = answer_of(alone)
        if request.method == "HEAD" or response.status in (204, 304):
            expected = (*expected[:2], b"")
        assert answer_of(behind) == expected
        (variables, body), (before, sent) = seen.pop(), seen.pop()
        assert body == sent
        # Only raw_path has the bytes of a path that is not UTF-8, so such a request needs a target.
        assert {key: value for key, value in variables.items() if key not in ("RAW_URI", "REQUEST_URI")} == before

    check()


@clause("RFC3875-002", "ASGI-HTTP-014", "P3333-153")
def test_whatever_h11_takes_for_a_request_is_answered(adapt: ToWSGI, serve: WSGIServer) -> None:
    """The app answers, or the client gets a 400 for its length or a refused WebSocket; nothing raises."""

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    adapter = adapt(app)

    @PROPERTY
    @given(REQUEST_BYTES, ODD_LENGTHS)
    def check(sent: bytes, odd_length: bytes | None) -> None:
        request = maybe_parsed(sent)
        if request is None or not request.whole:
            return
        path, _, query = request.target.partition(b"?")
        variables: dict[str, Any] = {}
        for name, value in joined_headers(request.headers):
            if b"_" not in name:  # servers drop it, or confuse it with a name that has a hyphen
                key = name.decode().upper().replace("-", "_")
                key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
                variables[key] = value.decode("latin-1")
        if "HTTP_TRANSFER_ENCODING" in variables:
            variables["CONTENT_LENGTH"] = None
            variables["wsgi.input_terminated"] = True
        if odd_length is not None:
            variables["CONTENT_LENGTH"] = odd_length.decode("latin-1")
        environ = http_environ(
            request.method,
            unquote_to_bytes(path).decode("latin-1"),
            QUERY_STRING=query.decode("latin-1"),
            SERVER_PROTOCOL=f"HTTP/{request.http_version}",
            RAW_URI=request.target.decode("latin-1"),
            **variables,
        )
        status = int(serve(adapter, environ, *request.blocks).finish().status[:3])
        assert status in ((200,) if odd_length is None else (200, 400)) or (
            "HTTP_UPGRADE" in environ and status in (403, 404, 405, 426, 500, 501)
        )

    check()
