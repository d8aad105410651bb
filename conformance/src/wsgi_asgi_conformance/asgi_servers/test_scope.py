"""The scope that an ASGI server builds from a request."""

import sys
from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.conftest import Start
from wsgi_asgi_conformance.notes import Notes
from wsgi_asgi_conformance.serving import RunningServer
from wsgi_asgi_conformance.types import Receive, Scope, Send

OK = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}


async def seen(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    """Note the scope, and answer."""
    notes("scope type", type(scope).__name__)
    notes("scope", dict(scope))
    notes("headers", [tuple(pair) for pair in scope["headers"]])
    notes("headers again", [tuple(pair) for pair in scope["headers"]])
    await send(OK)
    await send({"type": "http.response.body", "body": b"one"})


def scope_of(server: RunningServer, target: str | bytes = "/", **how: Any) -> Any:
    """Return the scope that the app gets for a request."""
    response, exchange = server.get(seen, target, **how)
    assert (response.status, response.body) == (200, b"one")
    return exchange.value("scope")


def headers_of(server: RunningServer, *headers: tuple[str, str | bytes], **how: Any) -> list[tuple[bytes, bytes]]:
    """Return the headers in the scope, as pairs."""
    _, exchange = server.get(seen, headers=list(headers), **how)
    found: list[tuple[bytes, bytes]] = exchange.value("headers")
    return found


@clause("ASGI-HTTP-008", "ASGI-CORE-015", "ASGI-CORE-024")
def test_a_request_is_a_scope_of_its_type(server: RunningServer) -> None:
    """The scope of a request has the type "http", and scope["asgi"] has a version."""
    scope = scope_of(server)
    assert scope["type"] == "http"
    assert isinstance(scope["asgi"]["version"], str)


@clause("ASGI-CORE-010")
def test_a_scope_is_a_dict(server: RunningServer) -> None:
    """A scope is a dict, not another mapping."""
    _, exchange = server.get(seen)
    assert exchange.value("scope type") == "dict"


@clause("ASGI-CORE-008")
def test_an_app_is_called_once_for_a_request(server: RunningServer) -> None:
    """The server calls the app once for each request, which is one connection in the spec's terms."""
    _, exchange = server.get(seen)
    assert len(exchange.values("called")) == 1


@clause("ASGI-CORE-014")
def test_an_app_is_called_with_positional_arguments(start: Start) -> None:
    """The server passes the arguments by position, because an app may give its parameters any names."""
    with start("positional") as server:
        assert server.get(seen)[0].status == 200


@clause("ASGI-CORE-020", "ASGI-HTTP-002")
def test_a_spec_version_is_one_that_there_is(server: RunningServer) -> None:
    """If scope["asgi"] has a spec_version, it is a str that names a published version of the HTTP spec."""
    versions = ("2.0", "2.1", "2.2", "2.3", "2.4", "2.5")
    assert scope_of(server)["asgi"].get("spec_version", "2.0") in versions


@clause("ASGI-CORE-040", "ASGI-CORE-012")
def test_a_scope_holds_what_may_cross_a_network(server: RunningServer) -> None:
    """Keys are str, and values are bytes, str, int, float, list, tuple, dict, bool or None; extensions may add more."""

    def check(value: Any, where: str) -> None:
        assert not (isinstance(value, str) and value.startswith("<") and value.endswith(">")), f"{where} is a {value}"
        if isinstance(value, dict):
            for key, inner in value.items():
                assert isinstance(key, str), f"{where} has the key {key!r}"
                check(inner, f"{where}[{key!r}]")
        elif isinstance(value, (list, tuple)):
            for inner in value:
                check(inner, where)

    scope = scope_of(server)
    check({key: value for key, value in scope.items() if key not in ("state", "extensions")}, "scope")


@clause("ASGI-CORE-038")
def test_extensions_are_dicts_by_name(server: RunningServer) -> None:
    """scope["extensions"] may be missing; otherwise it maps each name to a dict."""
    extensions = scope_of(server).get("extensions") or {}
    assert {name: value for name, value in extensions.items() if not isinstance(value, dict)} == {}


@clause("ASGI-TLS-001", "ASGI-TLS-002")
def test_a_plain_connection_has_no_tls(server: RunningServer) -> None:
    """The scope of a plain connection lacks the tls extension, which would mean that it is encrypted."""
    assert "tls" not in (scope_of(server).get("extensions") or {})


@clause("ASGI-HTTP-009")
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_http_version_is_the_requests(server: RunningServer, version: str) -> None:
    """http_version is what the request line says."""
    assert scope_of(server, version=version)["http_version"] == version


@clause("ASGI-HTTP-010", "ASGI-HTTP-090")
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PATCH", "OPTIONS", "PURGE"])
def test_the_method_is_the_requests(server: RunningServer, method: str) -> None:
    """method is a str in upper case; a method that HTTP does not define is passed on or refused."""
    response, exchange = server.get(seen, method=method)
    if method == "PURGE" and 400 <= response.status <= 501:
        return
    assert exchange.value("scope")["method"] == method


@clause("ASGI-HTTP-011")
def test_the_scheme_is_http(server: RunningServer) -> None:
    """scheme is "http" for a plain connection."""
    assert scope_of(server)["scheme"] == "http"


@clause("ASGI-HTTP-013")
@pytest.mark.parametrize(
    ("target", "path"),
    [("/a/b", "/a/b"), ("/a%20b?c=d", "/a b"), ("/%C3%A9", "/\xe9"), ("/a+b;c", "/a+b;c"), ("/a%25b", "/a%b")],
)
def test_the_path_is_decoded(server: RunningServer, target: str, path: str) -> None:
    """path is the target without its query, percent-decoded and then decoded as UTF-8."""
    assert scope_of(server, target)["path"] == path


@clause("ASGI-HTTP-014")
def test_a_path_that_is_not_utf8_is_answered(server: RunningServer) -> None:
    """For a path that is not UTF-8, the client gets the app's response or a refusal, not a dropped connection."""
    response, _ = server.get(seen, "/%ff%fe")
    assert response.status in (200, 400, 404)


@clause("ASGI-HTTP-015")
@pytest.mark.parametrize("target", ["/a%20b", "/%C3%A9?x=%20", "/a%2Fb"])
def test_the_raw_path_is_what_was_sent(server: RunningServer, target: str) -> None:
    """raw_path may be missing or None; otherwise it is the target's bytes before the query."""
    assert scope_of(server, target).get("raw_path") in (None, target.partition("?")[0].encode())


@clause("ASGI-HTTP-017", "ASGI-HTTP-110")
@pytest.mark.parametrize(
    ("target", "query"), [("/", b""), ("/?", b""), ("/?a=b%20c+d&e", b"a=b%20c+d&e"), ("/?a?b", b"a?b")]
)
def test_the_query_is_as_it_was_sent(server: RunningServer, target: str, query: bytes) -> None:
    """query_string is bytes, still percent-encoded, without the question mark."""
    assert scope_of(server, target).get("query_string", b"") == query


@clause("ASGI-HTTP-018")
def test_the_root_path_is_empty(server: RunningServer) -> None:
    """If the app is not mounted under a prefix, root_path is an empty str or missing."""
    assert scope_of(server).get("root_path", "") == ""


@clause("ASGI-HTTP-004", "ASGI-HTTP-021")
def test_headers_are_pairs_of_bytes(server: RunningServer) -> None:
    """Headers are pairs of bytes, and can be iterated over more than once."""
    _, exchange = server.get(seen)
    pairs = exchange.value("headers")
    assert pairs
    assert pairs == exchange.value("headers again")
    assert {(len(pair), *(type(part) for part in pair)) for pair in pairs} == {(2, bytes, bytes)}


@clause("ASGI-HTTP-022")
def test_repeated_headers_keep_their_order(server: RunningServer) -> None:
    """All values of a repeated header arrive, in the order in which they were sent."""
    headers = headers_of(server, ("X-One", "1"), ("X-Two", "2"), ("x-one", "3"))
    assert [value for name, value in headers if name.lower() == b"x-one"] == [b"1", b"3"]


@clause("ASGI-HTTP-024")
def test_header_names_are_in_lower_case(server: RunningServer) -> None:
    """Names of headers are in lower case, whatever case the client used."""
    headers = headers_of(server, ("X-UPPER-Case", "1"))
    assert (b"x-upper-case", b"1") in headers
    assert [name for name, _ in headers if name != name.lower()] == []


@clause("ASGI-HTTP-026")
def test_there_are_no_pseudo_headers(server: RunningServer) -> None:
    """There are no pseudo-headers, whose names start with a colon; the Host header names the host."""
    headers = headers_of(server)
    assert [name for name, _ in headers if name.startswith(b":")] == []
    assert (b"host", b"example.org") in headers


@clause("ASGI-HTTP-095")
def test_type_and_length_are_headers(server: RunningServer) -> None:
    """Content-Type and Content-Length are headers like all others."""
    headers = headers_of(server, ("Content-Type", "a/b; c=d"), method="POST", body=b"one")
    assert {(b"content-type", b"a/b; c=d"), (b"content-length", b"3")} <= set(headers)


@clause("ASGI-HTTP-109")
def test_header_values_may_have_any_letter(server: RunningServer) -> None:
    """Bytes from 0x80 in a header's value are passed on unchanged, unless the server refuses them."""
    response, exchange = server.get(seen, headers=[("X-One", b"caf\xc3\xa9 \xff")])
    if response.status != 400:
        assert (b"x-one", b"caf\xc3\xa9 \xff") in exchange.value("headers")


@clause("RFC9110-001")
@pytest.mark.parametrize("name", ["content-length", "CONTENT-LENGTH", "Content-Length"])
def test_names_of_headers_have_any_case(server: RunningServer, name: str) -> None:
    """The server recognises Content-Length in any case."""
    exchange = server.exchange(all_of_it).request("POST", headers=[(name, "3")], body=b"one")
    assert exchange.response().body == b"one"


async def all_of_it(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    """Answer with the request's body."""
    body, more_body = b"", True
    while more_body:
        message = await receive()
        body, more_body = body + message.get("body", b""), message.get("more_body", False)
    await send(OK)
    await send({"type": "http.response.body", "body": body})


@clause("RFC9110-003")
def test_whitespace_around_a_value_is_not_of_it(server: RunningServer) -> None:
    """Spaces and tabs around a header's value are stripped."""
    assert (b"x-one", b"1 2") in headers_of(server, ("X-One", " \t1 2\t "))


@clause("RFC9110-003")
@pytest.mark.parametrize("value", [b"a\x00b", b"a\rb", b"a\nb"], ids=["nul", "cr", "lf"])
def test_control_characters_are_not_passed_on(server: RunningServer, value: bytes) -> None:
    """A header with CR, LF or NUL in its value is refused, or the app sees a value without them."""
    exchange = server.exchange(seen).request(headers=[("X-One", value)])
    exchange.client.rest()
    values = [found for pairs in exchange.values("headers") for name, found in pairs if name == b"x-one"]
    assert [found for found in values if set(found) & set(b"\x00\r\n")] == []


@clause("ASGI-HTTP-028")
def test_the_client_is_an_address_and_a_port(server: RunningServer) -> None:
    """client is None, or the address and port that the client connects from."""
    exchange = server.exchange(seen)
    port = exchange.client.socket.getsockname()[1]
    exchange.request().response()
    client = exchange.value("scope").get("client")
    assert client is None or list(client) == ["127.0.0.1", port]


@clause("ASGI-HTTP-030")
def test_the_server_is_an_address_and_a_port(server: RunningServer) -> None:
    """server is None, or the host and port that the client connects to."""
    found = scope_of(server).get("server")
    assert found is None or (isinstance(found[0], str) and found[1] == server.port and len(found) == 2)


@clause("RFC9112-005")
def test_a_target_may_be_absolute(server: RunningServer) -> None:
    """If the target is a URL, as in requests to proxies, path is that of the URL."""
    scope = scope_of(server, "http://example.org/a?b=c")
    assert (scope["path"], scope["query_string"]) == ("/a", b"b=c")


@clause("RFC9112-006")
def test_a_request_has_one_host(server: RunningServer) -> None:
    """The server answers a request with two different Host headers with 400."""
    exchange = server.exchange(seen)
    exchange.client.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n")
    assert exchange.response().status == 400


async def changes(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    """Change the scope, as middleware does."""
    notes("mine", scope.get("mine"))
    notes("path", scope["path"])
    scope["mine"] = scope["path"] = scope["root_path"] = "/changed"
    scope["query_string"], scope["headers"] = b"changed", []
    await send(OK)
    await send({"type": "http.response.body", "body": b"one"})


@clause("ASGI-CORE-010", "ASGI-CORE-027", "ASGI-HTTP-003")
def test_a_connection_has_a_new_scope_for_each_request(server: RunningServer) -> None:
    """An app's changes to its scope do not reach the next request on the same connection."""
    exchange = server.exchange(changes)
    for number in (1, 2, 3):
        exchange.request(target=f"/{number}", close=False)
        assert exchange.response().body == b"one"
    assert exchange.values("mine") == [None, None, None]
    assert exchange.values("path") == ["/1", "/2", "/3"]


@clause("ASGI-HTTP-003")
def test_requests_that_come_at_once_are_answered_in_order(server: RunningServer) -> None:
    """Requests that are pipelined on one connection are answered in order."""
    exchange = server.exchange(path)
    for name in ("one", "two", "three"):
        exchange.request(target=f"/{name}", close=name == "three")
    assert [exchange.response().body for _ in range(3)] == [b"/one", b"/two", b"/three"]


async def path(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    """Answer with the path."""
    await send({**OK, "headers": [(b"content-length", b"%d" % len(scope["path"]))]})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


async def library(scope: Scope, receive: Receive, send: Send, notes: Notes) -> None:
    """Note which library runs the loop, and the thread."""
    import sniffio

    notes("library", sniffio.current_async_library())
    notes("thread", sys.modules["threading"].get_ident())
    await send(OK)
    await send({"type": "http.response.body", "body": b"one"})


@clause("ASGI-CORE-002", "ASGI-CORE-003", "ASGI-LS-002")
def test_requests_run_on_the_loop_of_the_lifespan(server: RunningServer) -> None:
    """The app is awaited on one running loop: in one process, the lifespan and all requests have the same thread."""
    threads = set()
    for _ in range(5):
        _, exchange = server.get(library)
        assert exchange.value("library") in ("asyncio", "trio")
        (process,) = {pid for key, _, pid in exchange.notes.read() if key == "thread"}
        threads.add((process, exchange.value("thread")))
    lifespans = {(pid, value) for key, value, pid in server.lifespan() if key == "thread"}
    processes = {process for process, _ in threads}
    assert len(threads) == len(processes)
    assert threads <= lifespans or not lifespans
