"""The blocks of the page about MCP servers, each run as it stands, with more clients than the server has threads."""

import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from tests.docs.commands import check_install, served
from tests.docs.pages import Page

pytest.importorskip("mcp", reason="mcp is not installed")
pytestmark = pytest.mark.slow

PAGE = Page("docs/mcp.md")
CROWD = 20  # on eight threads
MEETING = f"""

import anyio

inside = 0


@mcp.tool()
async def meet(ctx: Context) -> int:
    global inside
    inside += 1
    number = inside
    await ctx.report_progress(1, 2)
    while inside < {CROWD}:
        await anyio.sleep(0.01)
    await ctx.report_progress(2, 2)
    return number
"""
SETTINGS = """
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "urls"
SECRET_KEY = "of a test"
"""
URLS = """
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("", lambda request: HttpResponse("the shop"))]
"""


def site(framework: str, more: str = "") -> dict[str, str]:
    """Return the files of a block's site, with `more` behind the block."""
    if framework == "flask":
        return {"hello.py": PAGE["flask"] + more}
    return {"hello.py": f"{PAGE['django']}{more}\napp = application\n", "settings.py": SETTINGS, "urls.py": URLS}


async def meet(url: str, mode: str) -> list[tuple[int, list[float]]]:
    """Connect a crowd of clients, then have each call the tool; return the results, each with its progress."""
    from mcp import Client

    met: list[tuple[int, list[float]]] = []
    connected = 0
    all_connected = anyio.Event()

    async def visit() -> None:
        nonlocal connected
        steps: list[float] = []

        async def note(progress: float, total: float | None, message: str | None) -> None:
            steps.append(progress)

        async with Client(url, mode=mode) as client:
            connected += 1
            if connected == CROWD:
                all_connected.set()
            await all_connected.wait()
            result = await client.call_tool("meet", {}, progress_callback=note)
            met.append((result.structured_content["result"], steps))

    with anyio.fail_after(45):
        async with anyio.create_task_group() as clients:
            for _ in range(CROWD):
                clients.start_soon(visit)
    return met


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("framework", ["flask", "django"])
def test_a_crowd_of_clients_meets(tmp_path: Path, framework: str, mode: str) -> None:
    """All of them stay connected, and each gets the progress and the result of a tool that waits for all."""
    files = site(framework, MEETING)
    with served(PAGE, "serve", tmp_path, env={"XDG_RUNTIME_DIR": str(tmp_path)}, config=files) as server:
        met = anyio.run(meet, f"http://127.0.0.1:{server.port}/ai/mcp", mode)
        assert sorted(number for number, _ in met) == list(range(1, CROWD + 1))
        assert [progress for _, progress in met] == [[1, 2]] * CROWD
        assert server.client.get("/").text == "the shop"


@pytest.mark.parametrize("framework", ["flask", "django"])
def test_the_client_of_the_page(tmp_path: Path, framework: str) -> None:
    """It prints the progress and the result."""
    check_install(PAGE.commands("serve")[0])
    files = site(framework)
    with served(PAGE, "serve", tmp_path, env={"XDG_RUNTIME_DIR": str(tmp_path)}, config=files) as server:
        script = PAGE["client"].replace("8000", str(server.port))
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False)
    assert done.stdout == "1 of 3\n2 of 3\n3 of 3\n{'result': 21}\n", done.stderr
