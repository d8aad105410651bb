"""One gRPC service, as connect-python's WSGI app and as its ASGI app, each behind the adapter of its kind."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.server import ConnectASGIApplication, ConnectWSGIApplication, Endpoint, EndpointSync

from bridge import ASGIToWSGI, WSGIToASGI

PATH = "/test.Words"


class TextCodec:
    """Messages that are text, so that no code has to be generated for them."""

    def name(self) -> str:
        return "text"

    def encode(self, message: str) -> bytes:
        return message.encode()

    def decode(self, data: bytes | bytearray, message_class: type[str]) -> str:
        return bytes(data).decode()


def method(name: str, stream_type: StreamType) -> MethodInfo[str, str]:
    return MethodInfo(
        name=name,
        service_name=PATH[1:],
        input=str,
        output=str,
        idempotency_level=IdempotencyLevel.UNKNOWN,
        stream_type=stream_type,
    )


UPPER = method("Upper", StreamType.UNARY)
LETTERS = method("Letters", StreamType.SERVER_STREAM)


def upper(word: str, context: Any) -> str:
    """Return the word in upper case, with a trailer of its own; refuse an empty one."""
    if not word:
        raise ConnectError(Code.INVALID_ARGUMENT, "there is no word")
    context.response_trailers["x-length"] = str(len(word))
    return word.upper()


def letters(word: str, context: Any) -> Iterator[str]:
    """Yield one letter after the other; refuse digits, wherever they are."""
    for letter in word:
        if letter.isdigit():
            raise ConnectError(Code.OUT_OF_RANGE, f"{letter} is no letter")
        yield letter


async def upper_async(word: str, context: Any) -> str:
    return upper(word, context)


async def letters_async(word: str, context: Any) -> AsyncIterator[str]:
    for letter in letters(word, context):
        yield letter


class WSGIWords(ConnectWSGIApplication):
    path = PATH


class ASGIWords(ConnectASGIApplication[Any]):
    path = PATH


asgi_app = WSGIToASGI(
    WSGIWords(
        endpoints={
            f"{PATH}/Upper": EndpointSync.unary(method=UPPER, function=upper),
            f"{PATH}/Letters": EndpointSync.server_stream(method=LETTERS, function=letters),
        },
        codecs=[TextCodec()],
    )
)
wsgi_app = ASGIToWSGI(
    ASGIWords(
        service=object(),
        endpoints=lambda _: {
            f"{PATH}/Upper": Endpoint.unary(UPPER, upper_async),
            f"{PATH}/Letters": Endpoint.server_stream(LETTERS, letters_async),
        },
        codecs=[TextCodec()],
    ),
    lifespan="off",
)
