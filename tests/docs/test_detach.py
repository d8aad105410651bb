"""The blocks of the page about detached responses."""

import shutil
import subprocess

import pytest

from bridge import ASGIToWSGI
from tests.docs.pages import Page

PAGE = Page("docs/detach.md")


def test_detach() -> None:
    """The option is one that the adapter takes."""
    with PAGE.run("detach")["wsgi_app"] as adapter:
        assert isinstance(adapter, ASGIToWSGI)


def test_nstat() -> None:
    """It knows both counters."""
    if shutil.which("nstat") is None:
        pytest.skip("nstat is not installed")
    command = PAGE["nstat"].removeprefix("$ ").split()
    printed = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True).stdout
    assert all(counter in printed for counter in command[2:])
