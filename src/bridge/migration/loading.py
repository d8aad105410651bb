"""Imports an app by the name that servers take: `module:app`, or `module:factory()`."""

import contextlib
import difflib
import importlib
import inspect
import re
import sys
import traceback
from types import ModuleType
from typing import Any

from bridge.migration.kinds import is_asgi_app

_NAME = re.compile(r"(?P<module>[\w.]+):(?P<attribute>[\w.]+?)(?P<call>\(\))?")


class CannotRun(Exception):
    """Raised if a command cannot do what it was asked to. The command line prints the text, and exits with 2."""


def load_app(name: str) -> Any:
    """Import and return the app of this name. Modules in the current folder come first. Raises CannotRun.

    What the import prints goes to stderr, so that only the command writes to stdout.
    """
    match = _NAME.fullmatch(name)
    if match is None or match["module"].endswith(".py"):
        hint = f" ({name.partition(':')[0]!r} is a file)" if re.search(r"\.py\b|/", name) else ""
        raise CannotRun(f"{name!r} does not name an app{hint}: write module:app, or module:factory()")
    if "" not in sys.path:
        sys.path.insert(0, "")
    with contextlib.redirect_stdout(sys.stderr):
        app = _attribute(_module(match["module"]), match["attribute"], name)
        if match["call"]:
            app = _call(app, name)
    _check(app, name, called=bool(match["call"]))
    return app


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise CannotRun(
                f"there is no module {error.name!r}, in this folder or among the installed packages"
            ) from None
        raise _raised(f"the import of {name!r}", error) from error
    except (Exception, SystemExit) as error:
        raise _raised(f"the import of {name!r}", error) from error


def _attribute(module: ModuleType, path: str, name: str) -> Any:
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            apps = [key for key, value in vars(module).items() if _looks_like_an_app(value)]
            close = difflib.get_close_matches(part, vars(module), 1)
            hint = f"; it has {' and '.join(repr(app) for app in apps[:3])}" if apps else ""
            if close and not apps:
                hint = f"; is it {close[0]!r}?"
            raise CannotRun(f"{name}: the module {module.__name__!r} has no {path!r}{hint}")
        found = getattr(found, part)
    return found


def _call(factory: Any, name: str) -> Any:
    if not callable(factory) or _looks_like_an_app(factory):
        raise CannotRun(f"{name}: expected a factory, got an object of {_kind_of(factory)}: leave out the ()")
    try:
        return factory()
    except (Exception, SystemExit) as error:
        raise _raised(f"{name}: the factory", error) from error


def _check(app: Any, name: str, called: bool) -> None:
    if inspect.iscoroutine(app):
        app.close()
        raise CannotRun(f"{name}: expected a plain function that returns the app, got a coroutine function")
    try:
        is_asgi_app(app, unsure=False)
    except TypeError:
        if not called and inspect.isroutine(app) and not inspect.signature(app).parameters:
            raise CannotRun(
                f"{name}: expected an app, got a function without parameters: write {name}() if it creates the app"
            ) from None
        raise CannotRun(f"{name}: expected a WSGI or an ASGI app, got {_kind_of(app)}") from None


def _looks_like_an_app(value: Any) -> bool:
    if inspect.isclass(value) or inspect.isroutine(value) or type(value).__module__ == "werkzeug.local":
        return False  # Werkzeug's proxies, such as flask.request, are callable
    try:
        is_asgi_app(value, unsure=False)
    except TypeError:
        return False
    return True


def _kind_of(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _raised(what: str, error: BaseException) -> CannotRun:
    """Return an error that says what was raised, in which file and on which line."""
    tracebacks = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in tracebacks if frame.filename != __file__ and not frame.filename.startswith("<frozen")]
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    return CannotRun(f"{what} raised {text}{where}")
