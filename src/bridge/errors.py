"""The errors of `bridge`, named by who broke the rule.

    BridgeError
    ├── AppProtocolError      the wrapped app broke PEP 3333 or the ASGI spec
    ├── ServerProtocolError   the server broke PEP 3333 or the ASGI spec
    ├── ClientProtocolError   the client's request cannot be translated; it is answered 400
    ├── ClientDisconnected    the client left (also a ConnectionError, so an OSError)
    ├── StartupFailed         the ASGI app's lifespan startup failed or took too long
    ├── AdapterClosed         a request came after `ASGIToWSGI.close()`
    └── WouldBlockLoop        a call on a loop's thread would have waited for that loop (also a RuntimeError)

A message says what was expected, what came, and where the rule stands.
"""

import errno

# The errors that Starlette, Litestar, Falcon and Quart raise, without `from`, in place of that of a failed `send`.
_OF_FRAMEWORKS = frozenset(
    {"ClientDisconnect", "ClientDisconnectedError", "WebSocketDisconnect", "WebSocketDisconnected"}
)


class BridgeError(Exception):
    """The base class of every error that `bridge` raises itself."""


class AppProtocolError(BridgeError):
    """Raised when the wrapped app breaks PEP 3333 or the ASGI spec."""


class ServerProtocolError(BridgeError):
    """Raised when the server that calls the adapter breaks PEP 3333 or the ASGI spec."""


class ClientProtocolError(BridgeError):
    """Raised when a request contradicts itself, for example by two Content-Lengths; the answer is 400."""


class ClientDisconnected(BridgeError, ConnectionError):
    """Raised when the client leaves before its request or response is complete.

    `wsgi.input` and `write()` raise it in a WSGI app, `send()` in an ASGI app (version 2.4 of the ASGI
    HTTP spec requires an OSError). Its errno is EPIPE, so that servers recognise it.
    """

    def __init__(self, text: str = "the client disconnected") -> None:
        super().__init__(errno.EPIPE, text)

    def __reduce__(self) -> tuple[type["ClientDisconnected"], tuple[object]]:
        return type(self), (self.strerror,)


def is_of_disconnect(error: BaseException | None, seen: frozenset[int] = frozenset()) -> bool:
    """Return whether `error` is a ClientDisconnected, or was raised because of one.

    That includes errors raised `from` it, the errors of frameworks that stand for it, and groups of nothing else. An
    error that an app raises while it handles the disconnect, for example in a `finally`, is the app's own.
    """
    if error is None or id(error) in seen:  # an exception may refer to a group that holds it
        return False
    seen |= {id(error)}
    if isinstance(error, BaseExceptionGroup):
        return all(is_of_disconnect(inner, seen) for inner in error.exceptions)
    if isinstance(error, ClientDisconnected):
        return True
    because = error.__cause__
    if type(error).__name__ in _OF_FRAMEWORKS:
        because = because or error.__context__
        if because is None:
            return True  # raised for an http.disconnect that the app received
    return is_of_disconnect(because, seen)


class StartupFailed(BridgeError):
    """Raised for a request if its process could not start the ASGI app's lifespan."""


class AdapterClosed(BridgeError):
    """Raised for a request after `close()`; `start()` reopens the adapter."""


class WouldBlockLoop(BridgeError, RuntimeError):
    """Raised on an event loop's own thread if a call would wait for that loop.

    The call would never return, and every other request would hang. Make it in a worker thread instead,
    by asgiref's `sync_to_async` or `anyio.to_thread.run_sync`.
    """
