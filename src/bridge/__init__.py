"""WSGI apps on ASGI servers, and ASGI apps on WSGI servers."""

from bridge.asgi_to_wsgi.adapter import ASGIToWSGI
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

__all__ = [
    "ASGIToWSGI",
    "AdapterClosed",
    "AppProtocolError",
    "BridgeError",
    "ClientDisconnected",
    "ClientProtocolError",
    "ServerProtocolError",
    "StartupFailed",
    "WSGIToASGI",
    "WebSocketOptions",
    "WouldBlockLoop",
]
