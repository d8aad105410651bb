import logging
import threading
from collections.abc import Callable, Iterable, Iterator

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import Blocks, wsgi_response
from wsgi_asgi_conformance.asgi_server import ASGIConnection, ASGIServer, ToASGI


@clause("P3333-028")
def test_the_iterable_is_closed_when_the_response_is_complete(adapt: ToASGI, serve: ASGIServer) -> None:
    """When the call returns, close() has run."""
    blocks = Blocks([b"one", b"two"])
    connection = serve(adapt(wsgi_response(blocks))).finish()
    assert connection.body == b"onetwo"
    assert blocks.closed == 1


@clause("P3333-029")
def test_the_iterable_is_closed_when_it_raises(adapt: ToASGI, serve: ASGIServer) -> None:
    """An error in the app's second block reaches the server, and close() still runs."""
    blocks = Blocks([b"one", ValueError("two")])
    connection = serve(adapt(wsgi_response(blocks)))
    with pytest.raises(ValueError, match="two"):
        connection.finish()
    assert blocks.closed == 1


@clause("P3333-030")
@pytest.mark.parametrize("send_error", [None, OSError("the client left")], ids=["send-is-silent", "send-raises"])
def test_the_iterable_is_closed_when_the_client_leaves(
    adapt: ToASGI, serve: ASGIServer, send_error: Exception | None
) -> None:
    """If the client leaves an endless response, the iterable is closed and the call ends."""
    left = threading.Event()
    # The limit ends the test if the adapter does not stop; it is more than any adapter buffers.
    blocks = Blocks(b"x" * 1024 for number in range(10_000) if number == 0 or left.wait(serve.deadline))
    connection = serve(adapt(wsgi_response(blocks)), hold_after=2)
    connection.until_logged("send", 2)
    connection.disconnect(send_error)
    left.set()
    connection.until_ended()
    assert blocks.closed == 1
    assert blocks.started < 10_000


@clause("P3333-031")
@pytest.mark.parametrize(
    ("content", "headers"),
    [([b"12"] * 50, [("Content-Length", "2")]), ([b"one", "two"], [])],
    ids=["content-length-is-reached", "a-block-is-no-bytes"],
)
def test_the_iterable_is_closed_when_the_adapter_stops_early(
    adapt: ToASGI, serve: ASGIServer, content: list[bytes], headers: list[tuple[str, str]]
) -> None:
    """The adapter closes the iterable even if it stops before the iterable's end."""
    blocks = Blocks(content)
    serve(adapt(wsgi_response(blocks, headers=headers))).until_ended()
    assert blocks.closed == 1


@clause("P3333-032")
def test_what_is_closed_is_what_the_app_returned(adapt: ToASGI, serve: ASGIServer) -> None:
    """close() is called once, on the iterable, even if its iterator has a close(), too."""
    blocks = Blocks([b"one"])  # whose iterator is a generator
    serve(adapt(wsgi_response(blocks))).finish()
    assert blocks.closed == 1


@clause("P3333-033")
def test_an_error_in_close_is_told(adapt: ToASGI, serve: ASGIServer, caplog: pytest.LogCaptureFixture) -> None:
    """If close() raises, the call ends, and the error is raised or logged."""
    blocks = Blocks([b"one"], close_error=ValueError("close failed"))
    with caplog.at_level(logging.DEBUG):
        connection = serve(adapt(wsgi_response(blocks))).until_ended()
    assert blocks.closed == 1
    logged = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
    assert "close failed" in [str(connection.error), *logged]


@clause("P3333-034")
def test_the_iterable_is_closed_when_the_task_is_cancelled(adapt: ToASGI, serve: ASGIServer) -> None:
    """If the server cancels the task, the app stops and its iterable is closed."""
    blocks = Blocks(b"x" * 1024 for _ in range(10_000))
    connection = serve(adapt(wsgi_response(blocks)), hold_after=2)
    connection.until_logged("send", 2)
    connection.cancel()
    connection.until_ended().until(lambda: blocks.closed, "close()")
    assert blocks.closed == 1
    assert blocks.started < 10_000


@clause("P3333-035")
@pytest.mark.parametrize("make", [list, tuple, iter], ids=["list", "tuple", "iterator"])
def test_an_iterable_need_not_have_close(
    adapt: ToASGI, serve: ASGIServer, make: Callable[[list[bytes]], Iterable[bytes]]
) -> None:
    """An iterable without close(), such as a list or an iterator, is accepted."""
    assert serve(adapt(wsgi_response(make([b"one"])))).finish().body == b"one"


@clause("P3333-036")
@pytest.mark.parametrize("leave", [ASGIConnection.disconnect, ASGIConnection.cancel], ids=["disconnect", "cancel"])
def test_close_comes_after_the_last_use_of_the_iterable(
    adapt: ToASGI, serve: ASGIServer, leave: Callable[[ASGIConnection], None]
) -> None:
    """If the exchange ends while the app makes a block, close() is called only after the block is made."""
    making, made = threading.Event(), threading.Event()

    def content() -> Iterator[bytes]:
        yield b"one"
        making.set()
        blocks.close_called.wait(0.1)  # long enough for an adapter that closes too early
        made.set()
        yield b"two"

    blocks = Blocks(content())
    connection = serve(adapt(wsgi_response(blocks)))
    connection.until(making.is_set, "the second block")
    leave(connection)
    connection.until_ended().until(made.is_set, "the end of the second block")
    assert not blocks.closed_inside
