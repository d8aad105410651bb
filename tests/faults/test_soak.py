"""100,000 requests of all kinds in each direction: none is lost or runs twice, and nothing grows."""

import contextlib
import http.client
import random
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.clients import Client, ask, idle_of, request_head, runs_of, status_of, wait_until_idle
from tests.faults.conftest import Kind
from tests.faults.ledger import block_of
from tests.processes import Server, serving
from tests.sockets import read_until, reset

REQUESTS = 100_000
ROUND = 10_000
CLIENTS = 4
# How much memory may grow after the first round: some pages, which is no more than 90 bytes per request.
GROWTH = 8 << 20


class Visitor:
    """One of the clients: sends requests of all kinds, according to their weights, and checks each response."""

    def __init__(self, server: Server, seed: int) -> None:
        self.aborted: list[int] = []
        self._server = server
        self._client = Client(server.port)
        self._random = random.Random(seed)

    def send(self, number: int) -> None:
        """Send the request with this number."""
        self._random.choices(*zip(*KINDS, strict=True))[0](self, number)

    def get(self, number: int) -> None:
        assert self._client.request("GET", "/hello", number) == (200, str(number), b"hello")

    def head(self, number: int) -> None:
        assert self._client.request("HEAD", "/hello", number) == (200, str(number), b"")

    def get_missing(self, number: int) -> None:
        assert self._client.request("GET", "/nowhere", number) == (404, str(number), b"not here")

    def post(self, number: int) -> None:
        body = b"%08d" % number * self._random.choice([1, 100, 20_000])
        assert self._client.request("POST", "/echo", number, body) == (200, str(number), body)

    def post_chunks(self, number: int) -> None:
        body = b"%08d" % number * self._random.choice([1, 200, 20_000])
        assert self._client.request("POST", "/echo", number, body, chunked=True) == (200, str(number), body)

    def download(self, number: int) -> None:
        assert self._client.request("GET", "/download/4", number) == (200, str(number), block_of(number) * 4)

    def get_error(self, number: int) -> None:
        assert self._client.request("GET", "/raise_at_once", number).status == 500

    def get_cut(self, number: int) -> None:
        with pytest.raises(http.client.IncompleteRead):
            self._client.request("GET", "/raise_in_response", number)
        self._client.close()

    def abort(self, number: int, request: bytes, awaited: bytes) -> None:
        self.aborted.append(number)
        connection = self._server.connect()
        connection.sendall(request)
        if awaited:
            read_until(connection, awaited)
        if number % 2:
            reset(connection)
        else:
            connection.close()

    def abort_events(self, number: int) -> None:
        self.abort(number, request_head("/events", number=number), b"tick")

    def abort_download(self, number: int) -> None:
        self.abort(number, request_head("/download/1000", number=number), b"%08d" % number)

    def abort_upload(self, number: int) -> None:
        head = request_head("/echo", "Content-Length: 200000", method="POST", number=number)
        self.abort(number, head + b"x" * self._random.randrange(100_000), b"")

    def abort_chunks(self, number: int) -> None:
        head = request_head("/echo", "Transfer-Encoding: chunked", method="POST", number=number)
        self.abort(number, head + b"10000\r\n" + b"x" * self._random.randrange(0x10000), b"")

    def close(self) -> None:
        self._client.close()


KINDS: list[tuple[Callable[[Visitor, int], None], int]] = [
    (Visitor.get, 38),
    (Visitor.head, 6),
    (Visitor.get_missing, 8),
    (Visitor.post, 14),
    (Visitor.post_chunks, 10),
    (Visitor.download, 6),
    (Visitor.get_error, 4),
    (Visitor.get_cut, 2),
    (Visitor.abort_events, 3),
    (Visitor.abort_download, 3),
    (Visitor.abort_upload, 3),
    (Visitor.abort_chunks, 3),
]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(3600)
def test_soak(server_kind: Kind) -> None:
    """Each request is answered once, and memory, threads, tasks and descriptors do not grow."""
    if not server_kind.takes_chunks:
        pytest.skip("takes no chunks")
    with serving(server_kind.command) as server:
        idle = idle_of(server, spare_threads=server_kind.parallel)
        aborted: set[int] = set()
        memory = []
        for start in range(1, REQUESTS + 1, ROUND):
            aborted |= visits(server, range(start, start + ROUND))
            wait_until_idle(server, idle)
            status = status_of(server)
            memory.append(status["memory"])
            print(server_kind.name, start + ROUND - 1, status)
        runs = runs_of(server)
        assert all(runs[number] == 1 or (number in aborted and not runs[number]) for number in range(1, REQUESTS + 1))
        assert max(memory) - memory[0] < GROWTH
        raised = re.findall(r"^([\w.]*(?:Error|Exit|Disconnected|Group)\b)", server.output(), re.MULTILINE)
        assert set(raised) == {"RuntimeError"}  # the app's own
        assert ask(server, "/hello", 1) == (200, "1", b"hello")


def visits(server: Server, numbers: range) -> set[int]:
    """Send one request per number, by a few clients at the same time; return the numbers that were abandoned."""
    with ThreadPoolExecutor(CLIENTS) as threads:
        visitors = [Visitor(server, numbers.start + index) for index in range(CLIENTS)]

        def visit(index: int) -> None:
            with contextlib.closing(visitors[index]):
                for number in numbers[index::CLIENTS]:
                    visitors[index].send(number)

        list(threads.map(visit, range(CLIENTS)))
    return {number for visitor in visitors for number in visitor.aborted}
