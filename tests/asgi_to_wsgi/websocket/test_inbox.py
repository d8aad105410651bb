import anyio
import pytest
from wsproto.events import BytesMessage, TextMessage

from bridge.asgi_to_wsgi.websocket.inbox import Inbox


def text(data: str, finished: bool = True) -> TextMessage:
    return TextMessage(data, message_finished=finished)


def binary(data: bytes, finished: bool = True) -> BytesMessage:
    return BytesMessage(data, message_finished=finished)


def test_frames_are_joined_to_messages() -> None:
    """The app gets each message whole, in the order of arrival, and as text or bytes."""
    inbox = Inbox(100, anyio.Event)
    assert inbox.add(text("ä", finished=False))
    assert inbox.add(text("", finished=False))
    assert not inbox.messages
    assert inbox.add(text("ö"))
    assert inbox.add(binary(b"one"))
    assert inbox.add(binary(b"t", finished=False))
    assert inbox.add(binary(b"wo"))
    assert [inbox.take() for _ in range(3)] == ["äö", b"one", b"two"]
    assert not inbox.messages


@pytest.mark.parametrize(("one", "more"), [(text("ää"), text("ä", False)), (binary(b"1234"), binary(b"12", False))])
def test_a_message_is_limited_in_bytes(one: TextMessage | BytesMessage, more: TextMessage | BytesMessage) -> None:
    """A message may have `max_message_size` bytes as UTF-8, in one frame or in several, and not one more."""
    assert Inbox(4, anyio.Event).add(one)
    assert not Inbox(3, anyio.Event).add(one)
    several = Inbox(5, anyio.Event)
    assert several.add(more)
    assert several.add(more)
    assert not several.add(more)


def test_a_full_inbox_has_room_again_once_half_of_it_is_taken() -> None:
    """Messages without payload fill the inbox, too, because each takes memory."""
    inbox = Inbox(0, anyio.Event)
    while not inbox.full:
        inbox.add(binary(b""))
    count = len(inbox.messages)
    while not inbox.has_room:
        inbox.take()
        assert not inbox.full
    assert len(inbox.messages) == count // 2
    inbox.clear()
    assert inbox.has_room
    assert not inbox.messages


def test_a_beginning_can_be_dropped() -> None:
    """The frames of a message that will not end take no memory, and are no part of another message."""
    inbox = Inbox(100, anyio.Event)
    inbox.add(text("dropped", finished=False))
    inbox.drop_beginning()
    inbox.add(text("whole"))
    assert inbox.take() == "whole"


async def test_an_arrival_wakes_who_waits() -> None:
    """A frame that completes a message wakes the tasks that wait for one."""
    inbox = Inbox(100, anyio.Event)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(inbox.arrival.wait)
            await anyio.wait_all_tasks_blocked()
            inbox.add(text("whole"))
