"""What an ASGI server's receive() returns: the request's body, and the disconnect."""

import time
from typing import Any

import anyio
import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.asgi_servers.test_scope import OK, path
from wsgi_asgi_conformance.notes import Notes
from wsgi_asgi_conformance.serving import RunningServer
from wsgi_asgi_conformance.types import Message, Receive, Scope, Send

END = {"type": "http.response.body", "body": b"done"}
BODY = bytes(range(256)) * 400


async def reads(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    """Note all messages of the request, with the sizes of their bodies, and answer with the whole body."""
    bodies, more_body = [], True
    while more_body:
        message = await receive()
        bodies.append(message.get("body", b""))
        more_body = message.get("more_body", False)
        notes("message", {**message, "body": len(bodies[-1])})
        notes("types", (type(message).__name__, type(message["type"]).__name__, type(bodies[-1]).__name__))
    await send(OK)
    await send({"type": "http.response.body", "body": b"".join(bodies)})


@clause("ASGI-HTTP-041")
def test_a_request_without_a_body_is_one_message(server: RunningServer) -> None:
    """A request without a body is one http.request with an empty body and more_body false."""
    _, exchange = server.get(reads)
    (message,) = exchange.values("message")
    assert (message["type"], message["body"], message.get("more_body", False)) == ("http.request", 0, False)


@clause("ASGI-HTTP-039", "ASGI-HTTP-040", "ASGI-CORE-011")
def test_a_body_comes_in_messages(server: RunningServer) -> None:
    """The messages add up to the request's body, and more_body is true in all but the last."""
    response, exchange = server.get(reads, method="POST", body=BODY)
    assert response.body == BODY
    messages = exchange.values("message")
    assert {message["type"] for message in messages} == {"http.request"}
    assert [bool(message.get("more_body", False)) for message in messages] == [True] * (len(messages) - 1) + [False]
    assert set(exchange.values("types")) == {("dict", "str", "bytes")}


@clause("ASGI-HTTP-034")
def test_a_chunked_body_is_decoded(server: RunningServer) -> None:
    """The app sees the data of the chunks without their sizes."""
    exchange = server.exchange(reads).request(
        "POST", headers=[("Transfer-Encoding", "chunked")], body=b"3\r\none\r\n5;x=y\r\n, two\r\n0\r\n\r\n"
    )
    assert exchange.response().body == b"one, two"


@clause("ASGI-HTTP-047")
def test_an_app_is_called_before_its_body_has_come(server: RunningServer) -> None:
    """The server calls the app before the body has arrived, so that the app can refuse a large upload."""
    exchange = server.exchange(reads).request("POST", headers=[("Content-Length", "1000000")])
    exchange.value("called")


@clause("ASGI-HTTP-047")
def test_a_client_that_waits_for_100_gets_that(server: RunningServer) -> None:
    """When the app receives, the server sends 100 (Continue) to a client that expects it."""
    exchange = server.exchange(reads).request("POST", headers=[("Expect", "100-continue"), ("Content-Length", "3")])
    assert exchange.client.head()[1] == 100
    exchange.client.send(b"one")
    assert exchange.response().body == b"one"


async def refuses(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    """Answer without reading the body."""
    await send({**OK, "status": 413})
    await send(END)


@clause("ASGI-HTTP-047")
def test_an_app_need_not_read_the_body(server: RunningServer) -> None:
    """If the app does not read the body, the client gets the response at once, or after 100 (Continue) and its body."""
    exchange = server.exchange(refuses).request("POST", headers=[("Expect", "100-continue"), ("Content-Length", "3")])
    status = exchange.client.head()[1]
    if status == 100:
        exchange.client.send(b"one")
        status = exchange.client.head()[1]
    assert status == 413


@clause("ASGI-HTTP-048")
def test_a_slow_client_holds_up_nobody(server: RunningServer) -> None:
    """While the app waits for one client's body, the server answers other clients."""
    slow = server.exchange(reads).request("POST", headers=[("Content-Length", "3")])
    slow.value("called")
    response, _ = server.get(path, "/other")
    assert response.body == b"/other"
    slow.client.send(b"one")
    assert slow.response().body == b"one"


async def receives_on(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    """Receive beyond the end of the request, in a task beside the response."""
    while (await receive()).get("more_body"):
        pass

    async def listen() -> None:
        notes("listening")
        for _ in range(3):
            message = await receive()
            notes("heard", message["type"])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await notes.wait_async("go on")
        await send(OK)
        await send(END)


@clause("ASGI-HTTP-081", "ASGI-HTTP-082", "ASGI-HTTP-085")
def test_receive_waits_for_the_end_of_the_response(server: RunningServer) -> None:
    """After the request, receive() waits until the response has ended, and then returns http.disconnect."""
    exchange = server.exchange(receives_on).request("POST", body=b"one")
    exchange.value("listening")
    time.sleep(0.2)
    assert exchange.values("heard") == []
    exchange.notes.open("go on")
    assert exchange.response().body == b"done"
    assert exchange.value("heard") == "http.disconnect"


@clause("ASGI-HTTP-082")
@pytest.mark.parametrize("leave", ["close", "reset"])
def test_receive_tells_of_a_client_that_leaves(server: RunningServer, leave: str) -> None:
    """If the client leaves, a receive() that is waiting returns http.disconnect."""
    exchange = server.exchange(receives_on).request("POST", body=b"one")
    exchange.value("listening")
    getattr(exchange.client, leave)()
    assert exchange.value("heard") == "http.disconnect"


async def answers_then_receives(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    """Answer, and then receive."""
    while (await receive()).get("more_body"):
        pass
    await send(OK)
    await send(END)
    notes("heard", (await receive())["type"])


@clause("ASGI-HTTP-079")
def test_receive_tells_of_a_response_that_has_ended(server: RunningServer) -> None:
    """A receive() after the response returns http.disconnect, even if the connection stays open."""
    exchange = server.exchange(answers_then_receives).request("POST", body=b"one", close=False)
    assert exchange.response().body == b"done"
    assert exchange.value("heard") == "http.disconnect"


@clause("ASGI-HTTP-080")
def test_receive_tells_so_again(server: RunningServer) -> None:
    """Each receive() after the client has left returns http.disconnect."""
    exchange = server.exchange(receives_on).request("POST", body=b"one")
    exchange.value("listening")
    exchange.client.close()
    exchange.value("heard", 3)
    assert set(exchange.values("heard")) == {"http.disconnect"}


@clause("ASGI-HTTP-080")
def test_a_client_that_leaves_its_body_is_told_of(server: RunningServer) -> None:
    """If the client leaves before its body ends, http.disconnect follows, and the body never looks complete."""
    exchange = server.exchange(types).request("POST", headers=[("Content-Length", "6")], body=b"one")
    exchange.value("type")
    exchange.client.reset()
    exchange.value("returned")
    assert exchange.values("type")[-1] == "http.disconnect"
    assert False not in exchange.values("more body")


async def types(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    """Receive until the request ends, and note the types of the messages."""
    more_body = True
    while more_body:
        message = await receive()
        notes("type", message["type"])
        more_body = message["type"] == "http.request" and message.get("more_body", False)
        if message["type"] == "http.request":
            notes("more body", more_body)


async def gives_up(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    """Cancel a receive(), and receive again later."""
    with anyio.move_on_after(0.05):
        notes("early", (await receive()).get("body"))
    notes("gave up")
    await reads(scope, receive, send, notes)


@clause("ASGI-HTTP-083")
def test_a_receive_that_is_given_up_loses_nothing(server: RunningServer) -> None:
    """If a receive() is cancelled, the next one returns the message."""
    exchange = server.exchange(gives_up).request("POST", headers=[("Content-Length", "3")])
    exchange.value("gave up")
    exchange.client.send(b"one")
    assert b"".join([*exchange.values("early"), exchange.response().body]) == b"one"


async def twice(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    """Change each message that receive() returns."""
    messages: list[Message] = []
    more_body = True
    while more_body:
        messages.append(await receive())
        more_body = bool(messages[-1].get("more_body"))
        messages[-1]["mine"] = True
    messages.append(await receive_soon(receive))
    notes("same", len({id(message) for message in messages}) < len(messages))
    await send(OK)
    await send(END)


async def receive_soon(receive: Receive) -> Message:
    """Return the next message, or an empty dict if none comes soon."""
    with anyio.move_on_after(0.05):
        return await receive()
    return {}


@clause("ASGI-CORE-016")
def test_each_message_is_a_new_dict(server: RunningServer) -> None:
    """receive() takes no arguments, and returns a new dict each time, which the app may change."""
    _, exchange = server.get(twice, method="POST", body=BODY)
    assert exchange.value("same") is False


async def counts(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    """Receive once the test allows it, and answer with the size of the body."""
    total, more_body = 0, True
    while more_body:
        await notes.wait_async("go on")
        message = await receive()
        total += len(message.get("body", b""))
        more_body = message.get("more_body", False)
    await send(OK)
    await send({"type": "http.response.body", "body": b"%d" % total})


@clause("ASGI-HTTP-047")
def test_a_body_that_nobody_receives_is_not_read(server: RunningServer) -> None:
    """If the app does not receive, the server stops reading before it has megabytes of the body."""
    size = 30_000_000
    exchange = server.exchange(counts).request("POST", headers=[("Content-Length", str(size))])
    exchange.value("called")
    exchange.client.socket.settimeout(0.5)
    sent = send_all(exchange.client.socket, size)
    assert sent < size, "the server took the whole body, which the app had not asked for"
    exchange.notes.open("go on")
    exchange.client.socket.settimeout(exchange.server.deadline)
    send_all(exchange.client.socket, size - sent)
    assert exchange.response().body == b"%d" % size


def send_all(sock: Any, size: int) -> int:
    """Send zeros until the socket accepts no more; return how many it accepted."""
    sent = 0
    while sent < size:
        try:
            sent += sock.send(bytes(min(1 << 16, size - sent)))
        except TimeoutError:
            break
    return sent
