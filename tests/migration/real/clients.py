"""Clients that talk to an app in this process, and tell each byte of its responses."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx

# A visit sends requests, and may use what came before, such as a token out of a form.
Visit = Callable[[httpx.Client], Any]


class Told(NamedTuple):
    """One exchange."""

    request: str
    status: int
    headers: tuple[tuple[bytes, bytes], ...]  # in order, in the letters that came
    body: bytes


class OverASGI(httpx.BaseTransport):
    """Calls an ASGI app, with a new loop for each request."""

    def __init__(self, app: Any) -> None:
        self._transport = httpx.ASGITransport(app)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def respond() -> httpx.Response:
            response = await self._transport.handle_async_request(request)
            stream: Any = response.stream
            body = b"".join([block async for block in stream])
            return httpx.Response(response.status_code, headers=response.headers.raw, stream=httpx.ByteStream(body))

        return asyncio.run(respond())


def transport_for(app: Any, asgi: bool) -> httpx.BaseTransport:
    """Return a transport that calls `app`."""
    return OverASGI(app) if asgi else httpx.WSGITransport(app)


def visited(transport: httpx.BaseTransport, visit: Visit) -> list[Told]:
    """Make a visit with a fresh client, and return what each response was."""
    told: list[Told] = []

    def note(response: httpx.Response) -> None:
        told.append(
            Told(
                f"{response.request.method} {response.request.url}",
                response.status_code,
                tuple(response.headers.raw),
                b"".join(_raw(response)),
            )
        )

    with httpx.Client(transport=transport, base_url="http://testserver", event_hooks={"response": [note]}) as client:
        visit(client)
    return told


def _raw(response: httpx.Response) -> Iterator[bytes]:
    """Yield the bytes as they came, before any decoding, and leave the response readable."""
    stream: Any = response.stream
    blocks = list(stream)
    stream.close()
    response.stream = httpx.ByteStream(b"".join(blocks))
    yield from blocks
