"""Checks of the adapters' options. They raise TypeError for a wrong type and ValueError for a wrong value.

`name` is the name of the option, for the error's text.
"""

import importlib.util
import sys

# How many seconds a lock can wait on every system. Windows has the lowest limit (threading.TIMEOUT_MAX).
_MOST_SECONDS = 4_000_000
# The options that `anyio.run` passes on. They are checked here, because its asyncio backend ignores unknown ones.
_BACKEND_OPTIONS = {
    "asyncio": ("debug", "loop_factory", "use_uvloop"),
    "trio": ("clock", "instruments", "restrict_keyboard_interrupt_to_checkpoints", "strict_exception_groups"),
}


def check_flag(name: str, value: object) -> None:
    """Raise unless `value` is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r:.200}")


def check_word(name: str, value: object, words: tuple[str, ...]) -> None:
    """Raise unless `value` is one of `words`."""
    if value not in words:
        kind = ValueError if isinstance(value, str) else TypeError
        raise kind(f"{name} must be {' or '.join(map(repr, words))}, got {value!r:.200}")


def check_count(name: str, value: object, least: int) -> None:
    """Raise unless `value` is an int of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got {value!r:.200}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r:.200}")


def check_seconds(name: str, value: object, or_none: str = "", *, zero: bool = False) -> None:
    """Raise unless `value` is a number of seconds that a lock can wait.

    With `zero`, 0 is allowed. With `or_none`, None is allowed; `or_none` tells what None means, for the error's text.
    """
    if value is None and or_none:
        return
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number of seconds{or_none}, got {value!r:.200}")
    if not (0 < value <= _MOST_SECONDS or (zero and value == 0)):  # written so that nan fails
        least = "at least 0" if zero else "more than 0"
        raise ValueError(f"{name} must be {least} and at most {_MOST_SECONDS} seconds{or_none}, got {value!r:.200}")


def check_backend(backend: object, options: object) -> None:
    """Raise unless `anyio.run` accepts both, and the packages that they need are installed."""
    if backend == "uvloop":
        raise ValueError(
            "backend must be 'asyncio' or 'trio', got 'uvloop': give backend_options={\"use_uvloop\": True} to "
            "have asyncio run on uvloop"
        )
    check_word("backend", backend, tuple(_BACKEND_OPTIONS))
    if options is None:
        options = {}
    if not isinstance(options, dict):
        raise TypeError(f"backend_options must be a dict or None, got {options!r:.200}")
    known = _BACKEND_OPTIONS[str(backend)]
    for name in options:
        if name not in known:
            raise ValueError(f"backend_options for {backend!r} may hold {', '.join(known)}, got {name!r:.200}")
    check_flag('backend_options["use_uvloop"]', options.get("use_uvloop", False))
    needed = str(backend)
    if options.get("use_uvloop"):
        needed = "winloop" if sys.platform == "win32" else "uvloop"  # as anyio chooses
    if importlib.util.find_spec(needed) is None:
        raise ValueError(f"backend={backend!r} with backend_options={options!r:.200} needs the package {needed}")
