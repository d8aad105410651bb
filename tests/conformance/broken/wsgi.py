"""A small WSGI server: `python -m tests.conformance.broken.wsgi MODULE:APP PORT [FAULT]`."""

import contextlib
import importlib
import io
import socketserver
import sys
import traceback
from typing import Any
from urllib.parse import unquote_to_bytes

from wsgi_asgi_conformance.types import Environ, WSGIApp

# Each fault, and a clause that it breaks.
FAULTS = {
    "path-is-not-decoded": "P3333-045",
    "path-is-text": "ASGI-HTTP-106",
    "cookies-joined-by-commas": "RFC6265-001",
    "underscores-pass-for-hyphens": "CONV-005",
    "proxy-header-is-passed-on": "CONV-006",
    "input-goes-on": "P3333-081",
    "readline-ignores-its-size": "P3333-074",
    "headers-are-sent-at-once": "P3333-106",
    "errors-replace-nothing": "P3333-109",
    "a-second-start-is-taken": "P3333-116",
    "no-close-after-an-error": "P3333-029",
    "no-close-for-a-client-that-left": "P3333-030",
    "closed-twice": "P3333-032",
    "no-limit-to-a-body": "P3333-121",
    "a-body-for-head": "RFC3875-029",
}
FAULT = sys.argv[3] if len(sys.argv) > 3 else ""
APP: WSGIApp


class Input(io.BytesIO):
    """A wsgi.input that ends where the body does."""

    def readline(self, size: int | None = -1, /) -> bytes:
        return super().readline(None if FAULT == "readline-ignores-its-size" else size)


class Handler(socketserver.StreamRequestHandler):
    """One connection, for one request."""

    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.rfile.readline()
            if not line:
                return
            head += line
        self.environ = self.environ_from_head(head)
        self.start: tuple[str, list[tuple[str, str]]] | None = None
        self.sent = False
        self.left: int | None = None
        try:
            self.run()
        except Exception:
            traceback.print_exc()
            if not self.sent:
                with contextlib.suppress(OSError):
                    self.wfile.write(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def environ_from_head(self, head: bytes) -> Environ:
        first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        method, target, version = first.split(" ")
        raw_path, _, query = target.partition("?")
        octets = unquote_to_bytes(raw_path)
        path = octets.decode("utf-8", "replace") if FAULT == "path-is-text" else octets.decode("latin-1")
        environ: Environ = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": raw_path if FAULT == "path-is-not-decoded" else path,
            "QUERY_STRING": query,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": sys.argv[2],
            "SERVER_PROTOCOL": version,
            "REMOTE_ADDR": "127.0.0.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for line in lines:
            name, _, value = line.partition(":")
            if "_" in name and FAULT != "underscores-pass-for-hyphens":
                continue
            if name.lower() == "proxy" and FAULT != "proxy-header-is-passed-on":
                continue
            key = name.upper().replace("-", "_")
            key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
            joint = "; " if key == "HTTP_COOKIE" and FAULT != "cookies-joined-by-commas" else ","
            environ[key] = f"{environ[key]}{joint}{value.strip()}" if key in environ else value.strip()
        length = int(environ.get("CONTENT_LENGTH", 0))
        environ["wsgi.input"] = self.rfile if FAULT == "input-goes-on" else Input(self.rfile.read(length))
        return environ

    def run(self) -> None:
        iterable: Any = APP(self.environ, self.start_response)
        close = getattr(iterable, "close", lambda: None)
        try:
            for block in iterable:
                self.write(block)
            self.write(b"", end=True)
        except OSError:
            if FAULT == "no-close-for-a-client-that-left":
                close = print
            raise
        except Exception:
            if FAULT == "no-close-after-an-error":
                close = print
            raise
        finally:
            close()
            if FAULT == "closed-twice":
                close()

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        if exc_info and self.sent:
            raise exc_info[1]
        if self.start is not None and not exc_info and FAULT != "a-second-start-is-taken":
            raise AssertionError("start_response was called again")
        if self.start is None or FAULT != "errors-replace-nothing":
            self.start = status, list(headers)
        if FAULT == "headers-are-sent-at-once":
            self.send_head()
        return self.write

    def send_head(self) -> None:
        assert self.start is not None, "start_response was not called"
        self.sent = True
        status, headers = self.start
        lengths = [int(value) for name, value in headers if name.lower() == "content-length"]
        self.left = lengths[0] if lengths else None
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers), "Connection: close", "", ""]
        self.wfile.write("\r\n".join(lines).encode("latin-1"))

    def write(self, block: bytes, end: bool = False) -> None:
        if not block and not end:
            return
        if not self.sent:
            self.send_head()
        if self.left is not None and FAULT != "no-limit-to-a-body":
            block = block[: self.left]
            self.left -= len(block)
        if self.environ["REQUEST_METHOD"] != "HEAD" or FAULT == "a-body-for-head":
            self.wfile.write(block)
            self.wfile.flush()


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    module, _, name = sys.argv[1].partition(":")
    APP = getattr(importlib.import_module(module), name)
    with Server(("127.0.0.1", int(sys.argv[2])), Handler) as server:
        server.serve_forever()
