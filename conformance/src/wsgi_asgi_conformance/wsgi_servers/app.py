"""The app that a WSGI server serves: it passes each request on to the app of its test."""

import importlib
from collections.abc import Iterable
from typing import Any

from wsgi_asgi_conformance.notes import Notes
from wsgi_asgi_conformance.serving import APP, NOTE
from wsgi_asgi_conformance.types import Environ, StartResponse

_KEYS = {name: f"HTTP_{name.upper().replace('-', '_')}" for name in (APP, NOTE)}


def app(*args: Any, **kwargs: Any) -> Any:
    """Serve a request with the function that its headers name."""
    environ, start_response = args
    name, note = environ.get(_KEYS[APP]), environ.get(_KEYS[NOTE])
    if name is None or note is None:
        return plain(environ, start_response, None)
    notes = Notes(note)
    notes("called", (len(args), sorted(kwargs)))
    try:
        return _named(name)(environ, start_response, notes)
    except BaseException as error:
        notes("raised", type(error).__name__)
        raise


def _named(name: str) -> Any:
    module, _, attribute = name.partition(":")
    if not module.startswith(f"{__package__}."):
        raise ValueError(f"expected an app of {__package__}, got {name!r}")
    return getattr(importlib.import_module(module), attribute)


def plain(environ: Environ, start_response: StartResponse, notes: Notes | None) -> Iterable[bytes]:
    """Answer a request that belongs to no test, such as a check whether the server is up."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"plain"]


application = app
