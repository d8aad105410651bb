"""The blocks of the page about WebSockets."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.commands import PORT, check_install, served
from tests.docs.pages import Page

PAGE = Page("docs/websockets.md")


@pytest.mark.parametrize(("app", "serve"), [("fastapi", "serve fastapi"), ("flask", "serve flask")])
def test_an_echo(app: str, serve: str, tmp_path: Path) -> None:
    """The client of the page gets each line back."""
    check_install(PAGE.commands(serve)[0])
    install, client = PAGE.commands("try")
    check_install(install)
    (tmp_path / "hello.py").write_text(PAGE[app])
    with served(PAGE, serve, tmp_path) as server:
        command = [sys.executable, *client[1:-1], client[-1].replace(PORT, str(server.port))]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
            assert process.stdin
            assert process.stdout
            process.stdin.write("hello\n")
            process.stdin.flush()
            output = ""
            while "< hello" not in output:
                character = process.stdout.read(1)
                assert character, output
                output += character
            process.stdin.close()
            assert process.wait(20) == 0
