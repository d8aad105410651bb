"""WebSockets of a Flask app by flask-sock: on gunicorn, which it was made for, and through `WSGIToASGI`.

    python -m tests.benchmarks.websockets_wsgi [messages] [idle]

Messages a second, the server's processor time for one, and memory a socket. Rounds are interleaved, and medians
compared: times vary from minute to minute, and ratios less so.
"""

import asyncio
import os
import resource
import statistics
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import simple_websocket
from flask import Flask
from flask_sock import Sock

from bridge import WSGIToASGI
from bridge.types import Environ, StartResponse
from tests.benchmarks.websockets import HANDSHAKE, Client, connect, frame, idle, processes
from tests.processes import Server, serving

MODULE = "tests.benchmarks.websockets_wsgi"
IDLE = 500
UVICORN = "{python} -m uvicorn --port {port} --log-level critical --ws-per-message-deflate false"
GUNICORN = f"{{python}} -m gunicorn -b 127.0.0.1:{{port}} --log-level critical -k gthread --threads {IDLE + 50}"
SERVERS = {
    "gunicorn, gthread": f"{GUNICORN} {MODULE}:app",
    "bridge, uvicorn": f"{UVICORN} {MODULE}:asgi_app",
    "bridge, uvicorn, socket": f"{UVICORN} {MODULE}:socket_app",
    "bridge, uvicorn, wsgi.websocket": f"{UVICORN} {MODULE}:object_app",
    "bridge, hypercorn": f"{{python}} -m hypercorn -b 127.0.0.1:{{port}} --log-level critical {MODULE}:asgi_app",
}
BASE = "gunicorn, gthread"
# Connections, messages on the way on each, bytes a message, messages a round.
LOADS = [(1, 1, 64, 2_000), (16, 1, 64, 6_000), (16, 16, 64, 12_000), (200, 1, 64, 6_000), (4, 2, 65_536, 1_200)]
# The way that messages go, bytes a message, messages a round.
STREAMS = [("in", 64, 10_000), ("out", 64, 10_000), ("in", 65_536, 600), ("out", 65_536, 600)]
ROUNDS = 5

app = Flask(__name__)
sock = Sock(app)


@app.get("/")
def hello() -> str:
    return "hello"


@sock.route("/echo")  # type: ignore[untyped-decorator]
def echo(ws: Any) -> None:
    while True:
        ws.send(ws.receive())


@sock.route("/in")  # type: ignore[untyped-decorator]
def take_in(ws: Any) -> None:
    for _ in range(int(ws.receive())):
        ws.receive()
    ws.send(bytes(64))


@sock.route("/out")  # type: ignore[untyped-decorator]
def give_out(ws: Any) -> None:
    count, size = map(int, ws.receive().split())
    for _ in range(count):
        ws.send(bytes(size))


class SocketServer(simple_websocket.Server):
    """A subclass, which has its socket."""


def echo_on_socket(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    ws = SocketServer(environ)
    try:
        while True:
            ws.send(ws.receive())
    except simple_websocket.ConnectionClosed:
        start_response("200 OK", [])
        return []


def echo_by_object(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    ws = environ["wsgi.websocket"]
    while (message := ws.receive()) is not None:
        ws.send(message)
    start_response("200 OK", [])
    return []


asgi_app = WSGIToASGI(app)
socket_app = WSGIToASGI(echo_on_socket)
object_app = WSGIToASGI(echo_by_object)


class Stream(Client):
    """A connection whose messages go one way: it says how many they are, and waits for `size` bytes."""

    def __init__(self, way: str, size: int, messages: int) -> None:
        super().__init__(64, 1, 1)
        self._way = way
        opening = b"%d" % messages if way == "in" else b"%d %d" % (messages, size)
        self._message = bytes([0x81, 0x80 | len(opening), 0, 0, 0, 0]) + opening
        if way == "in":
            self._message += frame(size, masked=True) * messages
        else:
            self._reply_size = len(frame(size, masked=False)) * messages

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(HANDSHAKE.replace(b"/echo", f"/{self._way}".encode()))


async def echoes(port: int, connections: int, window: int, size: int, messages: int) -> float:
    """Return echoes a second, once all connections are open."""
    clients = await connect(port, connections, size, window, messages // connections)
    start = time.perf_counter()
    await asyncio.gather(*(client.run() for client in clients))
    seconds = time.perf_counter() - start
    for client in clients:
        client.transport.close()
    return messages / seconds


async def streamed(port: int, way: str, size: int, messages: int) -> float:
    """Return messages a second on one connection."""
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: Stream(way, size, messages), "127.0.0.1", port)
    await client.opened
    start = time.perf_counter()
    await client.run()
    seconds = time.perf_counter() - start
    client.transport.close()
    return messages / seconds


def processor_time(server: Server) -> float:
    """Return what a server's processes have had of the processors, in seconds."""
    ticks = 0
    for pid in processes(server.process.pid):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def compare(servers: dict[str, Server], what: str, messages: int, measure: Any, *arguments: Any) -> None:
    rates: dict[str, list[float]] = {name: [] for name in servers}
    times: dict[str, list[float]] = {name: [] for name in servers}
    for index in range(ROUNDS + 1):
        for name, server in servers.items():
            before = processor_time(server)
            rate = asyncio.run(measure(server.port, *arguments, messages))
            if index:  # the first one warms up
                rates[name].append(rate)
                times[name].append((processor_time(server) - before) / messages * 1e6)
    row = f"{what:<20}"
    for name in servers:
        ratio = statistics.median(ours / base for ours, base in zip(rates[name], rates[BASE], strict=True))
        row += f"{statistics.median(rates[name]):>16.0f} {ratio:5.2f} x {statistics.median(times[name]):5.0f} us"
    print(row, flush=True)


def compare_messages() -> None:
    with ExitStack() as stack:
        servers = {name: stack.enter_context(serving(command.split())) for name, command in SERVERS.items()}
        print(f"{'messages a second':<20}" + "".join(f"{name:>33}" for name in servers))
        for connections, window, size, messages in LOADS:
            compare(servers, f"{connections} x {window} x {size} B", messages, echoes, connections, window, size)
        servers = {name: servers[name] for name in (BASE, "bridge, uvicorn", "bridge, hypercorn")}
        print(f"{'one way':<20}" + "".join(f"{name:>33}" for name in servers))
        for way, size, messages in STREAMS:
            compare(servers, f"{way}, {size} B", messages, streamed, way, size)


def main() -> None:
    parts = sys.argv[1:] or ["messages", "idle"]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # for the servers too
    print("load", *(f"{load:.1f}" for load in os.getloadavg()))
    if "messages" in parts:
        compare_messages()
    if "idle" in parts:
        print(f"\n{IDLE} idle sockets")
        for name in (BASE, "bridge, uvicorn"):
            with serving(SERVERS[name].split()) as server:
                print(f"{name:<28}{asyncio.run(idle(server, IDLE))}", flush=True)
    print("load", *(f"{load:.1f}" for load in os.getloadavg()))


if __name__ == "__main__":
    main()
