"""The adapters and servers under test, as pytest's options name them."""

import importlib
import inspect
import re
import shlex
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from wsgi_asgi_conformance.catalogue import FOLDER, SUBJECTS


def adapter_name(config: pytest.Config, subject: str) -> str:
    """Return a direction's adapter as `module:Class`, or the command of a server, or "none"."""
    return str(config.getoption(subject) or "none")


def is_thorough(config: pytest.Config) -> bool:
    """Return whether warnings, a validator's reports and calls that outlive their client also fail a test."""
    return bool(config.getoption("thorough"))


def deadline_for(config: pytest.Config) -> float:
    """Return how long a wait may last, in seconds, before it counts as a hang; it is the same for every adapter."""
    deadline: float = config.getoption("deadline")
    return deadline


def maybe_subject(path: Path) -> str | None:
    """Return the direction or the kind of server that a test checks, or None for a file outside the suite."""
    if not path.is_relative_to(FOLDER):
        return None
    return next((name for name in SUBJECTS if name in path.relative_to(FOLDER).parts), None)


def option_for(subject: str) -> str:
    """Return the option that names the adapter of a direction, or a server."""
    return f"--{subject.removesuffix('s').replace('_', '-')}"


def check_command(config: pytest.Config, subject: str) -> None:
    """Raise UsageError if a server's command does not exist, or lacks the placeholders for the app and the port."""
    command = adapter_name(config, subject)
    try:
        parts = shlex.split(command)
        names = ("app", "port", "module", "attribute", "python", "folder")
        made = [part for part in parts if part.format(**dict.fromkeys(names, "x"))]
    except (ValueError, KeyError, IndexError) as error:
        raise pytest.UsageError(f"{option_for(subject)} {command}: {error!r}") from error
    if not any("{port}" in part for part in made) or not any(re.search(r"{(app|module)}", part) for part in made):
        raise pytest.UsageError(f"{option_for(subject)} {command}: expected a command with {{app}} and {{port}} in it")
    program = parts[0].replace("{python}", sys.executable)
    if shutil.which(program) is None:
        raise pytest.UsageError(f"{option_for(subject)} {command}: there is no command {program!r} on the PATH")


def load_adapter(config: pytest.Config, direction: str) -> Any:
    """Import the adapter of a direction. Raises UsageError if there is none of its name."""
    name = adapter_name(config, direction)
    option = f"{option_for(direction)} {name}"
    module, _, attributes = name.partition(":")
    if not module or not attributes:
        raise pytest.UsageError(f"{option}: expected MODULE:CLASS, with a colon, or none")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")  # a deprecated adapter is judged, too, where pytest makes warnings errors
            adapter: Any = importlib.import_module(module)
        for attribute in attributes.split("."):
            adapter = getattr(adapter, attribute)
    except (ImportError, AttributeError) as error:
        raise pytest.UsageError(f"{option}: {error}") from error
    if not callable(adapter):
        raise pytest.UsageError(f"{option}: expected a class or function, got {type(adapter).__name__}")
    return adapter


def takes(adapter: Any, option: str) -> bool:
    """Return whether an adapter's class has an option of that name."""
    try:
        return option in inspect.signature(adapter).parameters
    except (TypeError, ValueError):
        return False
