"""WebSockets of a Starlette app on uvicorn, and through `ASGIToWSGI` on gunicorn: messages a second, memory a socket.

    python -m tests.benchmarks.websockets [messages] [idle]

Rounds are interleaved, and medians compared: times vary from minute to minute, and ratios less so.
"""

import asyncio
import os
import resource
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from bridge import ASGIToWSGI
from tests.processes import Server, serving

MODULE = "tests.benchmarks.websockets"
UVICORN = (
    "{python}",
    "-m",
    "uvicorn",
    "--port",
    "{port}",
    "--log-level",
    "warning",
    "--ws-per-message-deflate",
    "false",
)
GUNICORN = ("{python}", "-m", "gunicorn", "--bind", "127.0.0.1:{port}", "--log-level", "warning")
GTHREAD = (*GUNICORN, "-k", "gthread", "--threads", "4", "--worker-connections", "5000", f"{MODULE}:wsgi_app")
SERVERS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "uvicorn, wsproto": ((*UVICORN, "--loop", "asyncio", "--ws", "wsproto", f"{MODULE}:app"), {}),
    "uvicorn, websockets": ((*UVICORN, "--loop", "asyncio", "--ws", "websockets-sansio", f"{MODULE}:app"), {}),
    "bridge, gthread": (GTHREAD, {}),
    "bridge, gthread, held": ((*GTHREAD[:-1], "--threads", "300", GTHREAD[-1]), {"WEBSOCKET": "hold"}),
}
BASE = "uvicorn, wsproto"
# Connections, messages on the way on each, bytes a message, messages a round.
LOADS = [(1, 1, 64, 3_000), (16, 1, 64, 12_000), (16, 16, 64, 20_000), (200, 1, 64, 10_000), (4, 2, 65_536, 2_000)]
ROUNDS = 5
IDLE = 2_000


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_bytes(await websocket.receive_bytes())
    except WebSocketDisconnect:
        pass


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


app = Starlette(routes=[WebSocketRoute("/echo", echo), Route("/", hello)])
wsgi_app = ASGIToWSGI(app, max_websockets=5_000, websocket=os.environ.get("WEBSOCKET", "auto"))  # type: ignore[arg-type]

HANDSHAKE = (
    b"GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def frame(size: int, *, masked: bool) -> bytes:
    """Return a binary frame of zeros; masked with zeros, if it is a client's."""
    bit = 0x80 if masked else 0
    head = bytes([0x82, bit | size]) if size < 126 else bytes([0x82, bit | 127]) + size.to_bytes(8, "big")
    if 126 <= size < 65_536:
        head = bytes([0x82, bit | 126]) + size.to_bytes(2, "big")
    return head + bytes(4 if masked else 0) + bytes(size)


class Client(asyncio.Protocol):
    """A connection that sends the same message again for each one that comes back."""

    def __init__(self, size: int, window: int, messages: int) -> None:
        self.opened = asyncio.get_running_loop().create_future()
        self.done = asyncio.get_running_loop().create_future()
        self._message, self._reply_size = frame(size, masked=True), len(frame(size, masked=False))
        self._window, self._left, self._awaited = window, messages, messages
        self._received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(HANDSHAKE)

    def data_received(self, data: bytes) -> None:
        if not self.opened.done():
            assert data.startswith(b"HTTP/1.1 101 "), data
            assert data.endswith(b"\r\n\r\n"), data
            self.opened.set_result(None)
            return
        replies, self._received = divmod(self._received + len(data), self._reply_size)
        self._awaited -= replies
        self.send(replies)
        if self._awaited == 0:
            self.done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        for future in (self.opened, self.done):
            if not future.done():
                future.set_exception(ConnectionError("the server left"))

    def send(self, count: int) -> None:
        count = min(count, self._left)
        self._left -= count
        if count:
            self.transport.write(self._message * count)

    async def run(self) -> None:
        self.send(self._window)
        await self.done


async def connect(port: int, count: int, size: int = 64, window: int = 1, messages: int = 1) -> list[Client]:
    clients = []
    loop = asyncio.get_running_loop()
    for _ in range(count):
        _, client = await loop.create_connection(lambda: Client(size, window, messages), "127.0.0.1", port)
        await client.opened
        clients.append(client)
    return clients


async def messages_a_second(port: int, connections: int, window: int, size: int, messages: int) -> float:
    clients = await connect(port, connections, size, window, messages // connections)
    start = time.perf_counter()
    await asyncio.gather(*(client.run() for client in clients))
    seconds = time.perf_counter() - start
    for client in clients:
        client.transport.close()
    return messages / seconds


def processes(parent: int) -> list[int]:
    """Return a process and its children."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [parent, *(int(child) for child in children)]


def memory(server: Server) -> int:
    """Return the memory that a server's processes have for themselves, in bytes."""
    total = 0
    for pid in processes(server.process.pid):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Dirty:", "Private_Clean:")))
    return total * 1024


def threads(server: Server) -> int:
    return sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in processes(server.process.pid))


async def idle(server: Server, count: int) -> str:
    """Open `count` sockets that have said one thing; tell what they cost, and how HTTP fares meanwhile."""
    await messages_a_second(server.port, 20, 1, 64, 2_000)  # what is made once is made now
    server.client.get("/")
    before = memory(server)
    clients = await connect(server.port, count)
    await asyncio.gather(*(client.run() for client in clients))
    cost = (memory(server) - before) / count / 1024
    times = []
    for _ in range(200):
        start = time.perf_counter()
        assert server.client.get("/").text == "hello"
        times.append(time.perf_counter() - start)
    for client in clients:
        client.transport.close()
    return f"{cost:6.1f} KiB a socket, {threads(server)} threads, HTTP {statistics.median(times) * 1000:.1f} ms"


def compare_messages(servers: dict[str, Server]) -> None:
    print(f"{'messages a second':<28}" + "".join(f"{name:>24}" for name in servers))
    for connections, window, size, messages in LOADS:
        results: dict[str, list[float]] = {name: [] for name in servers}
        for index in range(ROUNDS + 1):
            for name, server in servers.items():
                result = asyncio.run(messages_a_second(server.port, connections, window, size, messages))
                if index:  # the first one warms up
                    results[name].append(result)
        row = f"{f'{connections} x {window} x {size} B':<28}"
        for name in servers:
            ratio = statistics.median(ours / base for ours, base in zip(results[name], results[BASE], strict=True))
            row += f"{statistics.median(results[name]):>15.0f} {ratio:5.2f} x "
        print(row, flush=True)


def main() -> None:
    parts = sys.argv[1:] or ["messages", "idle"]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # for the servers too
    if "messages" in parts:
        with ExitStack() as stack:
            compare_messages(
                {name: stack.enter_context(serving(command, env=env)) for name, (command, env) in SERVERS.items()}
            )
    if "idle" in parts:
        print(f"\n{IDLE} idle sockets")
        for name, (command, env) in SERVERS.items():
            if "held" not in name:  # which would take that many threads
                with serving(command, env=env) as server:
                    print(f"{name:<28}{asyncio.run(idle(server, IDLE))}", flush=True)


if __name__ == "__main__":
    main()
