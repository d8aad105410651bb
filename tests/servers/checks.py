"""What an app of `frameworks` must do on any server. A failed check raises AssertionError with a sentence."""

import hashlib
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.processes import wait_until
from tests.servers.frameworks import FRAMEWORKS
from tests.servers.pairs import Served
from tests.servers.wsgi_servers import KINDS as WSGI_KINDS

MB = 1_000_000
UPLOAD = random.Random(1).randbytes(20 * MB)
DOWNLOAD = 50 * MB


def json(served: Served) -> None:
    """A JSON response."""
    answer = served.json("/json")
    assert answer == {"message": "héllo", "method": "GET"}, f"the app answered {answer}"


def head(served: Served) -> None:
    """A response to HEAD has no body, and the next one on the connection is whole."""
    for _ in range(2):
        length = len(served.client.get("/json").content)
        response = served.client.head("/json")
        assert response.status_code in (200, 405), f"HEAD is answered with {response.status_code}"
        if response.status_code == 200 and (given := response.headers.get("content-length")):
            # The body names the method, and HEAD is one letter longer than GET.
            assert int(given) in (length, length + 1), f"Content-Length is {given} for HEAD, and {length} for GET"
    _assert_no_body(served, "HEAD", "/json")


def head_of_a_stream(served: Served) -> None:
    """A response to HEAD has no body, and no wrong length if the app gives none."""
    response = served.client.head("/download", params={"size": 10}, headers={"Connection": "close"})
    assert response.status_code in (200, 405), f"HEAD is answered with {response.status_code}"
    length = response.headers.get("content-length")
    assert response.status_code == 405 or length in (None, "10"), f"Content-Length is {length}"
    _assert_no_body(served, "HEAD", "/download?size=10")


def _assert_no_body(served: Served, method: str, path: str) -> None:
    """Check on a plain socket that nothing follows the headers, because HTTP clients may hide it."""
    with served.server.connect() as connection:
        request = f"{method} {served.prefix}{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    body = answer.partition(b"\r\n\r\n")[2]
    assert not body, f"there is a body: {body!r:.100}"


def multipart(served: Served) -> None:
    """A form with a text and a file."""
    content = UPLOAD[:300_000]
    response = served.client.post(
        "/multipart", data={"name": "héllo"}, files={"upload": ("file.bin", content, "application/octet-stream")}
    )
    assert response.status_code == 200, f"the form is answered with {response.status_code}: {response.text:.200}"
    expected = {"name": "héllo", "filename": "file.bin", **_digest(content)}
    assert response.json() == expected, f"the app got {response.json()}"


def _digest(content: bytes) -> dict[str, object]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def upload(served: Served) -> None:
    """An upload of 20 MB arrives whole."""
    _upload(served, UPLOAD, chunked=False)


def chunked_upload(served: Served) -> None:
    """A chunked upload arrives whole."""
    _upload(served, UPLOAD[: 2 * MB], chunked=True)


def _upload(served: Served, content: bytes, chunked: bool) -> None:
    blocks = (content[start : start + 99_999] for start in range(0, len(content), 99_999))
    headers = {"Content-Type": "application/octet-stream"}
    response = served.client.post("/upload", content=blocks if chunked else content, headers=headers)
    assert response.status_code == 200, f"the upload is answered with {response.status_code}: {response.text:.200}"
    got = response.json()
    assert got["size"] == len(content), f"of {len(content)} bytes {got['size']} arrived"
    assert got == _digest(content), "not the bytes arrived that were sent"


def download(served: Served) -> None:
    """A download of 50 MB arrives whole."""
    size = 0
    with served.client.stream("GET", "/download", params={"size": DOWNLOAD}) as response:
        assert response.status_code == 200, f"the download is answered with {response.status_code}"
        for block in response.iter_raw():
            assert block.count(b"x") == len(block), "not the bytes arrived that were sent"
            size += len(block)
    assert size == DOWNLOAD, f"of {DOWNLOAD} bytes {size} arrived"


def events(served: Served) -> None:
    """Server-sent events arrive one by one."""
    count, pause = 5, 0.15
    arrivals: list[float] = []
    text = ""
    with served.client.stream("GET", "/events", params={"count": count, "pause": pause}) as response:
        kind = response.headers["content-type"]
        assert kind.startswith("text/event-stream"), f"the Content-Type is {kind}"
        for block in response.iter_text():
            text += block
            arrivals += [time.monotonic()] * block.count("\n\n")
    expected = "".join(f"data: {number}\n\n" for number in range(count))
    assert text == expected, f"{text!r} arrived"
    # Four pauses lie between the first and the last event, unless they were all held back until the end.
    took = arrivals[-1] - arrivals[0]
    assert took > pause * 2, f"events that leave {pause * (count - 1):g} s apart arrive within {took:.2f} s"


def client_leaves(served: Served) -> None:
    """A stream is closed when its client has left."""
    before = max(served.samples("/left", "left"))
    with served.client.stream("GET", "/events", params={"count": 10_000, "pause": 0.05}) as response:
        assert next(response.iter_text()).startswith("data: 0\n\n")
    wait_until(lambda: max(served.samples("/left", "left")) > before, 8, "the stream to be closed")


def cookies(served: Served) -> None:
    """Two Set-Cookie headers arrive as two, and several request cookies arrive."""
    served.client.cookies.clear()
    response = served.client.get("/cookies", headers={"Cookie": "one=1; two=2"})
    served.client.cookies.clear()
    assert response.json() == {"one": "1", "two": "2"}, f"the app got {response.json()}"
    sent = [cookie.partition(";")[0] for cookie in response.headers.get_list("set-cookie")]
    assert sorted(sent) == ["a=1", "b=2"], f"the cookies set are {sent}"


def unicode_path(served: Served) -> None:
    """A path and a query that are not ASCII arrive unchanged."""
    answer = served.json("/path/%C3%A9/%E2%82%AC%20x", q="ü")
    assert answer == {"path": "é/€ x", "query": {"q": "ü"}}, f"the app got {answer}"


def slash_in_path(served: Served) -> None:
    """A path with an encoded slash leads to a response."""
    answer = served.json("/path/a%2Fb")
    assert answer == {"path": "a/b", "query": {"q": None}}, f"the app got {answer}"


def no_content(served: Served) -> None:
    """A response with status 204 has no body, and the next one on the connection is whole."""
    _empty(served, 204)


def not_modified(served: Served) -> None:
    """A response with status 304 has no body, and the next one on the connection is whole."""
    _empty(served, 304)


def _empty(served: Served, status: int) -> None:
    for _ in range(2):
        response = served.client.get(f"/empty/{status}")
        assert response.status_code == status, f"the status is {response.status_code}"
    json(served)
    _assert_no_body(served, "GET", f"/empty/{status}")


def error_before(served: Served) -> None:
    """An error before the response is a 500."""
    response = served.client.get("/error-before")
    assert response.status_code == 500, f"the status is {response.status_code}"


def error_mid(served: Served) -> None:
    """A client can tell a response that an error cut short from a whole one."""
    received = b""
    try:
        with served.client.stream("GET", "/error-mid", timeout=3) as response:
            for block in response.iter_raw():
                received += block
    except httpx.TimeoutException:
        raise AssertionError(f"the connection stays open behind {received!r}") from None
    except httpx.TransportError:
        assert received in (b"first", b""), f"{received!r} arrived"
    else:
        raise AssertionError(f"{received!r:.60} looks like a whole response")


def twenty_at_once(served: Served) -> None:
    """Twenty requests at the same time each get their answer."""

    def request(number: int) -> None:
        slept = served.json("/slow", seconds=0.05)
        assert slept == {"slept": 0.05}, f"the app answered {slept}"
        answer = served.json(f"/path/{number}")["path"]
        assert answer == str(number), f"the answer to request {number} is that to {answer}"

    with ThreadPoolExecutor(20) as clients:
        list(clients.map(request, range(20)))


def context(served: Served) -> None:
    """A context variable that is set before the view is the same in view and body."""
    for value in ("one", "two"):
        text = served.client.get("/context", params={"value": value}).text
        assert text == f"{value} {value}", f"{value!r} is {text!r} in view and body"


def redirect(served: Served) -> None:
    """A redirect to a named route leads there, even if the app is mounted."""
    response = served.client.get("/redirect")
    assert 301 <= response.status_code < 309, f"the status is {response.status_code}"
    location = str(httpx.URL(f"{served.url}/redirect").join(response.headers["location"]))
    assert location == f"{served.url}/json", f"the redirect is to {location}"


def client_address(served: Served) -> None:
    """The app knows the client's address, the scheme and the host."""
    answer = served.json("/client")
    assert answer["client"] == "127.0.0.1", f"the client is {answer['client']}"
    assert answer["scheme"] == "http", f"the scheme is {answer['scheme']}"
    assert str(answer["host"]).partition(":")[0] == "127.0.0.1", f"the host is {answer['host']}"


def state(served: Served) -> None:
    """The lifespan has started once in each process, and each request has its state."""
    with ThreadPoolExecutor(4) as clients:
        answers = list(clients.map(lambda _: served.json("/state"), range(4)))
    assert {answer["started"] for answer in answers} == {1}, f"the app answered {answers}"


def background_tick(served: Served) -> None:
    """A task that the lifespan started runs between requests."""
    seen: set[int] = set()

    def more_than_processes() -> bool:
        seen.add(served.json("/ticks")["ticks"])
        time.sleep(0.1)  # the test is about a pause between requests
        return len(seen) > served.workers

    wait_until(more_than_processes, 5, "a tick between requests")


def docs(served: Served) -> None:
    """The docs page names a schema that exists."""
    page = served.client.get("/docs")
    assert page.status_code == 200, f"GET /docs is answered with {page.status_code}"
    schema = f"{served.prefix}/openapi.json"
    assert f"'{schema}'" in page.text, f"the docs page does not refer to {schema}"
    paths = served.json("/openapi.json")["paths"]
    assert "/multipart" in paths, f"the schema has only {list(paths)}"


def sigterm_ends(served: Served) -> None:
    """SIGTERM ends the server, even while a response is being sent."""
    assert served.end().seconds is not None, "the server still runs 10 s after SIGTERM"


def sigterm_lets_a_response_end(served: Served) -> None:
    """A response that is being sent at SIGTERM is completed, but `ASGIToWSGI` ends an event stream at once."""
    end = served.end()
    received = b"".join(end.events).count(b"data:")
    name, server = served.pair
    if FRAMEWORKS[name].asgi and server in WSGI_KINDS and received:
        assert not end.cut, f"the stream was cut after {received} events"
        return
    assert received == 6, f"of 6 events {received} arrived"


def lifespan_shutdown(served: Served) -> None:
    """The app's shutdown runs when the server ends."""
    pid = served.end().pid
    assert pid is not None, "the app did not answer before"
    served.wait_for_shutdown(pid)


Check = Callable[[Served], None]
FOR_ALL: tuple[Check, ...] = (
    *(json, head, head_of_a_stream, multipart, upload, chunked_upload, download, events, client_leaves, cookies),
    *(unicode_path, slash_in_path, no_content, not_modified, error_before, error_mid, twenty_at_once),
    *(context, redirect, client_address),
)
FOR_ASGI: tuple[Check, ...] = (state, background_tick)
AT_THE_END: tuple[Check, ...] = (sigterm_ends, sigterm_lets_a_response_end)


# The WSGI app and the ASGI app that measure what a server does natively.
NATIVE_FRAMEWORK = {False: "flask", True: "fastapi"}
ALL = (*FOR_ALL, *FOR_ASGI, docs, *AT_THE_END, lifespan_shutdown)


def checks_of(name: str, native: bool = False) -> list[Check]:
    """Return the checks for an app, in order. The last ones end the server."""
    left_out: set[Check] = set()
    if not FRAMEWORKS[name].asgi:
        left_out = {*FOR_ASGI, docs, lifespan_shutdown}
    elif not name.startswith("fastapi"):
        left_out = {docs}
    if native and name == NATIVE_FRAMEWORK[False]:
        left_out.remove(lifespan_shutdown)
    return [check for check in ALL if check not in left_out]


def maybe_failure(check: Check, served: Served) -> str | None:
    """Run a check; return what went wrong."""
    try:
        check(served)
    except AssertionError as error:
        return str(error) or "a claim failed that does not say what it is"
    except (httpx.HTTPError, OSError, ValueError, KeyError) as error:  # there was no answer, or not the expected kind
        return f"{type(error).__name__}: {error}"
    return None
