"""The WSGI apps that the ASGI servers serve, mounted in one ASGI app: `app`.

Besides its response, an app writes notes to stdout, one per line, each after the `id` of the request's query.
Tests read them from the server's output, whatever happened to the connection.
"""

import asyncio
import functools
import gzip
import itertools
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO
from urllib.parse import parse_qs

from bridge import ClientDisconnected, WSGIToASGI
from bridge.types import ASGIApp, Environ, Message, Receive, Scope, Send, StartResponse, WSGIApp

MIB = 1024 * 1024
TEXT = [("Content-Type", "text/plain")]


def _query(environ: Environ, name: str, default: str = "") -> str:
    query: str = environ["QUERY_STRING"]
    return parse_qs(query, errors="surrogateescape").get(name, [default])[0]


def _note(environ: Environ, text: str) -> None:
    os.write(1, f"{_query(environ, 'id')} {text}\n".encode())  # one write, so that lines stay whole


def _json(start_response: StartResponse, value: object) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(value).encode()]


# --- The request ----------------------------------------------------------------------------------

# Each way to read a body, as a function that reads a file in pieces. io.BytesIO shows what is right.
READS: dict[str, Callable[[BinaryIO], list[bytes]]] = {
    "read": lambda file: [file.read()],
    "read(-1)": lambda file: [file.read(-1)],
    "read(7)": lambda file: list(iter(functools.partial(file.read, 7), b"")),
    "readline": lambda file: list(iter(file.readline, b"")),
    "readline(7)": lambda file: list(iter(functools.partial(file.readline, 7), b"")),
    "readlines": lambda file: file.readlines(),
    "readlines(31)": lambda file: [b"".join(itertools.chain(*iter(functools.partial(file.readlines, 31), [])))],
    "iteration": list,
    "mix": lambda file: [file.read(3), file.readline(), *file.readlines(2), file.read(0), file.read(11), *file],
}


def body(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the pieces in which the body was read."""
    pieces = READS[_query(environ, "how", "read")](environ["wsgi.input"])
    return _json(start_response, [piece.decode("latin-1") for piece in pieces])


def variables(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the strings of the environ."""
    return _json(start_response, {key: value for key, value in environ.items() if isinstance(value, str)})


def upload(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Read a body in blocks; note its start, its length, and whether it was cut off."""
    _note(environ, "called")
    size = 0
    try:
        while block := environ["wsgi.input"].read(64 * 1024):
            size += len(block)
    except ClientDisconnected:
        _note(environ, "cut off")
        raise
    _note(environ, f"complete with {size}")
    return _json(start_response, size)


def duplex(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer each line before reading the next."""
    start_response("200 OK", TEXT)
    for line in environ["wsgi.input"]:
        yield line.upper()


def pausing(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Read a body in blocks, pause for six seconds after the first one, and send something during the pause."""
    start_response("200 OK", TEXT)
    size = len(environ["wsgi.input"].read(1000))
    for _ in range(12):
        yield b"working\n"
        time.sleep(0.5)
    yield b"%d" % (size + len(environ["wsgi.input"].read()))


# --- The response ---------------------------------------------------------------------------------


def empty(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the status in the query and without a body."""
    start_response(_query(environ, "status", "200 OK"), [])
    return iter(())


def late(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Call start_response only when the first block is asked for, as a generator does."""
    yield b""
    start_response("202 Accepted", TEXT)
    yield from (b"", b"one,", b"", b"two")


def written(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Use write() before the iterable."""
    write = start_response("200 OK", TEXT)
    write(b"one,")
    write(b"two,")
    return [b"three"]


def headers(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Send a header twice, and two cookies."""
    repeated = [("X-Word", "one"), ("Set-Cookie", "a=1; Path=/"), ("X-Word", "two"), ("Set-Cookie", "b=2")]
    start_response("200 OK", TEXT + repeated)
    return [b"hello"]


def replaced(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Fail before the first byte, and replace the response through exc_info."""
    start_response("200 OK", [("X-Word", "one")])
    try:
        raise ValueError("replaced")
    except ValueError:
        start_response("503 Service Unavailable", TEXT, sys.exc_info())
    return [b"sorry"]


def too_late_to_replace(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Fail after the first byte, and call start_response with exc_info, which raises."""
    start_response("200 OK", TEXT)
    yield b"x" * 1000
    try:
        raise ValueError("too late to replace")
    except ValueError:
        start_response("503 Service Unavailable", TEXT, sys.exc_info())
    yield b"sorry"


def early_error(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Raise after start_response and an empty block."""
    start_response("200 OK", TEXT)
    yield b""
    raise ValueError("early error")


def late_error(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Raise after the first block."""
    start_response("200 OK", TEXT)
    yield b"x" * 1000
    raise ValueError("late error")


def no_start(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Return a body without calling start_response."""
    return [b"hello"]


def declared(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Send `blocks` blocks of five bytes, and declare a Content-Length of `length`; both are in the query."""
    start_response("200 OK", [*TEXT, ("Content-Length", _query(environ, "length"))])
    for _ in range(int(_query(environ, "blocks"))):
        yield b"01234"


def sized(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Send `size` bytes in blocks of 1 MiB."""
    size = int(_query(environ, "size"))
    start_response("200 OK", [*TEXT, ("Content-Length", str(size))])
    block = bytes(MIB)
    return (block[: size - start] for start in range(0, size, MIB))


def file(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Send the file at the query's `path` from `offset` on: plain, unpacked, or a copy that close() deletes."""
    path, way = os.fsdecode(_query(environ, "path").encode("utf-8", "surrogateescape")), _query(environ, "way")
    content: Any
    if way == "gzip":
        content = gzip.open(path)  # noqa: SIM115  # the adapter closes it
    elif way == "temporary":
        content = tempfile.NamedTemporaryFile()  # noqa: SIM115
        shutil.copy(path, content.name)
    else:
        content = open(path, "rb")  # noqa: SIM115
    content.seek(int(_query(environ, "offset", "0")))
    start_response("200 OK", TEXT)
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](content)
    return wrapped


def close_error(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Raise in close(), some time after the response was complete."""

    class Body(list[bytes]):
        def close(self) -> None:
            time.sleep(0.1)
            raise ValueError("close error")

    start_response("200 OK", [*TEXT, ("Content-Length", "5")])
    return Body([b"hello"])


def hints(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Send early hints, if the server offers them."""
    if "wsgi.early_hints" in environ:
        environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload")])
    start_response("200 OK", TEXT)
    return [b"hello"]


# --- Clients that leave ---------------------------------------------------------------------------


def ticks(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Stream without end, one tick every 50 ms."""
    _note(environ, "called")
    start_response("200 OK", TEXT)
    try:
        while True:
            yield b"tick\n"
            time.sleep(0.05)
    finally:
        _note(environ, f"closed, disconnected is {environ['bridge.disconnected'].is_set()}")


def written_ticks(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Stream without end, by write()."""
    _note(environ, "called")
    write = start_response("200 OK", TEXT)
    try:
        while True:
            write(b"tick\n")
            time.sleep(0.05)
    except ClientDisconnected:
        _note(environ, f"closed, disconnected is {environ['bridge.disconnected'].is_set()}")
        raise


def empty_ticks(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Yield only empty blocks, like an app that has nothing to send yet."""
    _note(environ, "called")
    start_response("200 OK", TEXT)
    try:
        while True:
            yield b""
            time.sleep(0.05)
    finally:
        _note(environ, f"closed, disconnected is {environ['bridge.disconnected'].is_set()}")


def blocks(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Stream blocks of 1 MiB without end, and note each."""
    start_response("200 OK", TEXT)
    block = bytes(MIB)
    try:
        while True:
            _note(environ, "block")
            yield block
    finally:
        _note(environ, "closed")


def patient(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Wait for the client to leave before starting the response."""
    _note(environ, "called")
    _note(environ, f"disconnected is {environ['bridge.disconnected'].wait(20)}")
    return _json(start_response, "nobody there")


def accomplished(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Ask in close(), after a stream that ended normally, whether the client has left."""

    class Stream:
        def __iter__(self) -> Iterator[bytes]:
            yield b"one,"
            time.sleep(0.05)
            yield b"two"

        def close(self) -> None:
            _note(environ, f"disconnected is {environ['bridge.disconnected'].wait(0.1)}")

    start_response("200 OK", TEXT)
    return Stream()


# --- Threads --------------------------------------------------------------------------------------


def slow(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Take a third of a second to answer."""
    _note(environ, "called")
    time.sleep(0.3)
    return _json(start_response, "done")


def process(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the id of this process, which may be a child of the one that was started."""
    return _json(start_response, os.getpid())


_together = threading.Barrier(20)


def together(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer once 20 requests are here at the same time."""
    _together.wait(20)
    return _json(start_response, threading.current_thread().name)


def beside(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Read the body in another thread while sending the response, as a proxy does."""
    sizes: list[int] = []
    reader = threading.Thread(target=lambda: sizes.extend(map(len, iter(lambda: environ["wsgi.input"].read(7), b""))))
    reader.start()
    start_response("200 OK", TEXT)
    time.sleep(0.05)  # most likely the reader waits by now
    yield b"ready\n"
    for _ in range(100):
        yield bytes(100_000)
    reader.join(20)
    yield f"\n{sum(sizes)}".encode()


def left_reading(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """End the request while another thread still reads its body."""

    def read() -> None:
        try:
            while environ["wsgi.input"].read(1):
                _note(environ, "piece")
        finally:
            _note(environ, "reader ended")

    threading.Thread(target=read, daemon=True).start()
    start_response("200 OK", TEXT)
    time.sleep(0.05)  # most likely the reader waits by now
    return [b"hello"]


def read_too_late(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Read the body after the response is complete."""

    class Body(list[bytes]):
        def close(self) -> None:
            try:
                environ["wsgi.input"].read()
            finally:
                _note(environ, "reader ended")

    start_response("200 OK", [*TEXT, ("Content-Length", "5")])
    return Body([b"hello"])


ROUTES: dict[str, WSGIApp] = {
    app.__name__: app
    for app in (
        body,
        variables,
        upload,
        duplex,
        pausing,
        empty,
        late,
        written,
        headers,
        replaced,
        too_late_to_replace,
        early_error,
        late_error,
        no_start,
        declared,
        sized,
        file,
        close_error,
        hints,
        ticks,
        written_ticks,
        empty_ticks,
        blocks,
        patient,
        accomplished,
        slow,
        process,
        together,
        beside,
        left_reading,
        read_too_late,
    )
}


def raw(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Call the app that the path's first segment names."""
    return ROUTES[environ["PATH_INFO"].split("/")[1]](environ, start_response)


# --- Frameworks -----------------------------------------------------------------------------------
# Imported on first use, because most tests do not need them and servers start in half the time without them.


@functools.cache
def flask_app() -> ASGIApp:
    """Return a Flask app."""
    import flask

    app = flask.Flask(__name__)
    app.config["USE_X_SENDFILE"] = True

    @app.get("/file_of_the_proxy")
    def file_of_the_proxy() -> flask.Response:
        return flask.send_file(__file__)

    @app.post("/body")
    def body() -> dict[str, Any]:
        return {"body": flask.request.get_data(as_text=True)}

    @app.post("/lines")
    def lines() -> dict[str, Any]:
        return {"lines": [line.decode() for line in flask.request.stream]}

    @app.post("/form")
    def form() -> dict[str, Any]:
        content = flask.request.files["file"].read()
        return {"field": flask.request.form["field"], "size": len(content), "x": content.count(b"x")}

    @app.get("/stream")
    def stream() -> flask.Response:
        words = (f"{flask.request.args['word']} {number}\n" for number in range(3))
        return flask.Response(flask.stream_with_context(words), mimetype="text/plain")

    @app.get("/page")
    def page() -> flask.Response:
        response = flask.make_response("page")
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        response.add_etag()
        response.make_conditional(flask.request)
        return response

    @app.get("/error")
    def error() -> str:
        raise ValueError("a view failed")

    @app.get("/loop")
    async def loop() -> str:
        await asyncio.sleep(0)
        return str(id(asyncio.get_running_loop()))

    return WSGIToASGI(app)


@functools.cache
def django_app() -> ASGIApp:
    """Return a Django app, which reads a body without Content-Length only if the adapter buffers it."""
    import django.conf  # type: ignore[import-untyped]  # Django brings no types
    import django.core.wsgi  # type: ignore[import-untyped]
    from django.http import HttpResponse, JsonResponse, StreamingHttpResponse  # type: ignore[import-untyped]
    from django.urls import path  # type: ignore[import-untyped]

    def body(request: Any) -> Any:
        return JsonResponse({"body": request.body.decode()})

    def lines(request: Any) -> Any:
        return JsonResponse({"lines": [line.decode() for line in request]})

    def form(request: Any) -> Any:
        content = request.FILES["file"].read()
        return JsonResponse({"field": request.POST["field"], "size": len(content), "x": content.count(b"x")})

    def stream(request: Any) -> Any:
        return StreamingHttpResponse(f"{request.GET['word']} {number}\n" for number in range(3))

    def file_of_the_proxy(request: Any) -> Any:
        return HttpResponse(headers={"X-Accel-Redirect": "/files/a", "Content-Length": "1234"})

    async def loop(request: Any) -> Any:
        await asyncio.sleep(0)
        return HttpResponse(str(id(asyncio.get_running_loop())))

    urls = tuple(path(view.__name__, view) for view in (body, lines, form, stream, file_of_the_proxy, loop))
    django.conf.settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=urls, SECRET_KEY="of no use")
    app: WSGIApp = django.core.wsgi.get_wsgi_application()
    return WSGIToASGI(app, buffer_body=True)


# --- All of them ----------------------------------------------------------------------------------


async def native(scope: Scope, receive: Receive, send: Send) -> None:
    """Raise in mid-stream as a plain ASGI app, to show what the server does by itself."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
    raise ValueError("late error")


@functools.cache
def _lent(adapter: Any) -> ASGIApp:
    return WSGIToASGI(adapter.app, lend_loop=True)


_root = WSGIToASGI(raw)
_few = WSGIToASGI(raw, workers=4)
_mounted: dict[str, Callable[[], ASGIApp]] = {
    "few": lambda: _few,
    "flask": flask_app,
    "django": django_app,
    "flask_lent": lambda: _lent(flask_app()),
    "django_lent": lambda: _lent(django_app()),
    "native": lambda: native,
}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Call the app that is mounted at the path's first segment; `raw` gets everything else, and the lifespan."""
    name = scope["path"].split("/")[1] if scope["type"] == "http" else ""

    async def noting_send(message: Message) -> None:
        if message["type"] == "http.response.pathsend":
            _note({"QUERY_STRING": scope["query_string"].decode()}, "pathsend")
        await send(message)

    if name in _mounted:
        await _mounted[name]()({**scope, "root_path": f"{scope.get('root_path', '')}/{name}"}, receive, send)
    else:
        await _root(scope, receive, noting_send if name == "file" else send)
