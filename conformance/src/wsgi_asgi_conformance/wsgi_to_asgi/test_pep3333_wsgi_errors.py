import io
import sys
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.asgi_server import ASGIServer, ToASGI
from wsgi_asgi_conformance.types import Environ, StartResponse

# Takes a function that uses wsgi.errors; returns the text that was written, wherever the adapter sent it.
Report = Callable[[Callable[[Any], object]], str]


@pytest.fixture
def report(
    adapt: ToASGI, serve: ASGIServer, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Report:
    """A function that lets an app use wsgi.errors, which the adapter may send to stderr, stdout or the log."""

    def report(tell: Callable[[Any], object]) -> str:
        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            tell(environ["wsgi.errors"])
            start_response("200 OK", [])
            return [b"body"]

        connection = serve(adapt(app)).finish()
        assert connection.body == b"body"
        out, err = capsys.readouterr()
        return out + err + caplog.text

    return report


def write_and_flush(stream: Any) -> None:
    stream.write("a\n")
    stream.flush()


@clause("P3333-089", "P3333-091")
def test_what_is_written_is_there_after_flush(report: Report) -> None:
    """Text that was passed to wsgi.errors.write() is reported by the next flush() at the latest."""
    assert report(write_and_flush) == "a\n"


@clause("P3333-064")
def test_errors_go_where_errors_go(adapt: ToASGI, serve: ASGIServer, capsys: pytest.CaptureFixture[str]) -> None:
    """wsgi.errors always exists, and is not stdout."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write_and_flush(environ["wsgi.errors"])
        start_response("200 OK", [])
        return []

    serve(adapt(app)).finish()
    assert capsys.readouterr().out == ""


@clause("P3333-088")
def test_flush_may_come_at_any_time(report: Report) -> None:
    """wsgi.errors.flush() works even if there is nothing to flush, and may be called again."""
    assert report(lambda stream: [stream.flush(), stream.write("a\n"), stream.flush(), stream.flush()]) == "a\n"


@clause("P3333-090")
@pytest.mark.parametrize("make", [list, tuple, iter], ids=["list", "tuple", "iterator"])
def test_lines_may_come_together(report: Report, make: Callable[[list[str]], Iterable[str]]) -> None:
    """wsgi.errors.writelines() takes any iterable of text, and adds nothing."""
    assert report(lambda stream: [stream.writelines(make(["a\n", "b\n"])), stream.flush()]) == "a\nb\n"


@clause("P3333-064", "P3333-065")
@pytest.mark.parametrize("errors", ["backslashreplace", "strict", None], ids=["ascii", "strict-ascii", "no-stderr"])
def test_any_text_may_be_written(
    adapt: ToASGI, serve: ASGIServer, monkeypatch: pytest.MonkeyPatch, errors: str | None
) -> None:
    """wsgi.errors accepts any text, whatever stderr is, even if there is none."""
    raised: list[Exception] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            environ["wsgi.errors"].write("\udc80 \u4e2d \U0001f600 \x00 \xe9\n")
            environ["wsgi.errors"].flush()
        except Exception as error:
            raised.append(error)
        start_response("200 OK", [])
        return []

    for name in ("stderr", "stdout"):
        stream = errors and io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors=errors)
        monkeypatch.setattr(sys, name, stream)
    serve(adapt(app)).finish()
    assert raised == []
