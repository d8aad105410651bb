"""One request to an app or a URL, and the answer."""

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
    """A response; `body` is what came of it, at most 1 MiB."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    cut: bool = False  # there is more than `body`
    fault: str = ""  # what is wrong with it, in words without values


class Player(Protocol):
    """What answers requests, one at a time."""

    name: str
    host: str

    def play(self, request: Request) -> Answer:
        """Return the answer. Raises CannotRun if there is none in time."""

    def close(self) -> None:
        """End what was started for it."""


def is_url(name: str) -> bool:
    """Return whether `name` is a URL, and not an app."""
    return name.startswith(("http://", "https://"))


def remote_host(name: str) -> str | None:
    """Return the host of a URL that leads beyond this machine, else None."""
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
        raise CannotRun("a URL has a port or a host that is none: write http://host:port") from None
    if "@" in parts.netloc:
        raise CannotRun("a URL must not have a user and a password in it")
    if parts.query or parts.fragment or not parts.hostname:
        raise CannotRun("a URL must be a scheme, a host and perhaps a path, as in http://127.0.0.1:8000/shop")
    return parts


class URLPlayer:
    """A server; redirects are not followed."""

    def __init__(self, url: str, timeout: float) -> None:
        self._parts = _split(url)
        self._timeout = timeout
        self._context = ssl.create_default_context() if self._parts.scheme == "https" else None
        self.host = self._parts.netloc
        self.name = f"{self._parts.scheme}://{self.host}{self._parts.path.rstrip('/')}"

    def close(self) -> None:
        """Each request has a connection of its own, so there is nothing to end."""

    def play(self, request: Request) -> Answer:
        """Send it on a new connection."""
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
    """Return the answer with its fault, if Content-Length is not that of its body; servers see to that themselves."""
    lengths = [value for name, value in answer.headers if name.lower() == "content-length"]
    if not lengths or answer.cut or request.method == "HEAD" or answer.status in (204, 304) or answer.fault:
        return answer
    return answer if lengths[-1] == str(len(answer.body)) else answer._replace(fault="Content-Length is wrong")


def scope_of(request: Request) -> dict[str, Any]:
    """Return the scope that a server would make of the request."""
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
    """The blocks of a body, up to 1 MiB of them."""

    def __init__(self) -> None:
        self._blocks = io.BytesIO()
        self.cut = False

    def add(self, block: bytes) -> None:
        """Add a block, as much of it as there is room for."""
        room = LARGEST_BODY - self._blocks.tell()
        self._blocks.write(block[:room])
        self.cut = self.cut or len(block) > room

    def value(self) -> bytes:
        """Return what there is."""
        return self._blocks.getvalue()
