"""Reads the requests to play from a HAR, an access log, a list or the command line."""

import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import quote, urlsplit

from bridge.migration.diff.strict_json import loads
from bridge.migration.loading import CannotRun

SAFE = ("GET", "HEAD", "OPTIONS")
# A parsed HAR takes several times its size in memory. Access logs are read line by line and may have any size.
_LARGEST_HAR = 64 * 1024 * 1024
_MOST = 10_000

_LOG_LINE = re.compile(r'^\S+ \S+ .*?\[[^\]]*\] "(?P<method>[A-Z]+) (?P<target>\S+)(?: HTTP/[\d.]+)?" \d{3} ')
_LIST_LINE = re.compile(r"^(?:(?P<method>[A-Z]+)\s+)?(?P<target>/\S*)$")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Headers that belong to the recorded connection, not to the request.
_DROPPED = {
    *("host", "content-length", "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"),
    *("upgrade", "expect", "http2-settings", "accept-encoding"),
}
_CREDENTIALS = re.compile(r"cookie2?|(proxy-)?authorization|x-api-key|x-csrf.*|x-xsrf.*|x-auth.*", re.IGNORECASE)


class Request(NamedTuple):
    """One request; `target` is its path with its query."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class Requests(NamedTuple):
    """The requests to play, and how many were left out, by reason."""

    played: list[Request]
    left_out: dict[str, int]
    credentials: list[tuple[str, str]]  # headers whose values must be hidden


def read_requests(source: str | None, paths: Iterable[str], unsafe: bool, send_credentials: bool) -> Requests:
    """Return each request of the file `source` ("-" is stdin) once, and then those of `paths`. Raises CannotRun."""
    found = Requests([], {}, [])
    known: set[Request] = set()
    for request in _all(source, paths, found):
        if request.method not in SAFE and not unsafe:
            _leave_out(found, f"{request.method} is not safe (--unsafe plays it)")
            continue
        kept = tuple(_kept(request.headers, send_credentials, found))
        request = request._replace(headers=kept)
        if request in known:
            _leave_out(found, "repeated")
        elif len(known) >= _MOST:
            _leave_out(found, f"beyond the first {_MOST:,}")
        else:
            known.add(request)
            found.played.append(request)
    if not found.played:
        reasons = "".join(f"; {count} left out: {reason}" for reason, count in found.left_out.items())
        raise CannotRun(f"there are no requests to play: name a file by --requests, or paths by --path{reasons}")
    return found


def _kept(headers: Iterable[tuple[str, str]], send: bool, found: Requests) -> Iterator[tuple[str, str]]:
    for name, value in headers:
        if _CREDENTIALS.fullmatch(name):
            found.credentials.append((name, value))
            if not send:
                continue
        yield name, value


def _leave_out(found: Requests, reason: str) -> None:
    found.left_out[reason] = found.left_out.get(reason, 0) + 1


def _all(source: str | None, paths: Iterable[str], found: Requests) -> Iterator[Request]:
    if source == "-":
        yield from _from_file(sys.stdin.buffer, "standard input", found)
    elif source is not None:
        try:
            with Path(source).open("rb") as file:
                yield from _from_file(file, source, found)
        except OSError as error:
            raise CannotRun(f"{source} cannot be read: {error.strerror}") from None
    for path in paths:
        if not path.startswith("/"):
            raise CannotRun("a --path must begin with a slash, as in --path /orders")
        yield Request("GET", _quoted(path))


def _from_file(file: IO[bytes], name: str, found: Requests) -> Iterator[Request]:
    first = b""
    for first in file:
        if first.strip():
            break
    if first.lstrip(b"\xef\xbb\xbf \t").startswith((b"{", b"[")):
        data = first + file.read(_LARGEST_HAR + 1)
        if len(data) > _LARGEST_HAR:
            raise CannotRun(f"{name} is larger than 64 MiB: save the HAR without the content of responses, or split it")
        yield from _from_har(data, name, found)
        return
    seen = False
    for line in _lines(first, file):
        if not line or line.startswith("#"):
            continue
        match = _LOG_LINE.match(line) or _LIST_LINE.match(line)
        if match is None:
            if not seen:
                raise CannotRun(
                    f"{name}: expected a HAR, an access log (common or combined) or a list of lines like GET /path, "
                    "but its first line is none of them"
                )
            _leave_out(found, "lines that cannot be read")
            continue
        seen = True
        if not match["target"].startswith("/"):
            _leave_out(found, "targets that are not paths")
            continue
        yield Request(match["method"] or "GET", _quoted(match["target"]))


def _lines(first: bytes, file: IO[bytes]) -> Iterator[str]:
    yield first.decode("utf-8", "replace").strip()
    for line in file:
        yield line.decode("utf-8", "replace").strip()


def _from_har(data: bytes, name: str, found: Requests) -> Iterator[Request]:
    try:
        har = loads(data)
        entries = har["log"]["entries"]
        if not isinstance(entries, list):
            raise TypeError
    except json.JSONDecodeError as error:
        raise CannotRun(
            f"{name} is not complete JSON (line {error.lineno}, column {error.colno}): was the HAR cut off?"
        ) from None
    except (ValueError, RecursionError) as error:
        raise CannotRun(f"{name} is not valid JSON: {error}") from None
    except (KeyError, TypeError):
        raise CannotRun(f"{name} is JSON, but not a HAR: it has no log.entries") from None
    host = None
    for number, entry in enumerate(entries, 1):
        try:
            request = entry["request"]
            url = urlsplit(request["url"])
            host = host or url.netloc
            if url.netloc != host:
                _leave_out(found, "another host than that of the first request")
            elif url.scheme not in ("http", "https"):
                _leave_out(found, "not HTTP")
            else:
                yield _request_from_entry(request, url.path, url.query)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise CannotRun(f"{name}: request {number} has no usable method, url, headers or postData") from None


def _request_from_entry(request: dict[str, Any], path: str, query: str) -> Request:
    method = request["method"].upper()
    headers = tuple(
        (header["name"], header["value"])
        for header in request.get("headers", ())
        if header["name"].lower() not in _DROPPED and not header["name"].startswith(":")
    )
    if not _TOKEN.fullmatch(method):
        raise ValueError("no method")
    for header_name, value in headers:
        if not _TOKEN.fullmatch(header_name) or re.search(r"[\r\n\0]", value):
            raise ValueError("no header")
        value.encode("latin-1")
    body = (request.get("postData") or {}).get("text") or ""
    target = _quoted(path or "/") + (f"?{_quoted(query)}" if query else "")
    return Request(method, target, headers, body.encode())


def _quoted(target: str) -> str:
    """Return a target with characters quoted that a request line must not contain."""
    return quote(target, safe="/?#[]@!$&'()*+,;=:%~-._").replace("#", "%23")
