"""The adapters under test, as the options of pytest name them."""

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

from wsgi_asgi_conformance.catalogue import DIRECTIONS, FOLDER


def adapter_name(config: pytest.Config, direction: str) -> str:
    """Return what stands for the adapter of a direction: `module:Class`, or "none"."""
    return str(config.getoption(direction) or "none")


def is_thorough(config: pytest.Config) -> bool:
    """Return whether a test also fails for a warning, for what a validator reports, and for a call that stays."""
    return bool(config.getoption("thorough"))


def deadline_for(config: pytest.Config) -> float:
    """Return how long a wait may take before it is a hang, in seconds; the same for every adapter."""
    deadline: float = config.getoption("deadline")
    return deadline


def maybe_direction(path: Path) -> str | None:
    """Return the direction that a test file is about; None for a file that is not the suite's."""
    if not path.is_relative_to(FOLDER):
        return None
    return next((name for name in DIRECTIONS.values() if name in path.relative_to(FOLDER).parts), None)


def option_for(direction: str) -> str:
    """Return the option that names the adapter of a direction."""
    return f"--{direction.replace('_', '-')}"


def load_adapter(config: pytest.Config, direction: str) -> Any:
    """Import the adapter of a direction. Raises UsageError if its name leads to none."""
    name = adapter_name(config, direction)
    option = f"{option_for(direction)} {name}"
    module, _, attributes = name.partition(":")
    if not module or not attributes:
        raise pytest.UsageError(f"{option}: expected MODULE:CLASS, with a colon, or none")
    try:
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
