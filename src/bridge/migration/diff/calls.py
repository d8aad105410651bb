"""Calls an app once through its own interface, without a server."""

import asyncio
import io
from collections.abc import Callable, Iterable
from typing import Any, TextIO

from bridge.migration.diff.exchange import Answer, Body, checked_length, scope_of
from bridge.migration.diff.requests import Request
from bridge.sansio.request import environ_from_scope
from bridge.types import ASGIApp, Message, WSGIApp


def raised(error: BaseException) -> Answer:
    """Return what a server answers if the app raises."""
    return Answer(500, (), b"", fault=f"the app raised {type(error).__name__}")


def call_wsgi(app: WSGIApp, request: Request, errors: TextIO | None = None) -> Answer:
    """Call the app in this thread, and return its answer. Raises what the app raises.

    What the app writes to `wsgi.errors` goes to `errors`. By default it is dropped, because it may contain secrets.
    """
    environ = environ_from_scope(scope_of(request))
    environ.update(
        {
            "wsgi.version": (1, 0),
            "wsgi.input": io.BytesIO(request.body),
            "wsgi.errors": errors or io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
    )
    body = Body()
    head: list[tuple[int, tuple[tuple[str, str], ...]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Callable[..., object]:
        if not all(isinstance(part, str) for pair in headers for part in pair):
            raise TypeError("the headers are not pairs of str")
        head[:] = [(int(status[:3]), tuple(headers))]
        return body.add

    blocks: Iterable[bytes] = app(environ, start_response)
    try:
        for block in blocks:
            body.add(block)
            if body.cut:
                break
    finally:
        if hasattr(blocks, "close"):
            blocks.close()
    if not head:
        return Answer(500, (), b"", fault="the app did not call start_response")
    status, headers = head[0]
    value = b"" if request.method == "HEAD" else body.value()  # servers drop the body, too
    return checked_length(request, Answer(status, headers, value, body.cut))


async def call_asgi(app: ASGIApp, request: Request, state: dict[str, Any]) -> Answer:
    """Call the app on this loop, and return its answer once the app has ended; an exception counts as 500."""
    scope = {**scope_of(request), "state": state}
    body = Body()
    head: list[tuple[int, tuple[tuple[str, str], ...]]] = []
    asked = False
    ended = asyncio.Event()

    async def receive() -> Message:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": request.body, "more_body": False}
        await ended.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            head.append((int(message["status"]), _decoded(message.get("headers") or ())))
        elif message["type"] == "http.response.body":
            body.add(message.get("body", b""))
            if body.cut or not message.get("more_body", False):
                ended.set()

    task = asyncio.ensure_future(app(scope, receive, send))
    waiting = asyncio.ensure_future(ended.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.is_set() and task.done():
            error = task.exception()
            return Answer(500, (), b"", fault="no whole response") if error is None else raised(error)
        if not body.cut:
            # Let background tasks end; an error there comes after the answer, as on a server.
            await asyncio.wait({task})
    finally:
        waiting.cancel()
        task.cancel()
    if task.done() and not task.cancelled():
        task.exception()
    if not head:
        return Answer(500, (), b"", fault="no whole response")
    status, headers = head[0]
    value = b"" if request.method == "HEAD" else body.value()
    return checked_length(request, Answer(status, headers, value, body.cut))


def _decoded(headers: Iterable[Any]) -> tuple[tuple[str, str], ...]:
    """Return the headers as text. Raises TypeError, which the app gets, if they are not bytes."""
    return tuple((bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in headers)
