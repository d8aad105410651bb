"""Takes an answer apart into facts, each at its own place, so that two answers can be compared place by place."""

import hashlib
import re
import zlib
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

from bridge.migration.diff.exchange import LARGEST_BODY, Answer
from bridge.migration.diff.redact import Redactor, is_secret
from bridge.migration.diff.requests import Request
from bridge.migration.diff.strict_json import loads

Place = tuple[str | int, ...]

# Headers that a server or a proxy adds, that differ between any two answers, or that have facts of their own.
_IGNORED = {
    *("date", "server", "connection", "keep-alive", "transfer-encoding", "content-length", "x-request-id"),
    *("server-timing", "content-type", "set-cookie", "location", "etag"),
}
_SETS = {"vary", "allow", "cache-control"}
_TEXT = re.compile(r"text/.*|.*[/+]xml|application/(x-)?javascript|application/x-www-form-urlencoded")
_DEEPEST = 200


class Fact(NamedTuple):
    """What stands at a place: its type and its value. A container has no value, because its items have places."""

    type: str
    value: Any = None
    secret: bool = False


class Facts(NamedTuple):
    """An answer, place by place; `lines` if its body is text."""

    status: int
    places: dict[Place, Fact]
    lines: list[str] | None
    problem: str  # why its body cannot be compared reliably
    cut: bool
    body: bytes


def name_of(place: Place) -> str:
    """Return the notation of a place, which is the same for all items of a list: `$.items[].id`."""
    if place[0] != "$":
        return " ".join(map(str, place))
    text = "$"
    for part in place[1:]:
        if isinstance(part, int):
            text += "[]"
        else:
            text += f".{part}" if re.fullmatch(r"[\w-]+", part) else f"[{part!r}]"
    return text


def facts_of(request: Request, answer: Answer, host: str, strict: bool, redactor: Redactor) -> Facts:
    """Return the facts of an answer. The redactor learns its secrets."""
    places: dict[Place, Fact] = {}
    headers: dict[str, list[str]] = {}
    for name, value in answer.headers:
        headers.setdefault(name.lower(), []).append(value)
    for value in headers.get("set-cookie", ()):
        _add_cookie(places, value, redactor)
    if answer.fault:
        places["answer",] = Fact(answer.fault)
    for name, values in headers.items():
        if name not in _IGNORED:
            value = ", ".join(values)
            if name in _SETS:
                value = ", ".join(sorted({part.strip().lower() for part in value.split(",")} - {""}))
            secret = is_secret(name)
            if secret:
                redactor.learn(value)
            places["header", name] = Fact("header", value, secret)
    if "etag" in headers:
        places["header", "etag"] = Fact("header")
    if "location" in headers:
        location = _without_host(headers["location"][0], request, host)
        redactor.learn_target(location)
        places["header", "location"] = Fact("header", location)
    media_type = _add_media_type(places, headers.get("content-type", [""])[0])
    body, whole = _decoded(answer, headers.get("content-encoding", [""])[0].strip().lower())
    facts = Facts(answer.status, places, None, "", answer.cut or not whole, body)
    return _with_body(facts, media_type, strict, redactor) if body else facts


def _add_cookie(places: dict[Place, Fact], header: str, redactor: Redactor) -> None:
    pair, *attributes = header.split(";")
    name, _, value = (part.strip() for part in pair.partition("="))
    redactor.learn(value.strip('"'))
    place = ("cookie", name)
    places[place] = Fact("cookie", value, secret=True)
    for attribute in attributes:
        key, _, value = (part.strip() for part in attribute.partition("="))
        key = key.lower()
        places[(*place, key)] = Fact("attribute", value.lower() if key == "samesite" else value)


def _without_host(location: str, request: Request, host: str) -> str:
    """Return the target of a redirect, without scheme and host if they are the app's own."""
    own = f"http://{host}"
    parts = urlsplit(urljoin(own + request.target, location))
    return parts._replace(scheme="", netloc="").geturl() if parts.netloc == host else parts.geturl()


def _add_media_type(places: dict[Place, Fact], value: str) -> str:
    media_type, *parameters = (part.strip() for part in value.split(";"))
    if media_type:
        places["media type",] = Fact("media type", media_type.lower())
    for parameter in parameters:
        key, _, of = parameter.partition("=")
        if key.strip().lower() == "charset":
            places["charset",] = Fact("charset", of.strip('" ').lower())
    return media_type.lower()


def _decoded(answer: Answer, encoding: str) -> tuple[bytes, bool]:
    """Return at most 1 MiB of the decompressed body, and whether that is all of it."""
    if encoding not in ("gzip", "x-gzip", "deflate"):
        return answer.body, True
    for bits in (47, -15):  # gzip or zlib, detected by its start; some servers send raw deflate
        decoder = zlib.decompressobj(bits)
        try:
            body = decoder.decompress(answer.body, LARGEST_BODY)
        except zlib.error:
            continue
        return body, not decoder.unconsumed_tail
    return answer.body, True


def _with_body(facts: Facts, media_type: str, strict: bool, redactor: Redactor) -> Facts:
    places, body = facts.places, facts.body
    charset = str(places.get(("charset",), Fact("", "utf-8")).value)
    if (media_type == "application/json" or media_type.endswith("+json")) and not facts.cut:
        problem = "it is not valid JSON"
        try:
            _add_json(places, loads(body), strict, redactor)
            places["body",] = Fact("JSON")
            return facts
        except RecursionError:
            problem = "its JSON is nested too deeply"
        except ValueError as error:
            if not hasattr(error, "lineno") and not isinstance(error, UnicodeDecodeError):
                problem = f"it is not valid JSON: {error}"
        for place in [place for place in places if place[0] == "$"]:
            del places[place]
        places["body",] = Fact("invalid JSON")
        return facts._replace(problem=problem)
    if _TEXT.fullmatch(media_type) and not facts.cut:
        try:
            lines = [line.rstrip() for line in body.decode(charset).splitlines()]
        except (UnicodeDecodeError, LookupError):
            pass
        else:
            places["body",] = Fact("text")
            return facts._replace(lines=lines)
    places["body",] = Fact("bytes", f"{len(body):,} bytes, {hashlib.sha256(body).hexdigest()}")
    return facts


def _add_json(places: dict[Place, Fact], value: Any, strict: bool, redactor: Redactor) -> None:
    waiting: list[tuple[Place, Any, bool]] = [(("$",), value, False)]
    while waiting:
        place, value, secret = waiting.pop()
        if len(place) > _DEEPEST:
            raise RecursionError
        if isinstance(value, dict):
            places[place] = Fact("object")
            waiting += [((*place, key), item, secret or is_secret(key)) for key, item in reversed(value.items())]
        elif isinstance(value, list):
            places[place] = Fact("array", len(value))
            waiting += [((*place, number), item, secret) for number, item in reversed(list(enumerate(value)))]
        else:
            if secret and isinstance(value, (str, int, float)) and not isinstance(value, bool):
                redactor.learn(str(value))
            places[place] = Fact(_type_of(value, strict), value, secret)


def _type_of(value: Any, strict: bool) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if strict:
        return "integer" if isinstance(value, int) else "decimal"
    return "number"
