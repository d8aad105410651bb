"""Which of the old app's routes the new app answers: what `bridge routes` shows."""

import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from bridge.migration.choice import Choice
from bridge.migration.question import Found, Question, Router, Rule
from bridge.migration.routers import maybe_router

# The methods to try if a rule takes any.
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
# Methods that frameworks add to a rule themselves.
_ADDED = {"HEAD", "OPTIONS"}


class Row(NamedTuple):
    """One rule and method of the old app, and which app answers it."""

    rule: str
    method: str  # or "any", "any other", "WebSocket"
    # "both": it depends on the value of a parameter; "unknown": no sample path was found
    who: Literal["new", "old", "both", "unknown"]
    by: str  # the rule of the new app that answers, if one does
    hidden: bool  # whether that rule has another shape, so that it hides this one instead of replacing it


def compare_routes(new: Any, old: Any) -> list[Row]:
    """Return a row for each rule and method of the old app, in the order of its rules.

    Each rule is tried with one or two paths that it matches. `maybe_router` must know both apps.
    """
    choice = Choice(new, old, None)
    of_new, of_old = maybe_router(new), maybe_router(old)
    assert of_new is not None
    assert of_old is not None
    return [row for rule in of_old.rules() for row in _rows(rule, choice, of_new)]


def _rows(rule: Rule, choice: Choice, new: Router) -> Iterator[Row]:
    rule_name = rule.host + rule.rule
    if not rule.paths:
        yield Row(rule_name, _label(rule), "unknown", "", False)
        return
    if rule.websocket:
        yield _row(rule, "WebSocket", choice, new)
        return
    methods = [method for method in rule.methods if method not in _ADDED] or list(rule.methods)
    if methods:
        for method in methods:
            yield _row(rule, method, choice, new)
        return
    rows = [_row(rule, method, choice, new) for method in _METHODS]
    if len({row._replace(method="") for row in rows}) == 1:
        yield rows[0]._replace(method="any")
    else:
        yield from (row for row in rows if row.who != "old")
        yield Row(rule_name, "any other", "old", "", False)


def _label(rule: Rule) -> str:
    if rule.websocket:
        return "WebSocket"
    return ", ".join(method for method in rule.methods if method not in _ADDED) or "any"


def _row(rule: Rule, method: str, choice: Choice, new: Router) -> Row:
    by: Found | None = None
    sides = set()
    for path in rule.paths:
        question = Question(scope=_scope(rule.host or "localhost", method, path))
        is_new, _ = choice.ask(question)
        sides.add(is_new)
        if is_new and by is None:
            by = new.find(question)
    name = rule.host + rule.rule
    if by is None:
        return Row(name, method, "old", "", False)
    hidden = by.generated or shape(by.rule) != shape(rule.rule)
    return Row(name, method, "both" if len(sides) == 2 else "new", by.rule, hidden)


def _scope(host: str, method: str, path: str) -> dict[str, Any]:
    """Return the scope of a plain request."""
    websocket = method == "WebSocket"
    scope = {
        "type": "websocket" if websocket else "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "ws" if websocket else "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", host.encode("latin-1"))],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "extensions": {},
    }
    return {**scope, "subprotocols": []} if websocket else {**scope, "method": method}


# `{id:int}` in Starlette, `<int:id>` in Flask and Django, and groups of regular expressions, nested once.
_REST = re.compile(r"\{\w*:path\}|<path:\w*>")
_PARAMETER = re.compile(r"\{[^{}]*\}|<[^<>]*>|\((?:[^()]|\([^()]*\))*\)")


def shape(rule: str) -> str:
    """Return a rule without the names and types of its parameters. A rule of the same shape counts as its port."""
    plain = re.sub(r"\(\?P<\w+>", "(", rule).replace("^", "").removesuffix("$")
    return _PARAMETER.sub("{}", _REST.sub("\0", plain)).rstrip("/")
