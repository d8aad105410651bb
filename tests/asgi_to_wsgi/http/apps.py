"""ASGI apps, and their messages, that the tests of this folder share."""

import threading
from typing import Any

import anyio
import anyio.lowlevel

from bridge.types import ASGIApp, Message, Receive, Scope, Send


def start(status: Any = 200, *headers: tuple[bytes, bytes], **keys: Any) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers), **keys}


def body(block: Any = b"", more_body: bool = False) -> Message:
    return {"type": "http.response.body", "body": block, "more_body": more_body}


def answers(*messages: Any) -> ASGIApp:
    """Return an app that sends `messages`. It raises those that are exceptions, and waits for those that are Events."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            if isinstance(message, BaseException):
                raise message
            if isinstance(message, threading.Event):
                await until(message)
            else:
                await send(message)

    return app


async def until(event: threading.Event, timeout: float = 5) -> None:
    """Wait on the loop for an event that a thread sets."""
    with anyio.fail_after(timeout):
        while not event.is_set():
            await anyio.sleep(0.001)


class Recorder:
    """An app that records what it receives, what its sends raise, and when it is done."""

    def __init__(self, *messages: Message, endless: bool = False) -> None:
        self.messages = messages
        self.endless = endless
        self.received: list[Message] = []
        self.error: BaseException | None = None
        self.sent = 0
        self.done = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            for message in self.messages:
                await send(message)
                self.sent += 1
            while self.endless:
                await send(body(b"x" * 1000, True))
                self.sent += 1
        except BaseException as error:
            self.error = error
            raise
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(5):
                self.received += [await receive(), await receive()]
            self.done.set()


DISCONNECTS = [{"type": "http.disconnect"}] * 2


def reads(results: list[Any], seen: list[Scope] | None = None) -> ASGIApp:
    """Return an app that reads its whole body, and answers with its length."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if seen is not None:
            seen.append(scope)
        while True:
            message = await receive()
            results.append(message)
            if not message.get("more_body"):
                break
        await send(start())
        await send(body(b"%d" % sum(len(message.get("body", b"")) for message in results)))

    return app
