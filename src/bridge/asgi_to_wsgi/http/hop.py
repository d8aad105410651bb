"""The hop between an exchange's loop and its WSGI thread: what the loop passes on, and how much of it."""

from typing import TypeAlias

from bridge.asgi_to_wsgi.http.streams import File
from bridge.types import Headers

# How many bytes of a body may be under way; a waiting app is woken when the server has taken half of them.
LIMIT = 256 * 1024


class Leave:
    """Tells the WSGI thread that a response will take a while, so that the thread leaves it if it may."""


LEAVE = Leave()


class Trailers:
    """The trailers of a response, which the loop sends after its body."""

    def __init__(self, headers: Headers) -> None:
        self.headers = headers


# What the loop puts into the outbox: a block of the body, or a file that replaces it; early hints; an exception of the
# app; LEAVE; trailers; None for the end.
Item: TypeAlias = bytes | File | Headers | BaseException | Leave | Trailers | None
