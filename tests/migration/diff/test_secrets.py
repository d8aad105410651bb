import io
import json
import sys
from pathlib import Path

import pytest
from flask import Flask, Response, jsonify

from bridge.migration import output
from bridge.migration.diff.redact import Redactor, is_secret
from tests.migration.diff.conftest import Diff
from tests.migration.diff.test_differences import entry

SECRETS = {
    name: f"planted-{name}"
    for name in (
        "cookie",
        "bearer",
        "apikey",
        "csrf",
        "password",
        "session",
        "query",
        "nested",
        "setcookie",
        "location",
    )
} | {"number": "918273645", "long": "q8w7e6r5t4y3u2i1o0p9a8s7d6f5g4h3"}


def app_with(suffix: str) -> Flask:
    app = Flask("app")

    @app.get("/")
    def answer() -> Response:
        known = {name: value + suffix for name, value in SECRETS.items()}
        response = jsonify(
            password=known["password"],
            user={"session_id": known["session"], "tokens": [{"deep": known["nested"]}], "pin": int(SECRETS["number"])},
            echo={"a": known["cookie"], "b": f"Bearer {known['bearer']}", "c": known["apikey"], "d": known["csrf"]},
            query=known["query"],
            short={"password": suffix},
            note=f"set to {known['setcookie']}, {SECRETS['number']} {known['long']}{suffix}",
            also=suffix,
        )
        response.set_cookie("id", known["setcookie"])
        response.headers["X-Api-Key"] = known["apikey"]
        response.headers["X-CSRF-Token"] = known["csrf"]
        response.headers["X-Echo"] = known["cookie"] + known["password"]
        return response

    @app.get("/page")
    def page() -> str:
        return f'<input name="csrf" value="{SECRETS["csrf"]}{suffix}">\n<p>{SECRETS["long"]}{suffix}</p>'

    @app.get("/elsewhere")
    def elsewhere() -> Response:
        return Response(status=302, headers={"Location": f"/x?token={SECRETS['location']}{suffix}&a={suffix}"})

    @app.get("/broken")
    def broken() -> Response:
        return Response(f'{{"password": "{SECRETS["password"]}{suffix}", NaN', content_type="application/json")

    return app


@pytest.mark.parametrize("sent", [True, False])
def test_no_secret_comes_out(sent: bool, diff: Diff) -> None:
    """Of a recording or of an answer: in the text, JSON, Markdown, errors and the accept file."""
    headers = {
        "Cookie": f"id={SECRETS['cookie']}",
        "Authorization": f"Bearer {SECRETS['bearer']}",
        "X-Api-Key": SECRETS["apikey"],
        "X-CSRFToken": SECRETS["csrf"],
    }
    pairs = [{"name": name, "value": value} for name, value in headers.items()]
    target = f"?token={SECRETS['query']}"
    paths = ("/", "/page", "/elsewhere", "/broken")
    entries = [{"request": {**entry("GET", f"http://x{path}{target}")["request"], "headers": pairs}} for path in paths]
    Path("site.har").write_text(json.dumps({"log": {"entries": entries}}))
    arguments = ["--requests", "site.har", "--write-accept", "accept.json", *["--send-credentials"] * sent]
    outcome = diff(app_with("-1"), app_with("-2"), *arguments)
    assert outcome.code == 2  # of the broken one
    shown = "".join(map(str, outcome)) + Path("accept.json").read_text()
    assert len(json.loads(outcome.json)["differences"]) > 8
    assert [name for name, value in SECRETS.items() if value in shown] == []
    assert "•••" in outcome.out
    hung = "http://127.0.0.1:9"
    refused = diff(hung, hung, "--requests", "site.har")
    assert refused.code == 2
    assert SECRETS["query"] not in refused.err


def test_the_progress_line_has_numbers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is for a terminal, and gone at the end."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(output, "_LONG", -1.0)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = output.ProgressLine()
    progress("old", 3, 12)
    progress.clear()
    assert terminal.getvalue() == f"\rold: 3 of 12\r{' ' * 12}\r"


@pytest.mark.parametrize("name", ["Password", "access_token", "X-CSRFToken", "sessionid", "client-secret", "api_key"])
def test_names_of_secrets_are_known(name: str) -> None:
    """In any case and with any separator."""
    assert is_secret(name)


def test_a_hash_is_of_one_run() -> None:
    """Another run has another salt, so nobody can look a value up."""
    hashes = {Redactor().hidden("a value") for _ in range(20)}
    assert len(hashes) > 1
    redactor = Redactor()
    assert redactor.hidden("a value") == redactor.hidden("a value")


def test_a_secret_within_another_leaves_nothing_of_either() -> None:
    """The longest is hidden first; quotes around a cookie, and what is quoted for a URL, do not belong to it."""
    redactor = Redactor()
    redactor.learn_cookies('a="abcd"; b=abcd-efgh; c=%20wxyz')
    redactor.learn_target("/x?token=pqrs&page=other")
    assert redactor.shown("abcd-efgh") == redactor.hidden("abcd-efgh")
    assert redactor.shown("<abcd>") == f"<{redactor.hidden('abcd')}>"
    assert redactor.shown("' wxyz'") == f"'{redactor.hidden(' wxyz')}'"
    assert redactor.shown("pqrs other") == f"{redactor.hidden('pqrs')} other"
    assert redactor.target("/x?token=pqrs&page=other") == "/x?token=•••&page=other"


def test_what_is_shown_is_short_and_harmless() -> None:
    """A terminal obeys no answer, and a UUID is no token."""
    redactor = Redactor()
    assert redactor.shown("plain text, ü") == "plain text, ü"
    assert redactor.shown("\x1b[31mred\n") == "\\x1b[31mred\\n"
    assert len(redactor.shown("a " * 1000)) == 200
    assert redactor.shown("550e8400-e29b-41d4-a716-446655440000").startswith("550e8400")
