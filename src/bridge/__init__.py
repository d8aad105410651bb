"""WSGI apps on ASGI servers, and ASGI apps on WSGI servers.

A name is imported when it is first used, so that an app pays only for the direction that it uses.
"""

from importlib import import_module

TYPE_CHECKING = False  # as type checkers know it; `typing` takes longer to import than all of this
if TYPE_CHECKING:
    from bridge.asgi_to_wsgi.adapter import ASGIToWSGI
    from bridge.asgi_to_wsgi.statistics import ASGIToWSGIStatistics
    from bridge.asgi_to_wsgi.websocket.options import WebSocketOptions
    from bridge.errors import (
        AdapterClosed,
        AppProtocolError,
        BridgeError,
        ClientDisconnected,
        ClientProtocolError,
        ServerProtocolError,
        StartupFailed,
        WouldBlockLoop,
    )
    from bridge.wsgi_to_asgi.adapter import WSGIToASGI
    from bridge.wsgi_to_asgi.statistics import WSGIToASGIStatistics

__all__ = [
    "ASGIToWSGI",
    "ASGIToWSGIStatistics",
    "AdapterClosed",
    "AppProtocolError",
    "BridgeError",
    "ClientDisconnected",
    "ClientProtocolError",
    "ServerProtocolError",
    "StartupFailed",
    "WSGIToASGI",
    "WSGIToASGIStatistics",
    "WebSocketOptions",
    "WouldBlockLoop",
]
__version__ = "0.1.0"

# The modules of all names but the errors.
_MODULES = {
    "ASGIToWSGI": "bridge.asgi_to_wsgi.adapter",
    "ASGIToWSGIStatistics": "bridge.asgi_to_wsgi.statistics",
    "WSGIToASGI": "bridge.wsgi_to_asgi.adapter",
    "WSGIToASGIStatistics": "bridge.wsgi_to_asgi.statistics",
    "WebSocketOptions": "bridge.asgi_to_wsgi.websocket.options",
}

if not TYPE_CHECKING:  # a type checker would take this for a promise that every name exists

    def __getattr__(name):
        """Import the module of a public name, and keep the name here (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_MODULES.get(name, "bridge.errors")), name)
        return value

    def __dir__():
        return sorted({*globals(), *__all__})
