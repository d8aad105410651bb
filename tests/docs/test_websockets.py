"""The blocks of the page about WebSockets."""

from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.docs.commands import check_install
from tests.docs.pages import Page
from tests.processes import serving

PAGE = Page("docs/websockets.md")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("fastapi", ["{python}", "-m", "gunicorn", "--bind", "127.0.0.1:{port}", "-k", "gthread", "hello:wsgi_app"]),
        ("flask", ["{python}", "-m", "uvicorn", "--port", "{port}", "hello:asgi_app"]),
    ],
)
def test_an_echo(name: str, command: list[str], tmp_path: Path) -> None:
    """The server that the block names sends each message back."""
    (tmp_path / "hello.py").write_text(PAGE[name])
    with serving(command, cwd=tmp_path) as server, connect(f"ws://127.0.0.1:{server.port}/echo") as websocket:
        websocket.send("hello")
        assert websocket.recv(timeout=20) == "hello"


def test_install() -> None:
    """The extra is there."""
    for command in PAGE.commands("install"):
        check_install(command)
