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

# What Starlette, Litestar and Falcon raise in the stead of a `send` that failed, without `from`.
_OF_FRAMEWORKS = frozenset({"ClientDisconnect", "WebSocketDisconnect", "WebSocketDisconnected"})


class BridgeError(Exception):
    """The root of every error that `bridge` raises on its own account."""


class AppProtocolError(BridgeError):
    """Raised when the wrapped app breaks PEP 3333 or the ASGI spec."""


class ServerProtocolError(BridgeError):
    """Raised when the server that calls the adapter breaks PEP 3333 or the ASGI spec."""


class ClientProtocolError(BridgeError):
    """Raised when a request contradicts itself, as two Content-Lengths do; answered with 400."""


class ClientDisconnected(BridgeError, ConnectionError):
    """Raised when the client left before its request or response was through.

    A WSGI app gets it from `wsgi.input` and `write()`, an ASGI app from `send()` (ASGI HTTP spec
    2.4 asks for an OSError). Its errno is EPIPE, which servers take for what it is.
    """

    def __init__(self, text: str = "the client disconnected") -> None:
        super().__init__(errno.EPIPE, text)

    def __reduce__(self) -> tuple[type["ClientDisconnected"], tuple[object]]:
        return type(self), (self.strerror,)


def is_of_disconnect(error: BaseException | None, seen: frozenset[int] = frozenset()) -> bool:
    """Return whether `error` is a ClientDisconnected, or was raised because of one.

    That is what was raised `from` it, what frameworks say in its stead, and a group of nothing else.
    An error that only came behind it, out of an app's `finally`, is the app's own.
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
    """Raised for a request whose process could not start the ASGI app's lifespan."""


class AdapterClosed(BridgeError):
    """Raised for a request that comes after `close()`; `start()` opens the adapter again."""


class WouldBlockLoop(BridgeError, RuntimeError):
    """Raised on an event loop's own thread where a call would sleep until that loop does something.

    It would sleep for ever, and every other request with it. Make such a call in a worker thread: asgiref's
    `sync_to_async` and `anyio.to_thread.run_sync` do that.
    """
