"""What clients of detached responses get, at every stage, and what apps hear of clients that leave."""

import pytest

from tests.asgi_to_wsgi.http.detachable import Adapt, Gate, body_of, connected, started, waiting
from tests.fakes import in_thread


@pytest.mark.parametrize("header", [(b"bad name", b"1"), (b"content-length", b"many")])
def test_a_start_that_is_invalid_is_a_500(
    adapt: Adapt, header: tuple[bytes, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets a whole response in place of the one that the app did not start, and the log has the reason."""
    gate = Gate()
    event_stream = (b"content-type", b"text/event-stream")
    adapter = adapt(waiting(gate, started(event_stream, header), body_of()), detach="always", detach_after=0)
    with connected(adapter) as server:
        in_thread(server.run)
        assert server.has_left
        gate.open()
        assert server.read() == (500, b"Internal Server Error\n")
    assert "the ASGI app raised before it answered" in caplog.text
