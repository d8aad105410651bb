"""`WSGIToASGI` on ASGI servers with a root path, on a Unix socket, over HTTP/2, and in debug mode."""

import contextlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.processes import serving, wait_until
from tests.servers.asgi_client import APP, AT_ONCE, Client, wait_for_note
from tests.servers.asgi_servers import KINDS
from tests.servers.wsgi_apps import MIB


@pytest.mark.parametrize("name", ["uvicorn-h11-asyncio", "hypercorn-trio", "daphne", "granian"])
def test_root_path_is_the_script_name(name: str) -> None:
    """A root_path becomes SCRIPT_NAME, whether the proxy has left it in the path or stripped it."""
    kind = KINDS[name]
    if kind.optional:
        pytest.importorskip(kind.optional)
    targets = ["/variables/%FF", "/base/variables/%FF"]
    if name.startswith("uvicorn"):
        targets.pop()  # it assumes that the proxy has stripped it
    with serving([*kind.command, kind.root_path, "/base", APP]) as server:
        for target in targets:
            environ = server.client.get(target).json()
            assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/base", "/variables/\xff")


def test_unix_socket(tmp_path: Path) -> None:
    """Behind a Unix socket the Host header names the server, and the client's address is empty."""
    path = tmp_path / "socket"
    # `serving` waits for a connection on its port, so something must listen there.
    code = "import socket, uvicorn; s = socket.create_server(('127.0.0.1', {port})); "
    code += f"uvicorn.run('{APP}', uds='{path}', log_level='warning')"
    with serving(["{python}", "-c", code]):
        wait_until(path.exists, what="the socket")
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://example.org:81") as client:
            environ = client.get("/variables/x").json()
            assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("example.org", "81")
            assert environ["PATH_INFO"] == "/variables/x"
            assert environ["REMOTE_ADDR"] == ""
            assert client.post("/body", content=b"x" * 100_000).json() == ["x" * 100_000]


def test_http_2(request_id: str) -> None:
    """Over HTTP/2, cookies come one by one, early hints are sent, and a client can cancel one of its streams."""
    h2_connection = pytest.importorskip("h2.connection")
    h2_events = pytest.importorskip("h2.events")
    with serving([*KINDS["hypercorn-trio"].command, APP]) as server, Client(server) as client:
        connection = h2_connection.H2Connection()
        connection.initiate_connection()

        def get(stream: int, target: str, *headers: tuple[str, str]) -> None:
            pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", target)]
            connection.send_headers(stream, [*pseudo, *headers], end_stream=True)
            client.send(connection.data_to_send())

        def next_event(stream: int, kind: Any) -> Any:
            while True:
                for event in connection.receive_data(client.sock.recv(65536)):
                    if isinstance(event, kind) and event.stream_id == stream:
                        return event

        get(1, f"/ticks?id={request_id}")
        next_event(1, h2_events.DataReceived)
        get(3, "/variables/x", ("cookie", "a=1"), ("cookie", "b=2"), ("x-word", "one"), ("x-word", "two"))
        environ = json.loads(next_event(3, h2_events.DataReceived).data)
        assert (environ["SERVER_PROTOCOL"], environ["HTTP_COOKIE"]) == ("HTTP/2.0", "a=1; b=2")
        assert environ["HTTP_X_WORD"] == "one,two"
        connection.reset_stream(1)
        client.send(connection.data_to_send())
        wait_for_note(server, request_id, "closed, disconnected is True", timeout=AT_ONCE)
        get(5, "/hints")
        hints = next_event(5, h2_events.InformationalResponseReceived).headers
        assert (b"link", b"</style.css>; rel=preload") in hints


@pytest.mark.slow
def test_app_may_take_its_time_over_a_body() -> None:
    """The rest of a body waits while the app sends, or does not read for some seconds."""
    with serving([*KINDS["uvicorn-h11-asyncio"].command, APP]) as server:
        assert server.client.post("/pausing", content=bytes(5_000_000)).content == b"working\n" * 12 + b"5000000"


def test_asyncio_finds_nothing_to_say_in_debug_mode(request_id: str) -> None:
    """With PYTHONASYNCIODEBUG, asyncio reports no call from a wrong thread and no lost task or error."""
    environment = {"PYTHONASYNCIODEBUG": "1", "PYTHONDEVMODE": "1"}
    with serving([*KINDS["uvicorn-h11-asyncio"].command, APP], env=environment) as server:
        for target in ("/late", "/sized?size=1000000", "/django/stream?word=a", "/flask/loop"):
            assert server.client.get(target).is_success
        for _ in range(10):
            with Client(server) as client:
                client.get(f"/ticks?id={request_id}")
                client.answer().readline()
        wait_for_note(server, request_id, "closed, disconnected is True", 10)
        server.stop()
        # Reports of slow steps are left out, because they depend on the machine.
        said = {line for line in server.output().splitlines() if not line.startswith("Executing ")}
        assert said == {f"{request_id} called", f"{request_id} closed, disconnected is True"}


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_gibibytes_pass_through_in_little_memory(request_id: str) -> None:
    """1 GiB up, 1 GiB down and 1 GiB that the app does not read raise the memory by less than 32 MiB."""
    size = 1024 * MIB
    block = bytes(4 * MIB)
    with serving([*KINDS["uvicorn-httptools-uvloop"].command, APP]) as server:
        process = Path("/proc", server.client.get("/process").text)
        server.client.post("/upload", content=block)
        server.client.get("/sized", params={"size": len(block)})
        before = most_memory(process)
        with Client(server) as client:
            client.post("/upload", f"Content-Length: {size}")
            for _ in range(size // len(block)):
                client.send(block)
            assert client.json() == size
        with Client(server) as client:
            client.get(f"/sized?size={size}")
            response, buffer, received = client.answer(), bytearray(len(block)), 0
            while count := response.readinto(buffer):
                received += count
            assert received == size
        with Client(server) as client:
            client.post(f"/ticks?id={request_id}", f"Content-Length: {size}")
            client.sock.settimeout(0.5)
            with contextlib.suppress(TimeoutError):  # a server that stops reading accepts no more
                for _ in range(size // len(block)):
                    client.send(block)
        # With so much unread data, the server may take a while to notice that the client has left.
        wait_for_note(server, request_id, "closed, disconnected is True", timeout=20)
        assert most_memory(process) - before < 32 * MIB


def most_memory(process: Path) -> int:
    """Return the peak of a process's resident memory, in bytes."""
    line = next(line for line in (process / "status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
