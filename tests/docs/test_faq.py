"""The answers of the FAQ, each as it stands there."""

import http.client
import logging
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from bridge import ASGIToWSGI, WSGIToASGI
from tests.docs.commands import check_install, served
from tests.docs.pages import Page
from tests.processes import serving, wait_until

FAQ = Page("docs/faq.md")
UVICORN = ["{python}", "-m", "uvicorn", "--port", "{port}"]
GUNICORN = ["{python}", "-m", "gunicorn", "--no-control-socket", "--bind", "127.0.0.1:{port}", "-k", "gthread"]
APPS = """
import signal, sqlite3
from bridge import ASGIToWSGI, WSGIToASGI
from fastapi import FastAPI
from flask import Flask, Response

app = Flask(__name__)
api = FastAPI()
db = sqlite3.connect(":memory:")

@app.get("/sqlite")
def of_flask():
    db.execute("SELECT 1")

@api.get("/sqlite")
async def of_fastapi():
    db.execute("SELECT 1")

@app.get("/signal")
def set_signal():
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)

@app.get("/date")
def date():
    return Response("hi", "299 My Phrase", {"Date": "Tue, 01 Dec 2020 04:02:50 GMT", "X-Name": "x"})

asgi_app, wsgi_app = WSGIToASGI(app), ASGIToWSGI(api)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a module that makes the mistakes of which the FAQ speaks."""
    (tmp_path / "hello.py").write_text(APPS)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "path", "expected"),
    [
        ([*UVICORN, "hello:app"], "/", "Flask.__call__() missing 1 required positional argument: 'start_response'"),
        ([*GUNICORN, "hello:api"], "/", "FastAPI.__call__() missing 1 required positional argument: 'send'"),
        ([*UVICORN, "hello:asgi_app"], "/sqlite", "SQLite objects created in a thread can only be used in that same"),
        ([*GUNICORN, "hello:wsgi_app"], "/sqlite", "SQLite objects created in a thread can only be used in that same"),
        ([*UVICORN, "hello:asgi_app"], "/signal", "signal only works in main thread of the main interpreter"),
    ],
    ids=["uvicorn without adapter", "gunicorn without adapter", "sqlite by Flask", "sqlite by FastAPI", "signal"],
)
def test_error(command: list[str], path: str, expected: str, folder: Path) -> None:
    """The error is the one that the page quotes."""
    assert expected in FAQ.text
    with serving(command, cwd=folder) as server:
        assert server.client.get(path).status_code == 500
        server.stop()
        assert expected in server.output()


@pytest.mark.slow
def test_a_slow_request_on_a_sync_worker(tmp_path: Path) -> None:
    """gunicorn ends the worker, and says so in its log."""
    slow = "import asyncio\n\n@api.get('/slow')\nasync def slow():\n    await asyncio.sleep(60)\n"
    (tmp_path / "hello.py").write_text(APPS + slow)
    command = ["sync" if word == "gthread" else word for word in GUNICORN]
    with serving([*command, "--timeout", "2", "hello:wsgi_app"], cwd=tmp_path) as server:
        assert server.client.get("/slow").status_code == 500
        wait_until(lambda: "WORKER TIMEOUT" in server.output())


def test_app_of_the_adapter(caplog: pytest.LogCaptureFixture) -> None:
    """The attribute is the Flask app."""
    adapter = FAQ.run("app of the adapter")["app"]
    assert isinstance(adapter, WSGIToASGI)
    assert "this is the Flask app" in caplog.text
    with pytest.raises(AttributeError, match=re.escape("'WSGIToASGI' object has no attribute 'logger'")):
        _ = adapter.logger  # type: ignore[attr-defined]


def test_factory(tmp_path: Path) -> None:
    """uvicorn calls the function, and serves what it returns."""
    (tmp_path / "hello.py").write_text(FAQ["factory"])
    with served(FAQ, "serve a factory", tmp_path) as server:
        assert server.client.get("/").text == "Hello from a factory!"


def test_factory_on_gunicorn(tmp_path: Path) -> None:
    """gunicorn calls the function that is named with parentheses."""
    code = APPS + "\ndef create_wsgi_app():\n    return wsgi_app\n"
    (tmp_path / "hello.py").write_text(code)
    with serving([*GUNICORN, "hello:create_wsgi_app()"], cwd=tmp_path) as server:
        assert server.client.get("/docs").status_code == 200


def test_debugger(tmp_path: Path) -> None:
    """The page of the debugger has a console, in which code of the browser's runs after the PIN."""
    (tmp_path / "hello.py").write_text(FAQ["debugger"])
    with serving([*UVICORN, "hello:asgi_app"], cwd=tmp_path, env={"WERKZEUG_DEBUG_PIN": "123-456-789"}) as server:
        page = server.client.get("/").text
        assert "EVALEX = true" in page
        (secret,) = re.findall(r'SECRET = "(\w+)"', page)
        frame = re.findall(r'id="frame-(\d+)"', page)[-1]
        query = {"__debugger__": "yes", "s": secret}
        pin = server.client.get("/", params={**query, "cmd": "pinauth", "pin": "123-456-789"})
        assert pin.json()["auth"]
        answer = server.client.get("/", params={**query, "cmd": "6 * 7", "frm": frame})
        assert ">42<" in answer.text


def test_breakpoint(tmp_path: Path) -> None:
    """Commands from the terminal reach the handler that has stopped."""
    code = "from bridge import WSGIToASGI\nfrom flask import Flask\napp = Flask(__name__)\n"
    code += "@app.get('/')\ndef hello():\n    x = 41\n    breakpoint()\n    return str(x)\n\n\n"
    code += "import httpx, asyncio\n\n"
    code += "async def ask():\n    transport = httpx.ASGITransport(WSGIToASGI(app))\n"
    code += "    async with httpx.AsyncClient(transport=transport, base_url='http://test') as client:\n"
    code += "        print('answer', (await client.get('/')).text)\n\nasyncio.run(ask())\n"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input="x = 42\nc\n", capture_output=True, text=True, timeout=50, check=False)
    assert "answer 42" in done.stdout, done.stderr


def test_header_names_and_reason_phrases(folder: Path) -> None:
    """Names are in lower case, the phrase is gone, and there are two dates unless the server sends none."""
    for option, dates in ([], 2), (["--no-date-header"], 1):
        with serving([*UVICORN, *option, "hello:asgi_app"], cwd=folder) as server:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
            connection.request("GET", "/date")
            response = connection.getresponse()
            assert (response.status, response.reason) == (299, "")
            names = [name for name, _ in response.getheaders()]
            assert "x-name" in names
            assert [name.lower() for name in names].count("date") == dates
            connection.close()


def test_install_for_websockets() -> None:
    """The extra is there."""
    (command,) = re.findall(r"\(`(pip install '[^`]*')`", FAQ.text)
    check_install([word.strip("'") for word in command.split()])


def test_a_websocket_without_its_server_gets_501() -> None:
    """The body of the answer says why."""
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    headers = {**upgrade, "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}

    async def app(scope: object, receive: object, send: object) -> None:
        raise NotImplementedError

    for options in {}, {"websocket": "off"}:
        with ASGIToWSGI(app, **options) as adapter:  # type: ignore[arg-type]
            transport = httpx.WSGITransport(adapter)
            with httpx.Client(transport=transport, base_url="http://test") as client:
                response = client.get("/", headers=headers)
        assert response.status_code == 501
        assert "WebSocket" in response.text


def test_logging() -> None:
    """Lines of the app at info level, and lines of `bridge` at debug level, show."""
    code = (
        FAQ["logging"] + 'logging.getLogger("shop").info("of the app")\nlogging.getLogger("bridge").debug("of ours")\n'
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True)
    assert "of the app" in done.stderr
    assert "of ours" in done.stderr
    assert logging.root.level == logging.WARNING
