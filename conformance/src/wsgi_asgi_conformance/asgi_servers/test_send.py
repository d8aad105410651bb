"""How an ASGI server sends a response, and which messages send() refuses."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.asgi_servers.test_scope import OK, path, scope_of
from wsgi_asgi_conformance.notes import Notes
from wsgi_asgi_conformance.serving import RunningServer
from wsgi_asgi_conformance.types import Message, Receive, Scope, Send

START = "http.response.start"
BODY = "http.response.body"
LENGTH = {**OK, "headers": [(b"content-type", b"text/plain"), (b"content-length", b"6")]}


async def headers(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    pairs = [(b"x-b", b"1"), (b"set-cookie", b"a=1"), (b"x-a", b"2"), (b"set-cookie", b"b=2"), (b"x-b", b"3")]
    await send(
        {"type": START, "status": 200, "headers": [*pairs, (b"content-encoding", b"x-none"), (b"x-c", b"caf\xe9")]}
    )
    await send({"type": BODY, "body": b"one"})


@clause("ASGI-HTTP-004", "ASGI-HTTP-052", "ASGI-HTTP-006", "ASGI-HTTP-109")
def test_headers_keep_their_order(server: RunningServer) -> None:
    """Headers arrive in the app's order and byte for byte, each cookie in a header of its own."""
    response, _ = server.get(headers)
    own = [
        (name.lower(), value) for name, value in response.headers if name.lower() in ("x-a", "x-b", "x-c", "set-cookie")
    ]
    assert own == [
        ("x-b", "1"),
        ("set-cookie", "a=1"),
        ("x-a", "2"),
        ("set-cookie", "b=2"),
        ("x-b", "3"),
        ("x-c", "caf\xe9"),
    ]


@clause("ASGI-HTTP-059")
def test_the_encoding_is_the_apps(server: RunningServer) -> None:
    """The server sends Content-Encoding as the app set it, and does not change the body."""
    response, _ = server.get(headers, headers=[("Accept-Encoding", "gzip")])
    assert (response.values("content-encoding"), response.body) == (["x-none"], b"one")


async def defaults(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await send({"type": START, "status": 200})
    await send({"type": BODY})


@clause("ASGI-HTTP-054", "ASGI-HTTP-066")
def test_headers_and_body_may_be_left_out(server: RunningServer) -> None:
    """By default, a start message has no headers, and a body message is empty and ends the response."""
    response, _ = server.get(defaults)
    assert (response.status, response.body, response.complete) == (200, b"", True)


async def any_iterable(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    def pairs() -> Iterator[Any]:
        yield [b"x-list", b"1"]
        yield (b"x-tuple", b"2")
        yield iter((b"x-iterator", b"3"))

    await send({"type": START, "status": 200, "headers": pairs()})
    await send({"type": BODY, "body": b"one"})


@clause("ASGI-HTTP-055")
def test_headers_may_be_any_iterable(server: RunningServer) -> None:
    """Headers may be any iterable of pairs, such as a generator of lists, tuples and iterators."""
    response, _ = server.get(any_iterable)
    values = [response.values(name) for name in ("x-list", "x-tuple", "x-iterator")]
    assert (values, response.body) == ([["1"], ["2"], ["3"]], b"one")


async def blocks(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await send(OK)
    for block in (b"one", b"", b"two"):
        await send({"type": BODY, "body": block, "more_body": True, "unknown": 1})
    await send({"type": BODY, "body": b"three", "more_body": False})


@clause("ASGI-HTTP-067", "ASGI-HTTP-065", "ASGI-HTTP-036", "ASGI-CORE-032")
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_body_is_its_blocks_in_order(server: RunningServer, version: str) -> None:
    """The body is the blocks in order, the client can tell its end, and the server ignores unknown keys."""
    response, _ = server.get(blocks, version=version)
    assert (response.body, response.complete) == (b"onetwothree", True)


async def waits(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await send(OK)
    await send({"type": BODY, "body": b"one", "more_body": True})
    notes("sent")
    await notes.wait_async("go on")
    await send({"type": BODY, "body": b"two"})


@clause("ASGI-HTTP-064", "ASGI-HTTP-037", "ASGI-CORE-017")
def test_a_block_is_sent_when_it_is_given(server: RunningServer) -> None:
    """The client receives a block before the app sends the next one, however long the app waits."""
    exchange = server.exchange(waits).request()
    exchange.client.until(b"one")
    assert exchange.values("returned") == []
    exchange.notes.open("go on")
    assert exchange.client.rest().count(b"two") == 1


async def framed(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await send({**OK, "headers": [(b"transfer-encoding", b"gzip, chunked"), (b"content-type", b"text/plain")]})
    await send({"type": BODY, "body": b"one"})


@clause("ASGI-HTTP-057")
def test_a_transfer_encoding_of_the_apps_is_ignored(server: RunningServer) -> None:
    """The server ignores the app's Transfer-Encoding, because only the server frames the body."""
    response, _ = server.get(framed)
    assert (response.body, response.complete) == (b"one", True)
    assert all("gzip" not in value for value in response.values("transfer-encoding"))


@clause("ASGI-HTTP-063")
@pytest.mark.parametrize("status", [200, 201, 299, 304, 404, 418, 499, 599])
def test_any_status_is_sent(server: RunningServer, status: int) -> None:
    """The server sends any status code, even an unregistered one."""
    exchange = server.exchange(status_of_the_path).request(target=f"/{status}")
    assert exchange.response().status == status


async def status_of_the_path(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    status = int(scope["path"][1:])
    await send({"type": START, "status": status, "headers": []})
    await send({"type": BODY, "body": b"" if status in (204, 304) else b"one"})


async def too_much(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await send(LENGTH)
    with contextlib.suppress(Exception):
        await send({"type": BODY, "body": b"one, two", "more_body": True})
        await send({"type": BODY, "body": b"three"})


@clause("RFC9110-009")
def test_a_body_is_no_longer_than_it_says(server: RunningServer) -> None:
    """The server sends no bytes beyond Content-Length, which the client would take for another response."""
    exchange = server.exchange(too_much).request(close=False)
    raw = exchange.client.until(b"\r\n\r\n")
    exchange.client.fill(0.5)
    exchange.client.fill(0.2)
    assert b"content-length: 6" in raw.lower() or raw.startswith(b"HTTP/1.1 5")
    assert raw.startswith(b"HTTP/1.1 5") or len(exchange.client.unread) <= 6


@clause("RFC9110-003")
@pytest.mark.parametrize(
    "pair",
    [(b"x-a", b"b\r\nx-evil: 1"), (b"x-a", b"b\nx-evil: 1"), (b"x-a: b\r\nx-evil", b"1"), (b"x-a", b"b\x00")],
    ids=["cr-lf", "lf", "name", "nul"],
)
def test_an_app_cannot_split_a_response(server: RunningServer, pair: tuple[bytes, bytes]) -> None:
    """The server refuses a header with CR, LF or NUL, or sends it without them."""
    exchange = server.exchange(splits).request(headers=[("X-Pair", "|".join(part.hex() for part in pair))])
    head = exchange.client.rest().partition(b"\r\n\r\n")[0]
    assert b"\nx-evil" not in head
    assert b"\x00" not in head


async def splits(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    (value,) = [value for name, value in scope["headers"] if name == b"x-pair"]
    name, _, text = value.decode().partition("|")
    await send({**OK, "headers": [(bytes.fromhex(name), bytes.fromhex(text))]})
    await send({"type": BODY, "body": b"one"})


# --- Messages that are refused ---------------------------------------------------------------------


async def tries(send: Send, notes: Notes, *messages: Any) -> None:
    """Send messages, and note for each that it was taken, or which exception send() raised."""
    for message in messages:
        try:
            await send(message)
            notes("tried", "taken")
        except Exception as error:
            notes("tried", type(error).__name__)


async def starts_twice(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await send(OK)
    await tries(send, notes, {**OK, "status": 201})
    await send({"type": BODY, "body": b"one"})


@clause("ASGI-HTTP-062")
def test_a_response_starts_once(server: RunningServer) -> None:
    """A second http.response.start raises in the app."""
    _, exchange = server.get(starts_twice)
    assert exchange.value("tried") != "taken"


async def body_first(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await tries(send, notes, {"type": BODY, "body": b"one"})


@clause("ASGI-HTTP-062", "ASGI-HTTP-071")
def test_a_body_comes_after_a_start(server: RunningServer) -> None:
    """A body before http.response.start raises in the app, and the client gets a 500."""
    response, exchange = server.get(body_first)
    assert exchange.value("tried") != "taken"
    assert response.status == 500


async def invalid(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    kinds: dict[str, list[Message]] = {
        "unknown": [{"type": "http.response.nothing"}],
        "no type": [{"status": 200}],
        "no status": [{"type": START}],
        "status": [{"type": START, "status": "200 OK"}],
        "headers": [{"type": START, "status": 200, "headers": [("x-a", 1)]}],
        "body": [OK, {"type": BODY, "body": 5}],
        "text": [OK, {"type": BODY, "body": "one"}],
    }
    await tries(send, notes, *kinds[scope["query_string"].decode().replace("%20", " ")])


@clause("ASGI-CORE-028")
def test_an_unknown_message_raises(server: RunningServer) -> None:
    """send() raises for a type that is not in the spec."""
    assert refused(server, "unknown") != "taken"


@clause("ASGI-CORE-029")
@pytest.mark.parametrize("kind", ["no type", "no status"])
def test_a_message_without_a_key_raises(server: RunningServer, kind: str) -> None:
    """send() raises if a key without a default is missing."""
    assert refused(server, kind) != "taken"


@clause("ASGI-CORE-030")
@pytest.mark.parametrize("kind", ["status", "headers", "body", "text"])
def test_a_value_of_another_type_raises(server: RunningServer, kind: str) -> None:
    """send() raises for a value of another type than the spec's."""
    assert refused(server, kind) != "taken"


def refused(server: RunningServer, kind: str) -> str:
    """Have the app send messages of a kind; return its note on the last one."""
    exchange = server.exchange(invalid).request(target=f"/?{kind.replace(' ', '%20')}")
    exchange.until(lambda: exchange.values("returned") or exchange.values("raised"), "the end of the app")
    found: str = exchange.values("tried")[-1]
    return found


# --- Apps that end too early, too late, or badly ----------------------------------------------------


async def raises(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    raise ValueError("this app raises on purpose")


@clause("ASGI-CORE-034")
def test_an_app_that_raises_is_answered_with_a_500(server: RunningServer) -> None:
    """If the app raises, the client gets a 500, the error is logged, and the next request is served."""
    response, exchange = server.get(raises)
    assert response.status == 500
    exchange.until(lambda: "this app raises on purpose" in server.output(), "the error in the log")
    assert server.get(path, "/next")[0].body == b"/next"


async def nothing(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await receive()


@clause("ASGI-HTTP-071")
def test_an_app_that_does_not_answer_gets_a_500(server: RunningServer) -> None:
    """If the app returns without a response, the client gets a 500."""
    response, _ = server.get(nothing)
    assert response.status == 500


async def started_only(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await send(OK)


async def half(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await send(LENGTH)
    await send({"type": BODY, "body": b"one", "more_body": True})


async def half_of_chunks(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await send(OK)
    await send({"type": BODY, "body": b"one", "more_body": True})


async def raises_late(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await half_of_chunks(scope, receive, send, notes)
    raise ValueError("this app raises on purpose")


@clause("ASGI-HTTP-072")
@pytest.mark.parametrize("app", [started_only, half, half_of_chunks, raises_late])
def test_half_a_response_does_not_look_whole(server: RunningServer, app: Any) -> None:
    """If the app ends before its response does, the client gets a 500, or can see that the response is incomplete."""
    exchange = server.exchange(app).request(close=False)
    with contextlib.suppress(AssertionError):
        response = exchange.response()
        assert response.status == 500 or not response.complete
        return
    assert exchange.client.ended, f"the response looks whole: {exchange.client.unread!r}"
    assert not exchange.client.unread or b"0\r\n\r\n" not in exchange.client.unread


async def raises_after(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await blocks(scope, receive, send, notes)
    raise ValueError("this app raises on purpose")


@clause("ASGI-HTTP-073")
def test_an_error_after_the_response_does_not_change_it(server: RunningServer) -> None:
    """If the app raises after its response, the client still receives the whole response."""
    response, _ = server.get(raises_after)
    assert (response.status, response.body, response.complete) == (200, b"onetwothree", True)


async def raises_first(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await send(OK)
    raise ValueError("this app raises on purpose")


@clause("ASGI-HTTP-056")
def test_a_start_alone_does_not_make_a_response(server: RunningServer) -> None:
    """If the app raises after its start message, the client gets a 500, or a visibly incomplete response."""
    exchange = server.exchange(raises_first).request()
    raw = exchange.client.rest()
    assert b" 500 " in raw.split(b"\r\n")[0] or not raw.endswith(b"0\r\n\r\n")


async def goes_on(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await send(OK)
    await send({"type": BODY, "body": b"one"})
    await notes.wait_async("go on")
    await anyio.lowlevel.checkpoint()
    notes("went on")


@clause("ASGI-CORE-009", "ASGI-CORE-006")
def test_an_app_may_outlive_its_response(server: RunningServer) -> None:
    """After the response, the app may continue, even if the connection has closed."""
    response, exchange = server.get(goes_on)
    assert (response.body, response.complete) == (b"one", True)
    exchange.client.close()
    exchange.notes.open("go on")
    exchange.value("went on")


async def framed_by_length(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await send({**OK, "headers": [(b"content-length", b"3")]})
    await send({"type": BODY, "body": b"one"})


async def sends_late(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await send({**OK, "headers": [(b"content-length", b"3")]})
    await send({"type": BODY, "body": b"one"})
    await tries(send, notes, {"type": BODY, "body": b"late"})


@clause("ASGI-HTTP-068")
def test_messages_after_the_response_are_ignored(server: RunningServer) -> None:
    """Messages after the response do not reach the client, and send() does not raise for them."""
    exchange = server.exchange(sends_late).request(close=False)
    assert exchange.response().body == b"one"
    assert exchange.value("tried") == "taken"
    assert exchange.client.quiet(0.1) or exchange.client.ended
    assert b"late" not in exchange.client.unread


async def sends_on(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    """Send for two seconds, or until send() raises, and note how that ended."""
    await send(OK)
    notes("started")
    try:
        for _ in range(400):
            await send({"type": BODY, "body": bytes(1000), "more_body": True})
            await anyio.sleep(0.005)
    except OSError as error:
        notes("raised OSError", type(error).__name__)
        notes("heard", (await receive())["type"])
        raise
    except Exception as error:
        notes("raised another", type(error).__name__)
        raise
    notes("no error")


@clause("ASGI-HTTP-076", "ASGI-CORE-036")
def test_a_client_that_leaves_does_no_harm(server: RunningServer) -> None:
    """If the client leaves, the call of an app that keeps sending ends, and other requests are served."""
    exchange = server.exchange(sends_on).request()
    exchange.value("started")
    exchange.client.reset()
    exchange.until(lambda: exchange.values("raised") or exchange.values("returned"), "the end of the app")
    assert server.get(path, "/next")[0].body == b"/next"


@clause("ASGI-HTTP-074")
def test_a_send_to_nobody_raises_an_oserror(server: RunningServer) -> None:
    """After the client has left, send() raises an OSError; a server with a spec_version below 2.4 need not."""
    if (version := spec_version(server)) < "2.4":
        pytest.skip(f"spec_version is {version}")
    exchange = server.exchange(sends_on).request()
    exchange.value("started")
    exchange.client.reset()
    exchange.until(lambda: exchange.values("raised") or exchange.values("returned"), "the end of the app")
    assert exchange.values("raised OSError"), "send() " + str(exchange.values("raised another") or "never raised")


@clause("ASGI-HTTP-077", "ASGI-CORE-037")
def test_a_client_that_leaves_is_no_error_in_the_log(server: RunningServer) -> None:
    """If the client leaves, an app that does not catch send()'s OSError causes no traceback in the log."""
    exchange = server.exchange(sends_on).request()
    exchange.value("started")
    before = len(server.output())
    exchange.client.reset()
    exchange.until(lambda: exchange.values("raised") or exchange.values("returned"), "the end of the app")
    server.get(path, "/next")
    assert "Traceback" not in server.output()[before:]


async def listens_then_sends(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await send(OK)
    await send({"type": BODY, "body": b"one", "more_body": True})
    notes("started")
    while (await receive())["type"] != "http.disconnect":
        pass
    await tries(send, notes, {"type": BODY, "body": b"two", "more_body": True})


@clause("ASGI-HTTP-084")
def test_send_raises_once_the_app_has_been_told(server: RunningServer) -> None:
    """After http.disconnect, send() raises an OSError; a server with a spec_version below 2.4 need not."""
    if (version := spec_version(server)) < "2.4":
        pytest.skip(f"spec_version is {version}")
    exchange = server.exchange(listens_then_sends).request()
    exchange.value("started")
    exchange.client.reset()
    assert exchange.value("tried") != "taken"


def spec_version(server: RunningServer) -> str:
    """Return the version of the spec that the server claims to follow."""
    return str(scope_of(server)["asgi"].get("spec_version", "2.0"))


async def floods(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    await send(OK)
    for number in range(400):
        await send({"type": BODY, "body": bytes(100_000), "more_body": True})
        notes("sent", number)
    await send({"type": BODY})


@clause("ASGI-CORE-017")
def test_send_waits_for_a_client_that_does_not_read(server: RunningServer) -> None:
    """send() waits until the client reads, so that 40 MB do not pile up in the server."""
    exchange = server.exchange(floods).request()
    last = -1
    while (now := len(exchange.values("sent"))) != last:
        last = now
        time.sleep(0.4)
    assert last < 390, "send() returned for all of 40 MB that nobody had read"
    size = 0
    while exchange.client.fill():
        size += len(exchange.client.unread)
        exchange.client.unread = b""
    assert size > 40_000_000


@clause("ASGI-HTTP-065")
def test_a_response_to_head_has_no_body(server: RunningServer) -> None:
    """A response to HEAD has the headers of a GET, and no body."""
    exchange = server.exchange(framed_by_length).request("HEAD", close=False)
    response = exchange.response("HEAD")
    assert response.values("content-length") in (["3"], [])
    exchange.value("returned")
    exchange.client.fill(0.1)
    assert exchange.client.unread == b""
