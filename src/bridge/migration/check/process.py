"""The app in a process of its own, without an adapter.

Many apps can be started once a process only, and what they count would go on from one run to the next.
"""

import contextlib
import multiprocessing
import sys
import warnings
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from bridge.migration.check.natively import Breaches, NativeASGI, NativeWSGI
from bridge.migration.check.watch import Fault, Seen, Watch
from bridge.migration.diff.exchange import Answer
from bridge.migration.diff.requests import Request
from bridge.migration.kinds import is_asgi_app
from bridge.migration.loading import CannotRun, load_app
from bridge.validate import ASGIWarning

# For the import and the startup of the app, and for whatever the process does besides the app.
_PATIENCE = 120.0


class Natively(NamedTuple):
    """What the process has seen."""

    faults: dict[Fault, Seen]
    raised: dict[tuple[str, str], Seen]
    breaches: dict[str, str]  # sentence -> request
    has_lifespan: bool | None  # None for a WSGI app


class NativeProcess:
    """A player whose app runs in a new process, by the name that was typed. Raises CannotRun if it does not start."""

    host = "localhost"

    def __init__(self, name: str, timeout: float) -> None:
        self.name = name
        self.request = ""  # the one that is played, as it may be shown
        self._timeout = timeout
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, timeout), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self._receive()
        except BaseException:
            self.close()
            raise

    def play(self, request: Request) -> Answer:
        """Have the process call the app. Raises CannotRun if it does not answer in time."""
        self._connection.send((self.request, request))
        answer: Answer = self._receive()
        return answer

    def result(self) -> Natively:
        """Shut the app down, and return what the process has seen. Raises CannotRun."""
        self._connection.send(None)
        result: Natively = self._receive()
        return result

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()  # first, or it would complain of the connection
        self._connection.close()
        self._process.join()
        self._process.close()

    def _receive(self) -> Any:
        if not self._connection.poll(self._timeout + _PATIENCE):
            raise CannotRun(f"the process of {self.name} did not answer within {self._timeout + _PATIENCE:g} s")
        try:
            reply = self._connection.recv()
        except EOFError:
            raise CannotRun(f"{self.name} ended its process") from None
        if isinstance(reply, str):
            raise CannotRun(reply)
        return reply


def _serve(connection: Connection, name: str, timeout: float) -> None:
    """Load the app and play what comes, in the main thread of the new process; answer with a sentence on failure."""
    watch, breaches = Watch(), Breaches()
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings(), watch:
        warnings.simplefilter("ignore", ASGIWarning)
        try:
            app = load_app(name)
            player: NativeASGI | NativeWSGI
            if is_asgi_app(app, unsure=False):
                player = NativeASGI(watch.asgi(app), name, timeout, breaches)
            else:
                player = NativeWSGI(watch.wsgi(app), name, timeout, breaches)
            connection.send(True)
            while (received := connection.recv()) is not None:
                watch.request = breaches.request = received[0]
                connection.send(player.play(received[1]))
        except CannotRun as error:
            connection.send(str(error))
            return
        player.close()
        has_lifespan = player.has_lifespan if isinstance(player, NativeASGI) else None
        connection.send(Natively(watch.faults, watch.raised, breaches.found, has_lifespan))
