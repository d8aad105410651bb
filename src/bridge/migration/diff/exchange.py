"""Answers, who gives them, and requests to a URL."""

import contextlib
import http.client
import io
import ipaddress
import ssl
import time
from typing import Any, NamedTuple, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

from bridge.migration.diff.requests import Request
from bridge.migration.loading import CannotRun

LARGEST_BODY = 1024 * 1024
_BLOCK = 64 * 1024


class Answer(NamedTuple):
    """A response with at most 1 MiB of its body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    cut: bool = False  # whether the body is longer
    fault: str = ""  # what is wrong with it, without any value of the app's


class Player(Protocol):
    """An app or a server that answers requests."""

    name: str
    host: str

    def play(self, request: Request) -> Answer:
        """Return the answer. Raises CannotRun if there is no answer in time."""

    def close(self) -> None:
        """Shut down what was started."""


def is_url(name: str) -> bool:
    """Return whether `name` is a URL; otherwise it names an app."""
    return name.startswith(("http://", "https://"))


def remote_host(name: str) -> str | None:
    """Return the host of a URL that leads to another machine; None for this machine, and for an app."""
    if not is_url(name):
        return None
    host = _split(name).hostname or ""
    with contextlib.suppress(ValueError):
        return None if ipaddress.ip_address(host).is_loopback else host
    return None if host == "localhost" or host.endswith(".localhost") else host


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise CannotRun("a URL has an invalid host or port: write http://host:port") from None
    if "@" in parts.netloc:
        raise CannotRun("a URL must not contain a user and a password")
    if parts.query or parts.fragment or not parts.hostname:
        raise CannotRun("a URL must consist of a scheme, a host and an optional path, as in http://127.0.0.1:8000/shop")
    return parts


class URLPlayer:
    """A server, by its URL. Redirects are not followed."""

    def __init__(self, url: str, timeout: float) -> None:
        self._parts = _split(url)
        self._timeout = timeout
        self._context = ssl.create_default_context() if self._parts.scheme == "https" else None
        self.host = self._parts.netloc
        self.name = f"{self._parts.scheme}://{self.host}{self._parts.path.rstrip('/')}"

    def close(self) -> None:
        """Do nothing: each request has its own connection."""

    def play(self, request: Request) -> Answer:
        """Send the request on a new connection."""
        assert self._parts.hostname is not None
        host, port = self._parts.hostname, self._parts.port
        deadline = time.monotonic() + self._timeout
        connection = (
            http.client.HTTPConnection(host, port, timeout=self._timeout)
            if self._context is None
            else http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._context)
        )
        with contextlib.closing(connection):
            try:
                return self._answer(connection, request, deadline)
            except TimeoutError:
                raise CannotRun(f"{self.name} did not answer within {self._timeout:g} s") from None
            except ssl.SSLCertVerificationError as error:
                raise CannotRun(
                    f"the certificate of {self.name} is not trusted: {error.verify_message} "
                    "(the environment's SSL_CERT_FILE names others to trust)"
                ) from None
            except http.client.RemoteDisconnected:
                raise CannotRun(f"{self.name} closed the connection without an answer") from None
            except OSError as error:
                reason = error.strerror or type(error).__name__
                raise CannotRun(f"{self.name} cannot be reached: {reason}") from None
            except (http.client.HTTPException, ValueError) as error:
                raise CannotRun(f"{self.name} did not answer with HTTP ({type(error).__name__})") from None

    def _answer(self, connection: http.client.HTTPConnection, request: Request, deadline: float) -> Answer:
        connection.putrequest(request.method, self._parts.path.rstrip("/") + request.target, skip_accept_encoding=True)
        for name, value in request.headers:
            connection.putheader(name, value.encode("latin-1"))
        if request.body or request.method in ("POST", "PUT", "PATCH"):
            connection.putheader("Content-Length", str(len(request.body)))
        connection.endheaders(request.body or None)
        response = connection.getresponse()
        body = bytearray()
        fault = ""
        while len(body) <= LARGEST_BODY:
            if time.monotonic() > deadline:
                raise TimeoutError
            try:
                block = response.read1(_BLOCK)
            except http.client.IncompleteRead as error:
                body += error.partial
                block, fault = b"", "the body is cut off"
            if not block:
                break
            body += block
        if not fault and len(body) <= LARGEST_BODY and response.length:
            fault = "the body is shorter than Content-Length"
        return Answer(
            response.status, tuple(response.getheaders()), bytes(body[:LARGEST_BODY]), len(body) > LARGEST_BODY, fault
        )


def checked_length(request: Request, answer: Answer) -> Answer:
    """Return the answer, with a fault if its Content-Length is wrong, because there is no server that would notice."""
    lengths = [value for name, value in answer.headers if name.lower() == "content-length"]
    if not lengths or answer.cut or request.method == "HEAD" or answer.status in (204, 304) or answer.fault:
        return answer
    return answer if lengths[-1] == str(len(answer.body)) else answer._replace(fault="Content-Length is wrong")


def scope_of(request: Request) -> dict[str, Any]:
    """Return the scope that a server would pass for the request."""
    path, _, query = request.target.partition("?")
    headers = [(b"host", b"localhost")]
    headers += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in request.headers]
    if request.body or request.method in ("POST", "PUT", "PATCH"):
        headers.append((b"content-length", str(len(request.body)).encode()))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 50000),
        "server": ("localhost", 80),
        "extensions": {},
    }


class Body:
    """Collects the blocks of a body, up to 1 MiB."""

    def __init__(self) -> None:
        self._blocks = io.BytesIO()
        self.cut = False

    def add(self, block: bytes) -> None:
        """Add as much of a block as there is room for."""
        room = LARGEST_BODY - self._blocks.tell()
        self._blocks.write(block[:room])
        self.cut = self.cut or len(block) > room

    def value(self) -> bytes:
        """Return the body so far."""
        return self._blocks.getvalue()
