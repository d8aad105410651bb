"""Find out whether a callable is a WSGI or an ASGI app, as far as possible without calling it."""

import functools
import inspect
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any


def check_wsgi_app(app: object) -> None:
    """Raise TypeError if `app` cannot be a WSGI app. Without a signature that tells (`*args`, C), it may be one."""
    signature = _maybe_signature(_callable_or_raise(app, "WSGIToASGI", "WSGI"))
    _check_no_factory(app, signature, "WSGIToASGI wraps WSGI apps", 2)
    if _is_async(app) or (signature and not _takes(signature, 2) and _takes(signature, 3)):
        raise TypeError(f"WSGIToASGI wraps WSGI apps, and {app!r:.200} looks like an ASGI app: use ASGIToWSGI")
    if signature and not _takes(signature, 2):
        raise TypeError(f"a WSGI app takes (environ, start_response), and {app!r:.200} does not")


def check_asgi_app(app: object) -> None:
    """Raise TypeError if `app` cannot be an ASGI 3 app. Without a signature that tells (`*args`, C), it may be one."""
    signature = _maybe_signature(_callable_or_raise(app, "ASGIToWSGI", "ASGI"))
    _check_no_factory(app, signature, "ASGIToWSGI wraps ASGI apps", 3)
    if signature and not _takes(signature, 3):
        if _takes(signature, 2) and not _is_async(app):
            raise TypeError(f"ASGIToWSGI wraps ASGI apps, and {app!r:.200} looks like a WSGI app: use WSGIToASGI")
        raise TypeError(
            f"an ASGI app takes (scope, receive, send), and {app!r:.200} does not; an ASGI 2 app "
            "can be wrapped in asgiref.compatibility.guarantee_single_callable first"
        )


def _callable_or_raise(app: object, adapter: str, kind: str) -> Callable[..., Any]:
    if not callable(app):
        raise TypeError(f"{adapter} wraps {kind} apps, which are callable, and {app!r:.200} is not")
    return app


def _check_no_factory(app: Any, signature: tuple[inspect.Signature, int] | None, wraps: str, count: int) -> None:
    """Raise TypeError for a class or a function that does not answer requests but creates the app that does."""
    if signature is None:
        return
    # A class that takes exactly one argument is left for the caller to report, because ASGI 2 apps are such classes.
    if issubclass(type(app), type) and not _may_respond(app) and any(_takes(signature, each) for each in (0, 2, 3)):
        raise TypeError(f"{wraps}, and {app!r:.200} is a class: pass an instance of it")
    if _takes(signature, 0) and not _takes(signature, count):
        raise TypeError(f"{wraps}, and {app!r:.200} takes no request: is it a factory? Then call it")


def _may_respond(app: type) -> bool:
    """Return whether the class may be an app itself, because its instances are responses."""
    constructs = _class_attribute(type(app), "__call__") is vars(type)["__call__"]
    if not constructs or _class_attribute(app, "__new__") is not vars(object)["__new__"]:
        return True  # its call may return anything
    return any(_class_attribute(app, name) is not None for name in ("__iter__", "__getitem__", "__await__"))


def _function_behind(app: Any) -> tuple[Callable[..., Any], int] | None:
    """Return the function that a call of `app` runs, and how many of its arguments are already bound.

    PEP 3333 allows any callable, so this looks only at the class of `app`, and never reads an attribute of `app`.
    """
    if type(app) in (FunctionType, MethodType, functools.partial):
        return app, 0
    attribute = _class_attribute(type(app), "__call__")
    if attribute is vars(type)["__call__"]:
        attribute = vars(app).get("__init__")  # construction is the call
    return (attribute, 1) if type(attribute) is FunctionType else None


def _class_attribute(cls: type, name: str) -> object:
    """Return the attribute `name` of the class or its bases as it is stored there, without binding it."""
    return next((vars(each)[name] for each in cls.__mro__ if name in vars(each)), None)


def _maybe_signature(app: Callable[..., Any]) -> tuple[inspect.Signature, int] | None:
    function = _function_behind(app)
    if function is None:
        return None
    try:
        return inspect.signature(function[0], follow_wrapped=False), function[1]
    except Exception:
        return None


def _takes(signature: tuple[inspect.Signature, int], count: int) -> bool:
    try:
        signature[0].bind(*[None] * (signature[1] + count))
    except TypeError:
        return False
    return True


def _is_async(app: Any) -> bool:
    function = _function_behind(app)
    return function is not None and inspect.iscoroutinefunction(function[0])
