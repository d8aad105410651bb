"""Bytes that may be requests, sent to real servers: whatever they are, the server goes on and logs no error."""

import contextlib
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.clients import Idle, ask, idle_of, wait_until_idle
from tests.faults.conftest import CORE, Kind
from tests.fuzz.strategies import FUZZ
from tests.processes import Server, serving
from tests.sockets import reset
from wsgi_asgi_conformance.strategies import REQUEST_BYTES

# The app's error, and one of uvicorn's, which answers the first of several requests after closing for a later one.
EXPECTED = ["RuntimeError: in the body", "RuntimeError: unable to perform operation on <TCPTransport closed=True"]
TARGETS = st.sampled_from([b"/echo", b"/hello", b"/download/2", b"/raise_in_body"])
# A place in a request, as a fraction of its length; how much is removed there; and what is inserted.
MUTATIONS = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.sampled_from([0, 0, 1, 4, 40]),
        st.sampled_from(
            [b"\r\n", b"\n", b":", b" ", b"\0", b"chunked", b"HTTP/1.1", b"GET / HTTP/1.1\r\n\r\n", b"\xff"]
        )
        | st.binary(max_size=8),
    ),
    max_size=3,
)


def mutated(request: bytes, mutations: list[tuple[float, int, bytes]]) -> bytes:
    for share, taken, put in mutations:
        start = int(share * len(request))
        request = request[:start] + put + request[start + taken :]
    return request


ONE = st.builds(lambda request, target: request.replace(b" / ", b" %s " % target), REQUEST_BYTES, TARGETS)
REQUESTS = st.builds(mutated, st.lists(ONE, min_size=1, max_size=3).map(b"".join), MUTATIONS) | st.binary(max_size=60)


@pytest.fixture(scope="module", params=CORE, ids=lambda kind: kind.name)
def target(request: pytest.FixtureRequest) -> Iterator[tuple[Server, Idle]]:
    """Yield a server, and what it has open while idle. At the end it has no more, and its log only the app's errors."""
    kind: Kind = request.param
    with serving(kind.command) as server:
        idle = idle_of(server, spare_threads=kind.parallel)
        yield server, idle
        wait_until_idle(server, idle)
        output = server.output()
        assert output.count("Traceback") == sum(map(output.count, EXPECTED)), output[-10_000:]


@FUZZ
@given(sent=REQUESTS, ending=st.sampled_from(["waits", "has no more to say", "leaves", "breaks off"]))
def test_any_bytes_to_a_server(target: tuple[Server, Idle], sent: bytes, ending: str) -> None:
    """A server answers or hangs up, whenever it likes, and answers the next client."""
    server, _ = target
    with server.connect() as client:
        client.settimeout(0.02)  # a server may wait for more, for longer than this test
        with contextlib.suppress(OSError):
            client.sendall(sent)
            if ending == "has no more to say":
                client.shutdown(socket.SHUT_WR)
            while ending in ("waits", "has no more to say") and client.recv(65536):
                pass
        if ending == "breaks off":
            reset(client)
    assert ask(server, "/hello", 1) == (200, "1", b"hello")
