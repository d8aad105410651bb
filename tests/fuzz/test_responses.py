"""Responses in both directions: whatever an app sends becomes a legal response, or is an error of the app."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import AppProtocolError
from bridge.sansio.messages import LIFESPAN, RESPONSE, WEBSOCKET, event_from_message, next_state
from bridge.sansio.response import ResponseFromASGI, ResponseFromWSGI, check_chunk, check_iterable
from bridge.sansio.websocket import code_and_reason_from_close, payload_from_send, response_from_accept
from tests.fuzz.strategies import (
    ANYTHING,
    BODIES,
    EXC_INFOS,
    FUZZ,
    NATIVE_HEADERS,
    RESPONSE_MESSAGES,
    RESPONSE_STARTS,
    STATUSES,
    WEBSOCKET_MESSAGES,
    mostly,
)
from wsgi_asgi_conformance.frames import ACCEPT, KEY

METHODS = st.sampled_from(["GET", "HEAD", "POST"])
TOKEN, FIELD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"), re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def check_native(headers: Any) -> None:
    """Check a list of headers against PEP 3333 and RFC 9110."""
    assert type(headers) is list
    assert all(TOKEN.fullmatch(name) and FIELD.fullmatch(value) for name, value in headers)


@FUZZ
@given(METHODS, mostly(RESPONSE_STARTS, RESPONSE_MESSAGES), st.lists(RESPONSE_MESSAGES, max_size=4))
def test_any_message_of_an_asgi_app(method: str, start: Any, bodies: list[Any]) -> None:
    """Any message becomes a WSGI response whose body is no longer than declared, or raises AppProtocolError."""
    response, body, length = ResponseFromASGI(method), b"", None
    try:
        response.start(start)
        length = response.length.declared
        assert re.fullmatch(r"[2-9][0-9]{2} [ -~]+", response.status)
        check_native(response.headers)
        for message in bodies:
            block = response.pass_on(message)
            assert type(block) is bytes
            body += block
    except AppProtocolError:
        pass
    assert length is None or len(body) <= length


@FUZZ
@given(
    METHODS,
    st.lists(st.tuples(STATUSES, NATIVE_HEADERS, EXC_INFOS), max_size=3),
    st.lists(mostly(BODIES, ANYTHING)),
)
def test_any_call_of_a_wsgi_app(method: str, starts: list[Any], chunks: list[Any]) -> None:
    """Any call becomes ASGI messages whose body is no longer than declared, or raises AppProtocolError or TypeError."""
    response, body = ResponseFromWSGI(method), b""
    error = RuntimeError("the app's")
    try:
        for status, headers, exc_info in starts:
            response.start_response(status, headers, exc_info)
        check_iterable(chunks)
        start = response.begin()
        assert 200 <= start["status"] <= 999
        check_native([(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]])
        for chunk in chunks:
            check_chunk(chunk)
            body += response.length.clamp(chunk)
        response.length.check_reached()
        assert response.length.bodiless or response.length.declared in (None, len(body))
        with pytest.raises(RuntimeError, match="the app's"):
            response.start_response("500 Oops", [], (RuntimeError, error, None))  # type: ignore[arg-type]
    except (AppProtocolError, TypeError):
        pass


@FUZZ
@given(
    st.sampled_from([RESPONSE, WEBSOCKET, LIFESPAN]),
    st.lists(RESPONSE_MESSAGES | WEBSOCKET_MESSAGES | ANYTHING, max_size=6),
)
def test_any_order_of_messages(order: Any, messages: list[Any]) -> None:
    """Each message leads to a known state, or raises AppProtocolError."""
    state = next(iter(order))
    for message in messages:
        try:
            state = next_state(order, state, event_from_message(message))
        except AppProtocolError:
            pass
        assert state in order


@FUZZ
@given(WEBSOCKET_MESSAGES, st.lists(st.sampled_from(["chat", "other"]), max_size=2))
def test_any_message_of_a_websocket_app(message: Any, subprotocols: list[str]) -> None:
    """Any message becomes a response, a payload or a close that RFC 6455 allows, or raises AppProtocolError."""
    try:
        response = response_from_accept(message, KEY, subprotocols, None)
        head, *lines = response.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        assert head == "HTTP/1.1 101 Switching Protocols"
        check_native([tuple(line.split(": ", 1)) for line in lines])
        assert f"Sec-WebSocket-Accept: {ACCEPT}" in lines
    except AppProtocolError:
        pass
    try:
        assert type(payload_from_send(message)) in (bytes, str)
    except AppProtocolError:
        pass
    try:
        code, reason = code_and_reason_from_close(message)
        assert type(code) is int
        assert type(reason) is str
    except AppProtocolError:
        pass
