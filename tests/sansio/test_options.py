import importlib.util
import math
from typing import Any

import pytest

from bridge import ASGIToWSGI, WebSocketOptions, WSGIToASGI
from bridge.sansio.options import check_backend
from bridge.types import Environ, Receive, Scope, Send, StartResponse

NEVER_SECONDS = [0, -1, -0.5, math.nan, math.inf, -math.inf, 1e300]
NO_SECONDS = ["10", True, False, [1], 1j]


def wsgi_app(environ: Environ, start_response: StartResponse) -> list[bytes]:
    return []


async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None: ...


def cases(**options: list[Any]) -> pytest.MarkDecorator:
    pairs = [(name, value) for name, values in options.items() for value in values]
    # By its name, because the address in a function's repr differs between the processes of a run.
    ids = [f"{name}-{getattr(value, '__name__', repr(value)[:40])}" for name, value in pairs]
    return pytest.mark.parametrize(("name", "value"), pairs, ids=ids)


@cases(workers=[0, -1], max_websockets=[-1])
def test_value_that_a_wsgi_app_cannot_be_run_with_is_a_value_error(name: str, value: Any) -> None:
    """The error names the option and what came."""
    with pytest.raises(ValueError, match=rf"^{name} must be at least .*, got {value}"):
        WSGIToASGI(wsgi_app, **{name: value})


@cases(
    workers=[1.5, 4.0, "10", True, None],
    buffer_body=["no", 0, 1, None],
    multiprocess=["no", 1, None],
    max_websockets=["10", False, None, math.inf],
)
def test_type_that_no_option_for_a_wsgi_app_has_is_a_type_error(name: str, value: Any) -> None:
    """A bool is not accepted as a number, nor a word as a bool."""
    with pytest.raises(TypeError, match=rf"^{name} must be .*, got "):
        WSGIToASGI(wsgi_app, **{name: value})


@cases(
    lifespan=["", "yes", "ON"],
    websocket=["on", ""],
    backend=["curio", ""],
    max_websockets=[-1],
    startup_timeout=NEVER_SECONDS,
    shutdown_timeout=NEVER_SECONDS,
)
def test_value_that_an_asgi_app_cannot_be_run_with_is_a_value_error(name: str, value: Any) -> None:
    """The error names the option and what came."""
    with pytest.raises(ValueError, match=rf"^{name} must be .*, got "):
        ASGIToWSGI(asgi_app, **{name: value})


@cases(
    lifespan=[None, True, ["on"]],
    pathsend=[None, 1, "on"],
    websocket=[None, False],
    backend=[None, asgi_app],
    backend_options=["use_uvloop", [("use_uvloop", True)]],
    websocket_options=[{"ping_interval": 5}, WebSocketOptions],
    max_websockets=[1.5, "1", True, None],
    startup_timeout=[None, *NO_SECONDS],
    shutdown_timeout=[None, *NO_SECONDS],
)
def test_type_that_no_option_for_an_asgi_app_has_is_a_type_error(name: str, value: Any) -> None:
    """The error names the option, what it takes and what came."""
    with pytest.raises(TypeError, match=rf"^{name} must be .*, got "):
        ASGIToWSGI(asgi_app, **{name: value})


@cases(ping_interval=NEVER_SECONDS, pong_timeout=NEVER_SECONDS, max_message_size=[0, -1])
def test_value_that_no_websocket_can_be_kept_by_is_a_value_error(name: str, value: Any) -> None:
    """Values that make no sense are refused; a ping every 0 seconds would use all of the loop's time."""
    with pytest.raises(ValueError, match=rf"^{name} must be .*, got "):
        WebSocketOptions(**{name: value})


@cases(
    ping_interval=NO_SECONDS,
    pong_timeout=[None, *NO_SECONDS],
    max_message_size=[1e6, "1", True, None],
    compression=["off", 1, None],
)
def test_type_that_no_websocket_can_be_kept_by_is_a_type_error(name: str, value: Any) -> None:
    """None is accepted only for ping_interval."""
    with pytest.raises(TypeError, match=rf"^{name} must be .*, got "):
        WebSocketOptions(**{name: value})


def test_options_that_make_sense_are_taken() -> None:
    """Ints and floats are accepted as seconds, and the smallest value of each number is."""
    WSGIToASGI(wsgi_app, workers=1, buffer_body=True, max_websockets=0)
    ASGIToWSGI(
        asgi_app,
        backend="trio",
        backend_options={"strict_exception_groups": False},
        lifespan="off",
        websocket="hold",
        websocket_options=WebSocketOptions(ping_interval=None, pong_timeout=1, max_message_size=1, compression=True),
        max_websockets=0,
        startup_timeout=1,
        shutdown_timeout=0.01,
    )


def test_error_for_websocket_options_names_their_class() -> None:
    """The error for a dict, which users might pass first, shows the right way."""
    with pytest.raises(TypeError, match=r"must be a WebSocketOptions, got \{.*\}: pass WebSocketOptions\("):
        ASGIToWSGI(asgi_app, websocket_options={"ping_interval": 5})  # type: ignore[arg-type]


def test_error_for_uvloop_says_how_to_ask_for_it() -> None:
    """For anyio, uvloop is not a backend but an option of asyncio."""
    with pytest.raises(ValueError, match=r'give backend_options=\{"use_uvloop": True\}'):
        ASGIToWSGI(asgi_app, backend="uvloop")


@pytest.mark.parametrize(
    ("backend", "options"),
    [("asyncio", {"uvloop": True}), ("asyncio", {"clock": None}), ("trio", {"use_uvloop": True}), ("trio", {5: 5})],
)
def test_unknown_backend_option_is_a_value_error(backend: str, options: dict[Any, Any]) -> None:
    """asyncio would ignore an unknown option, and trio would fail at the start."""
    with pytest.raises(ValueError, match=f"^backend_options for '{backend}' may hold .*, got"):
        ASGIToWSGI(asgi_app, backend=backend, backend_options=options)


def test_use_uvloop_is_a_bool() -> None:
    """A word from an environment variable would always be true."""
    with pytest.raises(TypeError, match=r"use_uvloop.* must be True or False, got 'no'"):
        ASGIToWSGI(asgi_app, backend_options={"use_uvloop": "no"})


@pytest.mark.parametrize(("backend", "options", "package"), [("trio", None, "trio"), ("asyncio", {}, "uvloop")])
def test_backend_that_is_not_installed_is_a_value_error(
    backend: str, options: Any, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the package, and is raised before the first request."""
    options = {"use_uvloop": True} if package == "uvloop" else options
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else object())
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(ValueError, match=f"needs the package {package}$"):
        check_backend(backend, options)
    check_backend("asyncio", {"use_uvloop": False})


def test_what_came_is_quoted_in_bounds() -> None:
    """The error quotes only the start of a value's repr, which may be very long."""
    with pytest.raises(TypeError) as caught:
        WSGIToASGI(wsgi_app, workers="x" * 10_000)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 300
