"""Apps called without an adapter, under the validator of their interface."""

import contextlib
import re
import signal
import threading
from collections.abc import Iterator
from typing import Any
from wsgiref.validate import validator as wsgi_validator

from bridge.errors import AppProtocolError
from bridge.migration.check.watch import is_of_validator
from bridge.migration.diff.calls import call_wsgi, raised
from bridge.migration.diff.exchange import Answer
from bridge.migration.diff.in_process import ASGIPlayer, WSGIPlayer
from bridge.migration.diff.requests import Request
from bridge.migration.loading import CannotRun
from bridge.types import ASGIApp, Environ, Message, Receive, Scope, Send, StartResponse, WSGIApp
from bridge.validate import validator as asgi_validator

# wsgiref.validate quotes headers and bodies, which may be secret; these sentences quote only the name of a header.
_QUOTED = re.compile(r"""b?'(?:[^'\\]|\\.)*'|b?"(?:[^"\\]|\\.)*\"""")
_NAMING = ("Header names may not", "Bad header name", "Names may not")
# What wsgiref.validate refuses, and PEP 3333 allows.
_TOO_STRICT = ("Content-Type header found in a 204", "Content-Type header found in a 304")


class _TooLong(BaseException):
    """Raised in the main thread by a timer; the app's `except Exception` lets it pass."""


def _can_interrupt() -> bool:
    """Return whether a call in this thread can be interrupted: it must be the main one, on a system with timers."""
    return threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")


@contextlib.contextmanager
def _interrupted_after(seconds: float, name: str) -> Iterator[None]:
    """Interrupt the block after `seconds`. Raises CannotRun then."""

    def ring(number: int, frame: Any) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _TooLong:
        raise CannotRun(f"{name} did not answer within {seconds:g} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before or signal.SIG_DFL)


class Breaches:
    """What an app does that its spec forbids, each once, with the first request that showed it."""

    def __init__(self) -> None:
        self.request = ""
        self.found: dict[str, str] = {}

    def add(self, error: BaseException) -> None:
        """Add what a validator has raised, unless the spec allows it."""
        sentence = str(error)
        if sentence.startswith(_TOO_STRICT):
            return
        if isinstance(error, AssertionError) and not sentence.startswith(_NAMING):
            sentence = _QUOTED.sub("'…'", sentence)
        self.found.setdefault(sentence, self.request)


class NativeWSGI:
    """A WSGI app under `wsgiref.validate`, in the main thread, where a server with one thread calls it.

    A request that breaks the spec is played again without the validator. In any other thread, which cannot be
    interrupted, the app is called in a thread of its own.
    """

    host = "localhost"

    def __init__(self, app: WSGIApp, name: str, timeout: float, breaches: Breaches) -> None:
        self.name = name
        self._app, self._breaches = app, breaches
        self._validated: WSGIApp = wsgi_validator(app)
        self._timeout = timeout

    def close(self) -> None:
        """There is nothing to end."""

    def play(self, request: Request) -> Answer:
        """Call the app; an exception counts as 500. Raises CannotRun if it does not answer in time."""
        self._breach = False
        answer = self._play(self._guarded, request)
        return self._play(self._app, request) if self._breach else answer

    def _play(self, app: WSGIApp, request: Request) -> Answer:
        if not _can_interrupt():
            return WSGIPlayer(app, self.name, self._timeout).play(request)
        with _interrupted_after(self._timeout, self.name):
            try:
                return call_wsgi(app, request)
            except (Exception, SystemExit) as error:
                return raised(error)

    def _guarded(self, environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        """Call the app under the validator, and note what that raises."""
        blocks: Any = None
        try:
            blocks = self._validated(environ, start_response)
            yield from blocks
        except AssertionError as error:
            if is_of_validator(error):
                self._breach = True
                self._breaches.add(error)
            raise
        finally:
            if blocks is not None:
                blocks.close()


class NativeASGI:
    """An ASGI app under `bridge.validate`. A request that breaks the spec is played again without it."""

    def __init__(self, app: ASGIApp, name: str, timeout: float, breaches: Breaches) -> None:
        self.has_lifespan = False
        self._app, self._breaches = app, breaches
        self._validated = asgi_validator(app, judge="app")
        self._validating = True
        self._breach = False
        self._player = ASGIPlayer(self._serve, name, timeout)
        self.name, self.host = name, self._player.host

    def close(self) -> None:
        """End the app's lifespan, and its loop."""
        self._player.close()

    def play(self, request: Request) -> Answer:
        """Call the app; an exception counts as 500. Raises CannotRun if it does not answer in time."""
        self._breach, self._validating = False, True
        answer = self._player.play(request)
        if not self._breach:
            return answer
        self._validating = False
        return self._player.play(request)

    # --- On the player's loop ---------------------------------------------------------------------

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def noting(message: Message) -> None:
            self.has_lifespan = self.has_lifespan or message["type"].startswith("lifespan.startup.")
            await send(message)

        if not self._validating:
            await self._app(scope, receive, send)
            return
        try:
            await self._validated(scope, receive, noting)
        except AppProtocolError as error:
            self._breach = True
            self._breaches.add(error)
            raise
