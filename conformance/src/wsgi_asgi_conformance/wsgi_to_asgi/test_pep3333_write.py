import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import Blocks
from wsgi_asgi_conformance.asgi_server import ASGIServer, ToASGI
from wsgi_asgi_conformance.types import Environ, StartResponse


@clause("P3333-135", "P3333-137")
def test_what_is_written_is_not_delayed(adapt: ToASGI, serve: ASGIServer) -> None:
    """write() sends the headers and each block while the app still prepares the next one."""
    seen = threading.Semaphore(0)

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("201 Created", [])
        write(b"one")
        for block in (b"two", b"three"):
            write(block if seen.acquire(timeout=serve.deadline) else b"too late")
        return []

    connection = serve(adapt(app))
    for body in (b"one", b"onetwo"):
        connection.until(lambda body=body: connection.body == body, "a block")  # type: ignore[misc]
        assert connection.status == 201
        seen.release()
    assert connection.finish().body == b"onetwothree"


@clause("P3333-137")
def test_headers_are_not_replaced_after_a_write(adapt: ToASGI, serve: ASGIServer) -> None:
    """The first write() sends the headers, so that start_response with exc_info raises after it."""
    errors: list[Exception] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])(b"one")
        try:
            raise ValueError("an error")
        except ValueError:
            try:
                start_response("500 Oops", [], sys.exc_info())
            except ValueError as error:
                errors.append(error)
        return []

    connection = serve(adapt(app)).until_ended()
    assert len(errors) == 1
    assert connection.status == 200


@clause("P3333-136")
def test_what_is_written_comes_before_what_is_returned(adapt: ToASGI, serve: ASGIServer) -> None:
    """The body begins with the written blocks, in order."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [])
        write(b"one")
        write(b"")
        write(b"two")
        return [b"three", b"four"]

    assert serve(adapt(app)).finish().body == b"onetwothreefour"


@clause("P3333-138")
def test_an_app_that_writes_may_return_nothing_else(adapt: ToASGI, serve: ASGIServer) -> None:
    """After write(), an iterable without blocks ends the body once, and is closed."""
    blocks = Blocks([])

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])(b"one")
        return blocks

    connection = serve(adapt(app)).finish()
    assert connection.body == b"one"
    assert [message["type"] for message in connection.sent if not message.get("more_body")][1:] == [
        "http.response.body"
    ]
    assert blocks.closed == 1


@clause("P3333-138")
def test_an_app_that_writes_must_return_an_iterable(adapt: ToASGI, serve: ASGIServer) -> None:
    """It is an error if the app returns None, even after write()."""

    def app(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", [])(b"one")

    connection = serve(adapt(app)).until_ended()
    assert connection.error is not None
    assert not connection.complete


@clause("P3333-139", "P3333-147")
@pytest.mark.parametrize("block", ["text", None, 65, [b"one"]], ids=repr)
def test_write_takes_bytes_alone(adapt: ToASGI, serve: ASGIServer, block: Any) -> None:
    """write() raises for anything but bytes, and sends nothing of it."""
    errors: list[Exception] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [])
        write(b"one")
        try:
            write(block)
        except Exception as error:
            errors.append(error)
        return [b"one"]

    connection = serve(adapt(app)).until_ended()
    assert len(errors) == 1
    assert {type(message.get("body", b"")) for message in connection.sent} <= {bytes}


@clause("P3333-139")
def test_write_ends_with_the_request(adapt: ToASGI, serve: ASGIServer) -> None:
    """write() raises after the end of the request, and sends nothing."""
    writes: list[Callable[[bytes], object]] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        writes.append(start_response("200 OK", []))
        return [b"one"]

    connection = serve(adapt(app)).finish()
    assert callable(writes[0])
    with pytest.raises(Exception):  # noqa: B017, PT011  # the adapter chooses which
        writes[0](b"two")
    assert connection.settle().body == b"one"


@clause("P3333-140")
@pytest.mark.parametrize("send_error", [None, OSError("the client left")], ids=["send-is-silent", "send-raises"])
def test_write_does_not_wait_for_a_client_that_left(
    adapt: ToASGI, serve: ASGIServer, send_error: Exception | None
) -> None:
    """When the client leaves, a waiting write() ends, and so do the app and the call."""
    left, ended = threading.Event(), threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            write = start_response("200 OK", [])
            for number in range(1000):
                if number == 500:
                    left.wait(serve.deadline)
                write(b"x" * 1024)
        finally:
            ended.set()
        return []

    connection = serve(adapt(app), hold_after=2).until_logged("send", 2)
    connection.disconnect(send_error)
    left.set()
    connection.until(ended.is_set, "the end of the app").until_ended()
