"""Clients of WebSockets on real servers."""

import contextlib
import re
import socket
import ssl
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.processes import Server
from tests.servers.wsgi_websocket_hosts import Host
from tests.sockets import FrameClient, read_all
from wsgi_asgi_conformance.frames import KEY


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def dial(host: Host, server: Server) -> socket.socket:
    connection = server.connect()
    return client_context().wrap_socket(connection) if host.tls else connection


def open_websocket(host: Host, server: Server, path: str, **options: Any) -> ClientConnection:
    """Return an open WebSocket; messages may have 64 MiB, and are not compressed."""
    url = f"{'wss' if host.tls else 'ws'}://127.0.0.1:{server.port}{path}"
    if host.tls:
        options["ssl"] = client_context()
    options = {"compression": None, "max_size": 1 << 26, "open_timeout": 20, "close_timeout": 20, **options}
    websocket: ClientConnection = connect(url, proxy=None, **options).__enter__()
    return websocket


def http(host: Host, server: Server, path: str, method: str = "GET") -> str:
    """Return the body of a response, by a connection of its own."""
    with contextlib.closing(dial(host, server)) as connection:
        connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
        assert re.match(rb"HTTP/1\.[01] 200 ", head), head
        return body.decode()


class Raw(FrameClient):
    """A WebSocket client that sends any bytes, legal or not."""

    def __init__(self, host: Host, server: Server, path: str = "/echo", *, status: int = 101, **headers: str) -> None:
        self.socket = dial(host, server)
        fields = {
            "Host": "localhost",
            "Connection": "keep-alive, Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": KEY,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items() if value), "\r\n"]
        self.socket.sendall("\r\n".join(lines).encode())
        self.unread = b""
        # In Python 3.14, textwrap.dedent drops the "\r" of the empty line in gunicorn's error pages.
        while (end := re.search(rb"\r\n\r?\n", self.unread)) is None:
            block = self.socket.recv(65_536)
            if not block:
                self.socket.close()
                raise AssertionError(f"the server hung up after {self.unread!r}")
            self.unread += block
        self.head = self.unread[: end.start()].decode("latin-1")
        self.unread = self.unread[end.end() :]
        if re.match(rf"HTTP/1\.[01] {status} ", self.head) is None:
            self.socket.close()
            raise AssertionError(self.head)

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()
