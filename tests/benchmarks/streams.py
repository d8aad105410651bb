"""A thousand open event streams at once, and an adapter that has nothing to do."""

import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.rounds import Row, print_row
from tests.processes import Server, serving

APPS = "tests.benchmarks.apps"
STREAMS = 1000
SERVERS = {
    "WSGIToASGI on uvicorn, workers=1000": (
        *("{python}", "-m", "uvicorn", "--port", "{port}", "--log-level", "warning"),
        f"{APPS}:flask_streams",
    ),
    "ASGIToWSGI on gunicorn gthread, 1000 threads": (
        *("{python}", "-m", "gunicorn", "-k", "gthread", "--threads", "1000", "--worker-connections", "1100"),
        *("-b", "127.0.0.1:{port}", f"{APPS}:fastapi_bridge"),
    ),
}
IDLE = """
import asyncio, time, resource
from tests.benchmarks.in_process import request_asgi, request_wsgi
from tests.benchmarks import apps
from bridge import ASGIToWSGI, WSGIToASGI
asgi_app, wsgi_app = WSGIToASGI(apps.hello_wsgi), ASGIToWSGI(apps.hello_asgi, lifespan="off")
async def main():
    await request_asgi(asgi_app)
    request_wsgi(wsgi_app)
    before = resource.getrusage(resource.RUSAGE_SELF)
    await asyncio.sleep(5)
    after = resource.getrusage(resource.RUSAGE_SELF)
    print((after.ru_nvcsw + after.ru_nivcsw - before.ru_nvcsw - before.ru_nivcsw) / 5)
asyncio.run(main())
"""


def resident_kib(server: Server) -> int:
    """Return the resident size of the server and its workers."""
    pids = [server.process.pid]
    for pid in pids:
        pids.extend(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    total = 0
    for pid in pids:
        status = Path(f"/proc/{pid}/status").read_text()
        total += int(status.split("VmRSS:")[1].split()[0])
    return total


def open_streams(server: Server) -> tuple[int, float]:
    """Open the streams, wait until each has ticked three times; return how many have, and KiB a stream."""
    server.client.get("/")
    before = resident_kib(server)
    ticks: dict[socket.socket, int] = {}
    with selectors.DefaultSelector() as selector:
        for _ in range(STREAMS):
            stream = server.connect()
            stream.sendall(b"GET /ticks HTTP/1.1\r\nHost: localhost\r\n\r\n")
            stream.setblocking(False)
            selector.register(stream, selectors.EVENT_READ)
            ticks[stream] = 0
        deadline = time.monotonic() + 60
        while min(ticks.values()) < 3 and time.monotonic() < deadline:
            for key, _ in selector.select(1):
                assert isinstance(key.fileobj, socket.socket)
                ticks[key.fileobj] += key.fileobj.recv(65536).count(b"tick")
        size = (resident_kib(server) - before) / STREAMS
        for stream in ticks:
            stream.close()
    return sum(count >= 3 for count in ticks.values()), size


def stream_rows(rounds: int) -> Iterator[Row]:
    samples = {}
    for name, command in SERVERS.items():
        with serving(command) as server:
            ticking, size = open_streams(server)
            samples[f"{name} ({ticking} of {STREAMS} tick)"] = [size]
    row = Row("1,000 open event streams, memory", "KiB a stream", next(iter(samples)), samples)
    print_row(row)
    yield row
    output = subprocess.run([sys.executable, "-c", IDLE], check=True, capture_output=True, text=True).stdout
    row = Row("Both adapters at rest, for five seconds", "wake-ups a second", "bridge", {"bridge": [float(output)]})
    print_row(row)
    yield row
