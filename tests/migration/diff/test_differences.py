import gzip
import itertools
import json
import re
import secrets
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from flask import Flask, Response, jsonify, request
from starlette.responses import PlainTextResponse

from tests.migration.diff.conftest import Diff


def answering(body: Any, status: int = 200, **headers: Any) -> Flask:
    """Return an app with one answer; `_` in the name of a header stands for `-`."""
    app = Flask("answering")

    @app.route("/", methods=["GET", "POST"])
    def answer() -> Response:
        content = body if isinstance(body, (str, bytes)) else json.dumps(body)
        response = Response(content, status, content_type="text/html" if content is body else "application/json")
        for name, values in headers.items():
            response.headers.pop(name.replace("_", "-"), None)
            for value in values if isinstance(values, list) else [values]:
                if value is not None:
                    response.headers.add(name.replace("_", "-"), value)
        return response

    return app


PAGE = "<h1>Orders</h1>\n<p>3 open</p>\n<p>end</p>"
PLANTED: dict[str, tuple[Flask, Flask, str]] = {
    "status": (answering("x"), answering("x", 404), "status: 200 → 404"),
    "media type": (answering("x"), answering("x", Content_Type="text/plain"), "media type: another value"),
    "charset": (answering("x", Content_Type="text/html; charset=utf-8"), answering("x"), "charset: set → absent"),
    "header gone": (answering("x", X_Frame_Options="DENY"), answering("x"), "header x-frame-options: set → absent"),
    "header new": (answering("x"), answering("x", X_New="1"), "header x-new: absent → set"),
    "header value": (answering("x", X_A="1"), answering("x", X_A="2"), "header x-a: another value"),
    "vary": (answering("x", Vary="A, B"), answering("x", Vary="B"), "header vary: another value"),
    "etag": (answering("x", ETag='"a"'), answering("x"), "header etag: set → absent"),
    "cookie gone": (answering("x", Set_Cookie="a=1"), answering("x"), "cookie a: set → absent"),
    "cookie value": (answering("x", Set_Cookie="a=1"), answering("x", Set_Cookie="a=2"), "cookie a: another value"),
    "cookie attribute": (
        answering("x", Set_Cookie="a=1; HttpOnly"),
        answering("x", Set_Cookie="a=1"),
        "cookie a httponly: set → absent",
    ),
    "cookie path": (
        answering("x", Set_Cookie="a=1; Path=/A"),
        answering("x", Set_Cookie="a=1; Path=/a"),
        "cookie a path: another value",
    ),
    "location": (
        answering("", 302, Location="/a"),
        answering("", 302, Location="http://localhost/b"),
        "header location: another value",
    ),
    "location elsewhere": (
        answering("", 302, Location="/a"),
        answering("", 302, Location="http://elsewhere.example/a"),
        "header location: another value",
    ),
    "header repeated": (
        answering("x", X_A=["1", "2"]),
        answering("x", X_A="1"),
        "header x-a: another value",
    ),
    "many lines": (answering("a\n" * 6000), answering("a\n" * 6001), "text: more than 5,000 lines"),
    "json type": (answering({"a": [{"b": 1}]}), answering({"a": [{"b": "1"}]}), "$.a[].b: number → string"),
    "json value": (answering({"a": 1}), answering({"a": 2}), "$.a: another value"),
    "json key gone": (answering({"a": 1, "b": {"c": 2}}), answering({"a": 1}), "$.b: object → absent"),
    "json key new": (answering({}), answering({"a": 1}), "$.a: absent → number"),
    "json null": (answering({"a": None}), answering({}), "$.a: null → absent"),
    "json length": (answering([1, 2]), answering([1]), "$: another length"),
    "json order": (answering([1, 2]), answering([2, 1]), "$[]: another value"),
    "json bool": (answering({"a": True}), answering({"a": 1}), "$.a: boolean → number"),
    "page line": (answering(PAGE), answering(PAGE.replace("3", "4")), "'<p>3 open</p>' → '<p>4 open</p>'"),
    "page line gone": (answering(PAGE), answering("<h1>Orders</h1>\n<p>end</p>"), "'<p>3 open</p>' → absent"),
    "bytes": (
        answering(b"\x00", Content_Type="image/png"),
        answering(b"\x01", Content_Type="image/png"),
        "body: another value",
    ),
    "length": (answering("x"), answering("x", Content_Length="5"), "answer: absent → Content-Length is wrong"),
    "body kind": (answering({"a": 1}), answering("x", Content_Type="application/json"), "body: JSON → invalid JSON"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_difference_is_found_and_named(name: str, diff: Diff) -> None:
    """Each is one kind, in all three forms."""
    old, new, title = PLANTED[name]
    outcome = diff(old, new, "--path", "/")
    assert outcome.code == (2 if name == "body kind" else 1)
    assert title in outcome.out
    assert len(json.loads(outcome.json)["differences"]) == 1
    where, _, _ = title.partition(": ")
    assert title.startswith("'") or where in outcome.markdown
    assert diff(old, old, "--path", "/").code == 0


ALIKE: dict[str, tuple[Flask, Flask]] = {
    "key order": (answering({"a": 1, "b": 2}), answering({"b": 2, "a": 1})),
    "10 and 10.0": (answering({"a": 10}), answering({"a": 10.0})),
    "charset quoted": (
        answering("x", Content_Type='text/html; version=1; charset="UTF-8"'),
        answering("x", Content_Type="text/html;charset=utf-8"),
    ),
    "cookie attributes": (
        answering("x", Set_Cookie="a=1; SameSite=lax; HttpOnly"),
        answering("x", Set_Cookie="a=1; httponly; SAMESITE=Lax"),
    ),
    "deflate": (
        answering(zlib.compress(b"x"), Content_Encoding="deflate"),
        answering(zlib.compress(b"x")[2:-4], Content_Encoding="deflate"),
    ),
    "ignored headers": (answering("x", Server="a", X_Request_Id="1"), answering("x", Server="b", X_Request_Id="2")),
    "etag": (answering("x", ETag='"a"'), answering("x", ETag='"b"')),
    "sets": (answering("x", Cache_Control="no-cache, private"), answering("x", Cache_Control="Private,no-cache")),
    "location": (answering("", 302, Location="http://localhost/a"), answering("", 302, Location="/a")),
    "gzip": (
        answering(gzip.compress(b"x"), Content_Encoding="gzip"),
        answering(gzip.compress(b"x", mtime=5), Content_Encoding="gzip"),
    ),
    "not JSON in both": (
        answering("NaN", Content_Type="application/json"),
        answering("NaN", Content_Type="application/json"),
    ),
}


@pytest.mark.parametrize("name", ALIKE)
def test_what_is_the_same_is_alike(name: str, diff: Diff) -> None:
    """Different spellings of the same content do not count."""
    outcome = diff(*ALIKE[name], "--path", "/")
    assert outcome.code == 0, outcome.out
    assert "alike: 1 request\n" in outcome.out


def noisy() -> Flask:
    """Return an app whose answers are never the same."""
    app = Flask("noisy")
    numbers = itertools.count()

    @app.get("/page")
    def page() -> Response:
        token = secrets.token_hex(16)
        number = next(numbers)
        rows = "".join(f"<p>row {n}</p>\n" for n in range(number % 3 + 1))  # another number in each pass
        text = f'<p>{number} visitors at {time.time()}</p>\n<input value="{token}">\n<p>same</p>\n{rows}'
        response = Response(text)
        response.set_cookie("csrf", token)
        response.headers["X-Time"] = str(time.time_ns())
        return response

    @app.get("/json")
    def data() -> Response:
        return jsonify(id=secrets.token_hex(8), at=time.time_ns(), by_id={secrets.token_hex(4): 1}, same=1)

    return app


def test_an_app_is_alike_to_itself(diff: Diff) -> None:
    """Random ids, times and tokens are noise, which is listed."""
    app = noisy()
    outcome = diff(app, app, "--path", "/page", "--path", "/json")
    assert outcome.code == 0, outcome.out
    assert "cookie csrf (once)" in outcome.out
    assert "lines of text (once)" in outcome.out
    assert json.loads(outcome.json)["noise"]["$.id"] == 1


def test_a_difference_beside_noise_is_found(diff: Diff) -> None:
    """A type that changes where only values are noise, and a line beside one with a token."""
    old, new = Flask("old"), Flask("new")

    @old.get("/")
    def old_view() -> Response:
        return jsonify(id=time.time_ns(), a=1)

    @new.get("/")
    def new_view() -> Response:
        return jsonify(id=str(time.time_ns()), a=2)

    outcome = diff(old, new, "--path", "/")
    assert "$.id: number → string, once, first GET /" in outcome.out
    assert "$.a: another value" in outcome.out


def test_kinds_are_grouped_and_have_hints(diff: Diff) -> None:
    """Each line says how often the kind occurred and which request showed it first."""
    old, new = answering([{"id": n} for n in range(30)]), answering([{"id": str(n)} for n in range(30)])
    outcome = diff(old, new, "--path", "/", "--path", "/?page=2")
    assert "$[].id: number → string, 60 times, first GET /\n" in outcome.out
    assert "hint: pydantic writes Decimal as a string" in outcome.out


def test_many_kinds_fit_on_a_screen_and_on_a_page(diff: Diff) -> None:
    """The rest is counted, and in the JSON."""
    old, new = ({f"key {n}": n + other for n in range(150)} for other in (0, 1000))
    outcome = diff(answering(old), answering(new), "--path", "/")
    lines = outcome.out.splitlines()
    assert len(lines) < 50
    assert "… and 130 more kinds: --json has all of them" in lines
    rows = [line for line in outcome.markdown.splitlines() if line.startswith("| ``")]
    assert len(rows) == 100
    assert "- 50 more kinds: --json has all of them" in outcome.markdown
    assert len(json.loads(outcome.json)["differences"]) == 150


@pytest.mark.parametrize(
    ("old", "new", "ignored"),
    [
        (answering("x", X_A="1"), answering("x", X_A="2"), "X-A"),
        (answering({"items": [{"id": 1}]}), answering({"items": [{"id": 2}]}), "$.items[*].id"),
        (answering({"items": [{"id": 1}]}), answering({"items": [{"id": 2}]}), "$.items"),
        (answering("x", Set_Cookie="a=1"), answering("x"), "set-cookie"),
        (answering("x"), answering("x", Content_Type="text/plain; charset=latin-1"), "Content-Type"),
        (answering(PAGE), answering("x"), "body"),
    ],
)
def test_what_is_ignored_does_not_count(old: Flask, new: Flask, ignored: str, diff: Diff) -> None:
    """A header can be ignored, and a JSON path with everything below it."""
    assert diff(old, new, "--path", "/").code == 1
    assert diff(old, new, "--path", "/", "--ignore", ignored).code == 0


def test_strict_tells_numbers_apart(diff: Diff) -> None:
    """Without --strict, 10 and 10.0 are the same."""
    assert "$.a: integer → decimal" in diff(answering({"a": 1}), answering({"a": 1.0}), "--path", "/", "--strict").out


def test_what_is_accepted_is_expected(diff: Diff) -> None:
    """For the requests that it was written for; another kind is still a difference."""
    old, new = answering({"a": 1, "token": "abcd1"}), answering({"a": "1", "token": "abcd2"})
    assert diff(old, new, "--path", "/", "--write-accept", "expected.json").code == 1
    outcome = diff(old, new, "--path", "/", "--accept", "expected.json")
    assert outcome.code == 0
    assert "2 expected differences" in outcome.out
    assert diff(old, new, "--path", "/?b", "--accept", "expected.json").code == 1
    assert diff(old, answering({"a": None}), "--path", "/", "--accept", "expected.json").code == 1
    text = Path("expected.json").read_text()
    Path("expected.json").write_text(text.replace('[\n        "GET /"\n      ]', '"*"'))
    assert diff(old, new, "--path", "/?b", "--accept", "expected.json").code == 0


def test_apps_of_either_kind_are_compared(diff: Diff) -> None:
    """The ASGI app runs on a loop, with its lifespan and its state."""
    from collections.abc import AsyncIterator
    from contextlib import asynccontextmanager

    from fastapi import Request

    events = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        events.append("start")
        yield {"name": "ada"}
        events.append("end")

    new = FastAPI(lifespan=lifespan)

    @new.post("/")
    async def hello(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{request.state.name} {(await request.body()).decode()}")

    old = Flask("old")

    @old.post("/")
    def old_hello() -> Response:
        return Response(f"ada {request.get_data(as_text=True)}", content_type="text/plain; charset=utf-8")

    har = {"log": {"entries": [entry("POST", "http://x/", postData={"text": "b"})]}}
    Path("site.har").write_text(json.dumps(har))
    outcome = diff(old, new, "--requests", "site.har", "--unsafe")
    assert outcome.code == 0, outcome.out + outcome.err
    assert events == ["start", "end"]


def test_an_app_that_raises_has_answered_500(diff: Diff) -> None:
    """The same in both is alike, one in one of them is a difference."""

    async def raising(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("a secret")

    assert diff(raising, raising, "--path", "/").code == 0
    outcome = diff(answering("x"), raising, "--path", "/")
    assert "status: 200 → 500" in outcome.out
    assert "a secret" not in "".join(map(str, outcome))


def test_headers_that_no_server_could_send_count_as_500(diff: Diff) -> None:
    """The app gets the error, as from a server."""

    def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("A", 1)])
        return []

    async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": [("a", "b")]})

    for app in (wsgi_app, asgi_app):
        assert "status: 200 → 500" in diff(answering("x"), app, "--path", "/").out


def test_a_status_that_the_old_app_itself_changes_is_noise(diff: Diff) -> None:
    """Nothing else of such an answer counts."""
    app, statuses = Flask("a"), itertools.cycle([200, 503])
    app.add_url_rule("/", "a", lambda: ("x", next(statuses)))
    outcome = diff(app, answering("y"), "--path", "/")
    assert outcome.code == 0, outcome.out
    assert "noise, which differs between two passes of the old app: status (once)" in outcome.out


@pytest.mark.parametrize(
    ("new", "code", "shown"),
    [
        ("number\n" + "a\n" * 6000 + "b\n", 0, "alike: 1 request"),
        ("number\n" + "a\n" * 6000 + "c\n", 1, "text: more than 5,000 lines, once, first GET /\n    b → absent"),
        ("number\n" + "b\n" + "a\n" * 6000, 1, "    a → b"),
        ("number\n" + "a\n" * 6001 + "b\n", 1, "    b → a"),
        ("number\nanother\n" + "a\n" * 6000 + "b\n", 1, "    6002 lines → 6003 lines"),
        ("number\n", 1, "    a → absent"),
    ],
)
def test_a_long_text_that_is_noisy_is_compared_by_its_steady_lines(diff: Diff, new: str, code: int, shown: str) -> None:
    """A line that differs between the old app's passes may be anything; the others may not."""
    app, numbers = Flask("a"), itertools.count()
    app.add_url_rule("/", "a", lambda: Response(f"{next(numbers)}\n" + "a\n" * 6000 + "b\n", content_type="text/html"))
    outcome = diff(app, answering(new), "--path", "/")
    assert (outcome.code, shown in outcome.out) == (code, True), outcome.out
    assert "noise, which differs between two passes of the old app: 1 line of text (once)" in outcome.out


def test_a_long_text_without_a_steady_line_cannot_be_compared(diff: Diff) -> None:
    """The sentence says why."""
    app, numbers = Flask("a"), itertools.count()
    app.add_url_rule("/", "a", lambda: Response(f"{next(numbers)}\n" * 6000))
    outcome = diff(app, answering("y"), "--path", "/")
    assert outcome.code == 2
    assert "GET /: no line of a text of more than 5,000 is the same in two passes of the old app" in outcome.out


def test_values_are_shown_as_what_they_are(diff: Diff) -> None:
    """Strings have quotes, numbers have none, and bytes have their length."""
    shown = {'"1" → "2"': ("1", "2"), "1 → 2": (1, 2), "1 → absent": (1, None)}
    for text, (old, new) in shown.items():
        pair = [answering({} if value is None else {"a": value}) for value in (old, new)]
        assert f"    {text}\n" in diff(*pair, "--path", "/").out
    images = [answering(body, Content_Type="image/png") for body in (b"abc", b"abcde")]
    assert re.search(r"    3 bytes, \w{4} → 5 bytes, \w{4}\n", diff(*images, "--path", "/").out)


def test_a_body_beyond_a_mebibyte_is_compared_by_its_beginning(diff: Diff) -> None:
    """The output says so."""
    old, new = answering("a" * 2**21), answering("a" * 2**20 + "b")
    outcome = diff(old, new, "--path", "/")
    assert outcome.code == 0
    assert "1 longer than 1 MiB" in outcome.out
    assert "1 longer than 1 MiB" in diff(old, answering("b"), "--path", "/").out


def entry(method: str, url: str, **others: Any) -> dict[str, Any]:
    return {"request": {"method": method, "url": url, "headers": [], **others}}
