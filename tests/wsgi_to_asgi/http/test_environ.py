"""The environ, and requests for which there is none."""

from collections.abc import Iterable
from typing import Any

import pytest

from bridge.types import Environ, StartResponse
from tests.fakes import http_scope, request
from tests.wsgi_to_asgi.http.apps import OK, answers, app_of


async def environ_of(adapter_options: dict[str, Any] | None = None, **scope: Any) -> Environ:
    seen: list[Environ] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(environ)
        start_response(OK, [])
        return []

    await request(app_of(app, **(adapter_options or {})), http_scope(**scope))
    return seen[0]


async def test_the_environ_has_what_wsgi_wants(capsys: pytest.CaptureFixture[str]) -> None:
    """The environ has the wsgi. variables of PEP 3333, with the right values."""
    environ = await environ_of()
    assert type(environ) is dict
    assert environ["wsgi.version"] == (1, 0)
    environ["wsgi.errors"].writelines(["a line\n", "another\n"])
    assert capsys.readouterr().err == "a line\nanother\n"
    assert environ["wsgi.input_terminated"] is True
    assert (environ["wsgi.multithread"], environ["wsgi.multiprocess"], environ["wsgi.run_once"]) == (True, True, False)
    assert (await environ_of({"workers": 1}))["wsgi.multithread"] is False
    assert (await environ_of({"multiprocess": False}))["wsgi.multiprocess"] is False
    assert environ["asgi.scope"]["type"] == "http"
    assert "wsgi.early_hints" not in environ


async def test_differing_content_lengths_are_answered_400() -> None:
    """A request with two Content-Lengths is answered 400 in plain words, and the app does not run."""
    server = await request(
        answers(b"never"), http_scope("POST", headers=[(b"content-length", b"3"), (b"content-length", b"5")])
    )
    assert (server.status, server.complete) == (400, True)
    assert b"Content-Length" in server.body
