import functools
from collections.abc import Iterable, Iterator
from typing import Any

import falcon
import fastapi
import flask
import pytest
import quart
import starlette.applications
import starlette.endpoints
from django.core.handlers.asgi import ASGIHandler  # type: ignore[import-untyped]  # it has no types
from django.core.handlers.wsgi import WSGIHandler  # type: ignore[import-untyped]  # likewise

from bridge.sansio.callables import check_asgi_app, check_wsgi_app

# --- Apps of every kind ---------------------------------------------------------------------------


def wsgi_function(environ: Any, start_response: Any) -> Iterable[bytes]:
    return []


async def asgi_function(scope: Any, receive: Any, send: Any) -> None: ...


def wsgi_with_option(environ: Any, start_response: Any, option: Any, /) -> Iterable[bytes]:
    return []


async def asgi_with_option(option: Any, scope: Any, receive: Any, send: Any) -> None: ...


def anything(*args: Any) -> Any: ...


def either(environ_or_scope: Any, start_response_or_receive: Any, send: Any = None) -> Any: ...


@functools.wraps(wsgi_function)
def asgi_that_claims_to_be_wsgi(scope: Any, receive: Any, send: Any) -> Any: ...


@functools.wraps(asgi_function)
def wsgi_that_claims_to_be_asgi(*args: Any) -> Any: ...


def signature_is_nonsense(environ: Any) -> Any: ...


signature_is_nonsense.__signature__ = 5  # type: ignore[attr-defined]


class WSGI:
    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        return []

    def method(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        return []

    @classmethod
    def class_method(cls, environ: Any, start_response: Any) -> Iterable[bytes]:
        return []

    @staticmethod
    def static_method(environ: Any, start_response: Any) -> Iterable[bytes]:
        return []


class ASGI:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    async def method(self, scope: Any, receive: Any, send: Any) -> None: ...


class ASGIByPlainCall:
    def __call__(self, scope: Any, receive: Any, send: Any) -> Any: ...


class ASGIByArgs:
    async def __call__(self, *args: Any) -> None: ...


class WSGIByInstance:
    """PEP 3333's other example: constructing it calls the app, and the instance is the iterable."""

    def __init__(self, environ: Any, start_response: Any) -> None: ...

    def __iter__(self) -> Iterator[bytes]:
        return iter([])


class WSGIByIndex:
    """An iterable by the old sequence protocol."""

    def __init__(self, environ: Any, start_response: Any) -> None: ...

    def __getitem__(self, index: int) -> bytes:
        raise IndexError


class ASGIByInstance:
    """Like Starlette's HTTPEndpoint: constructing it calls the app, and the instance is awaited."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None: ...

    def __await__(self) -> Iterator[None]:
        return iter([])


class ByInheritedInit(WSGIByInstance):
    pass


class Makes:
    """A class whose instances are apps; its arguments are settings."""

    def __init__(self, name: Any = None, settings: Any = None, routes: Any = None) -> None: ...

    def __call__(self, *args: Any) -> Any: ...


class MakesByKeywords:
    """Like FastAPI."""

    def __init__(self, *, title: str = "") -> None: ...

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


def create_app() -> Any: ...


def create_app_with_settings(settings: Any = None) -> Any: ...


async def create_app_on_a_loop() -> Any: ...


class ASGI2:
    """An ASGI 2 app, which gets `receive` and `send` in a second call."""

    def __init__(self, scope: Any) -> None: ...


class WSGIByNew:
    def __new__(cls, environ: Any, start_response: Any) -> Any:
        return []


class WSGIByStaticCall:
    @staticmethod
    def __call__(environ: Any, start_response: Any) -> Iterable[bytes]:
        return []


class ASGIByStaticCall:
    @staticmethod
    async def __call__(scope: Any, receive: Any, send: Any) -> None: ...


class WSGIByClassCall:
    @classmethod
    def __call__(cls, environ: Any, start_response: Any) -> Iterable[bytes]:
        return []


class WSGIByPartial:
    __call__ = functools.partial(wsgi_function)


class BySlot:
    """Like Sentry's ASGI middleware."""

    __slots__ = ("__call__",)

    def __init__(self) -> None:
        self.__call__ = anything


class Meta(type):
    def __call__(cls, environ: Any, start_response: Any) -> Any:
        return []


class WSGIByMetaclass(metaclass=Meta):
    def __init__(self) -> None: ...


class Guarded:
    """An app that raises for every attribute."""

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        return []

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"{name} is nobody's business")


class SignatureRaises:
    """Its signature raises, as from Python 3.14 on if annotations name what does not exist at run time."""

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        return []

    @property
    def __signature__(self) -> Any:
        raise NameError("name 'WSGIEnvironment' is not defined")


WSGI_ONLY = [
    wsgi_function,
    lambda environ, start_response: [],
    functools.partial(wsgi_function),
    functools.partial(wsgi_with_option, object()),
    WSGI(),
    WSGI().method,
    WSGI.class_method,
    WSGI.static_method,
    functools.partial(WSGI()),
    WSGIByInstance,
    WSGIByIndex,
]
ASGI_ONLY = [
    asgi_function,
    lambda scope, receive, send: None,
    functools.partial(asgi_function),
    functools.partial(asgi_with_option, object()),
    ASGI(),
    ASGI().method,
    ASGIByPlainCall(),
    functools.partial(ASGI()),
    asgi_that_claims_to_be_wsgi,
    ASGIByInstance,
]
UNKNOWN = [
    anything,
    either,
    wsgi_that_claims_to_be_asgi,
    functools.partial(anything),
    signature_is_nonsense,
    functools.partial(dict),
    print,
    dict,
    ByInheritedInit,
    WSGIByNew,
    WSGIByClassCall(),
    WSGIByPartial(),
    BySlot(),
]
NEITHER = [
    lambda environ: None,
    lambda a, b, c, d: None,
    lambda environ, start_response, *, option: None,
    functools.partial(wsgi_function, None),
    ASGI2,
]
CLASSES = [Makes, MakesByKeywords, flask.Flask, WSGIHandler, falcon.App]
CLASSES += [fastapi.FastAPI, starlette.applications.Starlette, quart.Quart, ASGIHandler]
FACTORIES = [create_app, create_app_with_settings, create_app_on_a_loop, lambda: None, functools.partial(create_app)]
# Legal apps must not be refused, however odd they are.
ODD_WSGI = [WSGIByStaticCall(), WSGIByMetaclass, functools.partial(SignatureRaises())]
ODD_ASGI = [ASGIByStaticCall(), ASGIByArgs(), starlette.endpoints.HTTPEndpoint]


def ids(apps: list[Any]) -> list[str]:
    return [f"{index} {type(app).__name__}" for index, app in enumerate(apps)]


@pytest.mark.parametrize("app", WSGI_ONLY, ids=ids(WSGI_ONLY))
def test_wsgi_app_of_any_kind_is_known_for_one(app: Any) -> None:
    """An app is any callable of two positional arguments (PEP 3333, The Application/Framework Side)."""
    check_wsgi_app(app)
    with pytest.raises(TypeError, match=r"ASGIToWSGI wraps ASGI apps, and .* looks like a WSGI app: use WSGIToASGI"):
        check_asgi_app(app)


@pytest.mark.parametrize("app", ASGI_ONLY, ids=ids(ASGI_ONLY))
def test_asgi_app_of_any_kind_is_known_for_one(app: Any) -> None:
    """An app is a callable of three positional arguments (ASGI spec, Applications)."""
    check_asgi_app(app)
    with pytest.raises(TypeError, match=r"WSGIToASGI wraps WSGI apps, and .* looks like an ASGI app: use ASGIToWSGI"):
        check_wsgi_app(app)


@pytest.mark.parametrize("app", UNKNOWN, ids=ids(UNKNOWN))
def test_app_that_could_be_either_is_taken_for_what_it_is_said_to_be(app: Any) -> None:
    """A server must not care how an app is callable, so an unclear one is no error (PEP 3333)."""
    check_wsgi_app(app)
    check_asgi_app(app)


@pytest.mark.parametrize("app", NEITHER, ids=ids(NEITHER))
def test_app_that_can_be_neither_is_refused(app: Any) -> None:
    """The error says what an app takes, and what to do with one of ASGI 2 (ASGI spec, Legacy Applications)."""
    with pytest.raises(TypeError, match=r"^a WSGI app takes \(environ, start_response\), and .* does not$"):
        check_wsgi_app(app)
    with pytest.raises(
        TypeError, match=r"^an ASGI app takes \(scope, receive, send\), .*guarantee_single_callable first"
    ):
        check_asgi_app(app)


@pytest.mark.parametrize("app", CLASSES, ids=lambda app: f"{app.__module__}.{app.__name__}")
def test_class_of_apps_is_told_from_an_app(app: Any) -> None:
    """A class whose instances are neither iterable nor awaitable is no app, whatever arguments it takes."""
    for check, wraps in ((check_wsgi_app, "WSGIToASGI wraps WSGI"), (check_asgi_app, "ASGIToWSGI wraps ASGI")):
        with pytest.raises(TypeError, match=rf"^{wraps} apps, and <class '.*'> is a class: pass an instance of it$"):
            check(app)


@pytest.mark.parametrize("app", FACTORIES, ids=ids(FACTORIES))
def test_factory_is_told_from_an_app(app: Any) -> None:
    """A callable that takes no arguments cannot take a request."""
    for check, wraps in ((check_wsgi_app, "WSGIToASGI wraps WSGI"), (check_asgi_app, "ASGIToWSGI wraps ASGI")):
        with pytest.raises(
            TypeError, match=rf"^{wraps} apps, and .* takes no request: is it a factory\? Then call it$"
        ):
            check(app)


@pytest.mark.parametrize("app", ODD_WSGI, ids=ids(ODD_WSGI))
def test_wsgi_app_of_an_odd_kind_is_not_refused(app: Any) -> None:
    """Any callable is accepted, however it is callable (PEP 3333, Specification Overview)."""
    check_wsgi_app(app)


def test_wsgi_app_that_lets_nobody_look_at_it_is_not_refused() -> None:
    """The check reads no attribute, not even __class__ (PEP 3333, Specification Overview)."""
    check_wsgi_app(Guarded())


@pytest.mark.parametrize("app", ODD_ASGI, ids=ids(ODD_ASGI))
def test_asgi_app_of_an_odd_kind_is_not_refused(app: Any) -> None:
    """Any callable that returns an awaitable is accepted (ASGI spec, Applications)."""
    check_asgi_app(app)


def test_coroutine_function_is_no_wsgi_app() -> None:
    """A coroutine is not iterable, whatever the arguments (PEP 3333, The Application/Framework Side)."""

    async def app(environ: Any, start_response: Any) -> None: ...

    for each in (app, functools.partial(app), ASGIByArgs(), ASGIByArgs().__call__):
        with pytest.raises(TypeError, match="looks like an ASGI app: use ASGIToWSGI"):
            check_wsgi_app(each)
    with pytest.raises(TypeError, match="guarantee_single_callable"):  # nor is it an ASGI 3 app
        check_asgi_app(app)


@pytest.mark.parametrize("app", [None, 5, "module:app", object(), [wsgi_function]])
def test_app_that_is_not_callable_is_refused(app: Any) -> None:
    """The error names the adapter and what it wraps."""
    with pytest.raises(TypeError, match=r"WSGIToASGI wraps WSGI apps, which are callable, and .* is not"):
        check_wsgi_app(app)
    with pytest.raises(TypeError, match=r"ASGIToWSGI wraps ASGI apps, which are callable, and .* is not"):
        check_asgi_app(app)


def test_app_is_quoted_in_bounds() -> None:
    """The error quotes only the start of an app's repr, which may be very long."""

    class Long:
        def __repr__(self) -> str:
            return "x" * 10_000

    with pytest.raises(TypeError) as caught:
        check_wsgi_app(Long())
    assert len(str(caught.value)) < 400
