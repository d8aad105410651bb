"""WebSockets of a Flask app by flask-sock: on gunicorn, which it was made for, and through `WSGIToASGI` on uvicorn.

    python -m tests.benchmarks.websockets_wsgi [messages]

Echoes a second. Rounds are interleaved, and medians compared: times vary from minute to minute, and ratios less so.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

from flask import Flask
from flask_sock import Sock
from websockets.asyncio.client import ClientConnection, connect

from bridge import WSGIToASGI
from bridge.types import Environ, StartResponse
from tests.processes import Server, serving

MODULE = "tests.benchmarks.websockets_wsgi"
UVICORN = "{python} -m uvicorn --port {port} --log-level critical --ws-per-message-deflate false"
GUNICORN = "{python} -m gunicorn -b 127.0.0.1:{port} --log-level critical"
SERVERS = {
    "gunicorn, gthread": f"{GUNICORN} -k gthread --threads 300 {MODULE}:app",
    "bridge, uvicorn": f"{UVICORN} {MODULE}:asgi_app",
    "bridge, uvicorn, wsgi.websocket": f"{UVICORN} {MODULE}:object_app",
    "bridge, hypercorn": f"{{python}} -m hypercorn -b 127.0.0.1:{{port}} --log-level critical {MODULE}:asgi_app",
}
BASE = "gunicorn, gthread"
# Connections, messages on the way on each, bytes a message, and the share of the messages that a round has.
LOADS = [(1, 1, 64, 0.2), (16, 1, 64, 0.5), (16, 16, 64, 1.0), (200, 1, 64, 0.5), (4, 2, 65_536, 0.05)]
ROUNDS = 5

app = Flask(__name__)
sock = Sock(app)


@sock.route("/")  # type: ignore[untyped-decorator]
def echo(ws: Any) -> None:
    while True:
        ws.send(ws.receive())


def echo_by_object(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    ws = environ["wsgi.websocket"]
    while (message := ws.receive()) is not None:
        ws.send(message)
    start_response("200 OK", [])
    return []


asgi_app = WSGIToASGI(app)
object_app = WSGIToASGI(echo_by_object)


async def rate(server: Server, connections: int, in_flight: int, size: int, messages: int) -> float:
    """Return echoes a second, once all connections are open."""
    url, message = f"ws://127.0.0.1:{server.port}/", b"x" * size
    each = max(messages // connections, in_flight)

    async def talk(websocket: ClientConnection) -> None:
        for number in range(each + in_flight):
            if number < each:
                await websocket.send(message)
            if number >= in_flight:
                await websocket.recv()

    websockets = [await connect(url, compression=None, ping_interval=None, proxy=None) for _ in range(connections)]
    start = time.perf_counter()
    await asyncio.gather(*(talk(websocket) for websocket in websockets))
    taken = time.perf_counter() - start
    await asyncio.gather(*(websocket.close() for websocket in websockets))
    return connections * each / taken


def main() -> None:
    messages = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with ExitStack() as stack:
        servers = {name: stack.enter_context(serving(command.split())) for name, command in SERVERS.items()}
        print(f"{'connections x in flight x bytes':<34}" + "".join(f"{name:>36}" for name in servers))
        for connections, in_flight, size, share in LOADS:
            rates: dict[str, list[float]] = {name: [] for name in servers}
            for _ in range(ROUNDS):
                for name, server in servers.items():
                    count = int(messages * share)
                    rates[name].append(asyncio.run(rate(server, connections, in_flight, size, count)))
            line = f"{connections} x {in_flight} x {size}"
            base = statistics.median(rates[BASE])
            medians = {name: statistics.median(values) for name, values in rates.items()}
            columns = "".join(f"{value:>28.0f} {value / base:>5.2f} x" for value in medians.values())
            print(f"{line:<34}{columns}", flush=True)


if __name__ == "__main__":
    main()
