"""The messages of a WebSocket that have arrived and that the app has not received yet."""

from collections import deque
from collections.abc import Callable
from typing import Any

from wsproto.events import BytesMessage, TextMessage

from bridge.runtime import Change, Event

# How many bytes may wait for the app; each message counts `_MESSAGE_SIZE` more for its overhead.
_LIMIT = 256 * 1024
_MESSAGE_SIZE = 256


class Inbox:
    """Joins the frames of each message, and holds whole messages until the app receives them. All of it on the loop."""

    def __init__(self, max_message_size: int, event: Callable[[], Event]) -> None:
        """`max_message_size` is in bytes; `event` makes an event on the loop."""
        self.arrival = Change(event)  # of whether there is a message, or the WebSocket has ended
        self.messages: deque[bytes | str] = deque()
        self.full = False  # no more should be parsed until the app has received something
        self._max_message_size = max_message_size
        self._size = 0
        self._beginning = bytearray()  # of a message in several frames

    @property
    def has_room(self) -> bool:
        """Whether at least half of the room is free."""
        return self._size <= _LIMIT // 2

    def add(self, event: TextMessage | BytesMessage) -> bool:
        """Add a frame of a message; return False if the message is longer than `max_message_size`."""
        part: Any = event.data
        is_text = isinstance(part, str)
        block = part if not is_text or part.isascii() else part.encode()  # to count bytes
        if len(self._beginning) + len(block) > self._max_message_size:
            return False
        if not event.message_finished or self._beginning:
            self._beginning += part.encode() if is_text else part
            if not event.message_finished:
                return True
            part = self._beginning.decode() if is_text else bytes(self._beginning)
            self._beginning = bytearray()
        self.messages.append(part)
        self._size += _MESSAGE_SIZE + len(part)
        self.full = self._size >= _LIMIT
        self.arrival.notify_all()
        return True

    def take(self) -> bytes | str:
        """Remove the oldest message and return it. There must be one."""
        payload = self.messages.popleft()
        self._size -= _MESSAGE_SIZE + len(payload)
        self.full = self._size >= _LIMIT
        return payload

    def drop_beginning(self) -> None:
        """Drop the frames of a message whose end will not come."""
        self._beginning = bytearray()

    def clear(self) -> None:
        """Drop the messages that the app has not received."""
        self.messages.clear()
        self._size = 0
        self.full = False
