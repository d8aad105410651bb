import queue
import threading
from collections.abc import Callable, Iterable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from bridge.errors import ClientDisconnected, WouldBlockLoop
from bridge.runtime import running_loop
from bridge.wsgi_to_asgi.websocket.messages import Accept, Close, Item, Messages
from tests.fakes import eventually


def started(target: Callable[..., Any], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=arguments)
    thread.start()
    return thread


def send_all(messages: Messages, contents: Iterable[str | bytes]) -> None:
    for content in contents:
        messages.send(content)


async def until_ended(*threads: threading.Thread) -> None:
    await eventually(lambda: not any(thread.is_alive() for thread in threads))


async def take(messages: Messages, count: int) -> list[Item]:
    """Return the next `count` items, and record them as sent."""
    items: list[Item] = []
    while len(items) < count:
        for item in await messages.take():
            items.append(item)
            messages.was_sent(item)
    return items


async def test_what_is_said_comes_in_its_order() -> None:
    """The acceptance, messages and the close come in order, and then only the end."""
    messages = Messages(running_loop())
    assert messages.accept("chat")
    assert not messages.accept()
    for item in ("text", b"bytes", "", Close(1000, "bye")):
        messages.send(item)
    messages.hang_up()
    assert await messages.take() == [Accept("chat"), "text", b"bytes", "", Close(1000, "bye")]
    assert await messages.take() == []
    assert await messages.take() == []


@pytest.mark.parametrize("content", ["", "x" * 100, b"x" * 1000, b"x" * 1_000_000])
async def test_a_thread_that_sends_waits_for_the_loop(content: str | bytes) -> None:
    """A thread that sends waits until there is room, which empty messages fill, too."""
    messages = Messages(running_loop())
    thread = started(send_all, messages, [content] * 2000)
    await anyio.wait_all_tasks_blocked()
    assert thread.is_alive()
    assert await take(messages, 2000) == [content] * 2000
    await until_ended(thread)


async def test_threads_may_send_side_by_side() -> None:
    """Nothing is lost, and the messages of each thread keep their order."""
    messages = Messages(running_loop())
    names = "abc"
    threads = [started(send_all, messages, [f"{name}{n}" for n in range(1000)]) for name in names]
    items = await take(messages, 3000)
    for name in names:
        assert [item for item in items if str(item).startswith(name)] == [f"{name}{n}" for n in range(1000)]
    await until_ended(*threads)


async def test_who_waits_for_room_is_told_the_end() -> None:
    """Threads that wait for room are woken by the end, after which send raises."""
    messages = Messages(running_loop())
    refused: list[OSError] = []

    def send() -> None:
        try:
            messages.send(b"x" * 100_000)
        except ClientDisconnected as error:
            refused.append(error)

    threads = [started(send) for _ in range(3)]
    await eventually(lambda: messages._given)
    messages.finish(1001, "bye")
    messages.finish(1002, "not the first")
    await until_ended(*threads)
    assert len(refused) == 2  # the first two were already sent
    assert messages.end == (1001, "bye")
    with pytest.raises(ClientDisconnected):
        messages.send("more")


async def test_who_has_hung_up_says_no_more() -> None:
    """After the app's side has ended, a thread that still sends gets an error."""
    messages = Messages(running_loop())
    messages.hang_up()
    with pytest.raises(ClientDisconnected):
        messages.send("more")


async def test_what_is_not_utf_8_is_the_senders_error() -> None:
    """Text that is not UTF-8 raises in the app's own call, and nothing is sent."""
    messages = Messages(running_loop())
    with pytest.raises(UnicodeEncodeError):
        messages.send("\ud800")
    messages.hang_up()
    assert await messages.take() == []


async def test_who_waits_for_a_message_is_told_the_end() -> None:
    """Each thread that waits for a message is told the end, after earlier messages."""
    messages = Messages(running_loop())
    received: list[object] = []
    threads = [started(lambda: received.extend(iter(messages.receive, None))) for _ in range(3)]
    await messages.put("a")
    await messages.put(b"b")
    messages.finish(1005, None)
    await until_ended(*threads)
    assert sorted(map(str, received)) == ["a", "b'b'"]
    assert messages.receive(0) is None


async def test_an_arrival_can_be_waited_for() -> None:
    """The event is set while a message waits, cleared by a receive that finds none, and set for good at the end."""
    messages = Messages(running_loop())
    await messages.put("early")
    event = messages.arrival()
    assert event.is_set()
    assert messages.receive() == "early"
    with pytest.raises(queue.Empty):
        messages.receive(0)
    assert not event.is_set()
    await messages.put("late")
    assert event.is_set()
    assert messages.receive() == "late"
    with pytest.raises(queue.Empty):
        messages.receive(0)
    messages.finish(1000, "")
    assert event.is_set()
    assert messages.receive() is None
    assert event.is_set()


async def test_the_loop_waits_for_a_thread_that_receives() -> None:
    """The loop waits until the thread has made room."""
    messages = Messages(running_loop())
    count = 3000

    async def put() -> None:
        for number in range(count):
            await messages.put(f"{number:<100}")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(put)
        await anyio.wait_all_tasks_blocked()
        assert 0 < messages._inbox.qsize() < count / 2
        received: list[object] = []
        thread = started(lambda: received.extend(messages.receive() for _ in range(count)))
    await until_ended(thread)
    assert received == [f"{number:<100}" for number in range(count)]


async def test_a_flood_lets_the_loop_see_to_others() -> None:
    """An app that is faster than the server does not stop other tasks."""
    messages = Messages(running_loop())
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        for _ in range(100):
            messages.send("x")
            await messages.take()
            messages.send("x")
            await messages.take()
        assert turns >= 100
        tasks.cancel_scope.cancel()


def test_a_closed_loop_is_no_error_of_the_app() -> None:
    """On a closed loop, the app's calls raise nothing about the loop, because the app is told the end anyway."""
    loops = []

    async def make() -> None:
        loops.append(Messages(running_loop()))

    anyio.run(make)
    loops[0].send("into nothing")
    loops[0].hang_up()


async def test_what_would_sleep_on_the_loop_raises() -> None:
    """On the loop, the app may receive what has arrived and send while there is room, and nothing else."""
    messages = Messages(running_loop())
    messages.accept()
    arrival = messages.arrival()
    for timeout in (None, 5.0):
        with pytest.raises(WouldBlockLoop, match="lend_loop"):
            messages.receive(timeout)
        with pytest.raises(WouldBlockLoop):
            arrival.wait(timeout)
    assert not arrival.wait(0)
    with pytest.raises(queue.Empty):
        messages.receive(0)
    await messages.put("here")
    assert arrival.wait()
    assert messages.receive() == "here"
    messages.send("x" * 60_000)
    with pytest.raises(WouldBlockLoop):
        messages.send("x" * 60_000)
    messages.hang_up()
    assert await messages.take() == [Accept(), "x" * 60_000]  # the refused messages are not sent
    messages.finish(1000, None)
    assert messages.receive() is None


async def test_a_send_behind_one_that_waits_raises_on_the_loop() -> None:
    """The other thread waits for the loop, so waiting for that thread would stop the loop."""
    messages = Messages(running_loop())
    thread = started(send_all, messages, ["x" * 100_000])
    await eventually(messages._sending.locked)
    with pytest.raises(WouldBlockLoop):
        messages.send("y")
    with pytest.raises(WouldBlockLoop):
        messages.accept()
    assert await take(messages, 1) == ["x" * 100_000]
    await until_ended(thread)
    messages.send("y")
