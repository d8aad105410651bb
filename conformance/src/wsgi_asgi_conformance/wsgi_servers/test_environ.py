"""The environ that a WSGI server builds from a request."""

import contextlib
from collections.abc import Iterable
from typing import Any
from wsgiref import validate as wsgiref_validate
from wsgiref.util import request_uri

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.notes import Notes
from wsgi_asgi_conformance.serving import RunningServer
from wsgi_asgi_conformance.types import Environ, StartResponse

TEXT = (("Content-Type", "text/plain"),)  # no list, because a server may change the list that it gets


def seen(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    """Note the environ, and answer."""
    notes("type", type(environ).__name__)
    notes("environ", {key: value for key, value in environ.items() if isinstance(key, str)})
    notes("types", {key: type(value).__name__ for key, value in environ.items()})
    start_response("200 OK", [*TEXT])
    return [b"one"]


def environ_of(server: RunningServer, target: str | bytes = "/", **how: Any) -> Any:
    """Return the environ that the app gets for a request."""
    response, exchange = server.get(seen, target, **how)
    assert (response.status, response.body) == (200, b"one")
    return exchange.value("environ")


@clause("P3333-011", "P3333-008", "P3333-004")
def test_an_app_is_called_once_with_two_arguments(server: RunningServer) -> None:
    """The server passes environ and start_response by position, to a plain function."""
    _, exchange = server.get(seen)
    assert exchange.values("called") == [(2, [])]


@clause("P3333-012")
def test_an_environ_is_a_dict(server: RunningServer) -> None:
    """environ is exactly a dict, not a subclass."""
    _, exchange = server.get(seen)
    assert exchange.value("type") == "dict"


@clause("P3333-001", "P3333-058")
def test_names_and_variables_are_str(server: RunningServer) -> None:
    """Each variable that CGI defines is exactly a str."""
    _, exchange = server.get(seen, "/a?b=c", method="POST", body=b"one", headers=[("Content-Type", "a/b")])
    types = exchange.value("types")
    assert {key: kind for key, kind in types.items() if key.isupper() and "." not in key and kind != "str"} == {}


@clause("P3333-003", "P3333-146")
def test_no_text_is_beyond_latin_1(server: RunningServer) -> None:
    """No string in environ has a character above 0xFF, because each character stands for one byte."""
    environ = environ_of(server, "/%E2%82%AC?%E2%82%AC", headers=[("X-One", b"\xe2\x82\xac")])
    texts = {key: value for key, value in environ.items() if isinstance(value, str)}
    assert {key: value for key, value in texts.items() if max(map(ord, value), default=0) > 0xFF} == {}


@clause("P3333-043", "ASGI-HTTP-089", "RFC3875-012")
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PATCH", "OPTIONS"])
def test_the_method_is_the_requests(server: RunningServer, method: str) -> None:
    """REQUEST_METHOD is the request's method."""
    assert environ_of(server, method=method)["REQUEST_METHOD"] == method


@clause("P3333-044", "RFC3875-013", "ASGI-HTTP-091")
def test_a_script_name_is_empty(server: RunningServer) -> None:
    """If the app is not mounted under a prefix, SCRIPT_NAME is empty or missing."""
    assert environ_of(server, "/a/b").get("SCRIPT_NAME", "") == ""


@clause("P3333-045", "ASGI-HTTP-092", "RFC3875-004", "RFC3875-005")
@pytest.mark.parametrize(
    ("target", "path"),
    [("/a/B", "/a/B"), ("/a%20b?c", "/a b"), ("/a%25b", "/a%b"), ("/a+b", "/a+b")],
)
def test_the_path_is_decoded(server: RunningServer, target: str, path: str) -> None:
    """PATH_INFO is percent-decoded, keeps the client's case, and leaves out the query."""
    assert environ_of(server, target)["PATH_INFO"] == path


@clause("ASGI-HTTP-106", "P3333-146")
@pytest.mark.parametrize(("target", "path"), [("/%C3%A9", "/\xc3\xa9"), ("/%e9", "/\xe9"), ("/%ff%fe", "/\xff\xfe")])
def test_octets_of_the_path_are_letters(server: RunningServer, target: str, path: str) -> None:
    """Each byte of the decoded path is one Latin-1 character of PATH_INFO, whatever encoding the client used."""
    assert environ_of(server, target)["PATH_INFO"] == path


@clause("RFC3875-006")
@pytest.mark.parametrize("target", ["//a//b", "/a;b=c", "/a/../b", "/a/./b"])
def test_a_path_is_not_made_shorter(server: RunningServer, target: str) -> None:
    """PATH_INFO keeps repeated slashes, parameters and dots, because they are the app's business."""
    assert environ_of(server, target)["PATH_INFO"] == target


@clause("P3333-046", "ASGI-HTTP-093", "ASGI-HTTP-110", "RFC3875-008")
@pytest.mark.parametrize(("target", "query"), [("/?a=b%20c+d&e", "a=b%20c+d&e"), ("/?a?b", "a?b"), ("/?", "")])
def test_the_query_is_as_it_was_sent(server: RunningServer, target: str, query: str) -> None:
    """QUERY_STRING is what the client sent, not decoded."""
    assert environ_of(server, target).get("QUERY_STRING", "") == query


@clause("RFC3875-007")
def test_there_is_always_a_query_string(server: RunningServer) -> None:
    """If the URL has no query, QUERY_STRING is set and empty, as CGI requires."""
    assert environ_of(server)["QUERY_STRING"] == ""


@clause("P3333-047", "P3333-048", "ASGI-HTTP-094", "RFC3875-001", "RFC3875-003")
def test_type_and_length_have_their_own_names(server: RunningServer) -> None:
    """CONTENT_TYPE and CONTENT_LENGTH are what the client sent."""
    environ = environ_of(server, method="POST", body=b"one", headers=[("Content-Type", "a/b; c=d")])
    assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]) == ("a/b; c=d", "3")


@clause("P3333-047", "P3333-048", "RFC3875-001", "RFC3875-003")
def test_nothing_is_made_up_for_type_and_length(server: RunningServer) -> None:
    """If the request lacks one of these headers, its variable is missing or empty."""
    environ = environ_of(server)
    assert environ.get("CONTENT_LENGTH", "") in ("", "0")
    assert environ.get("CONTENT_TYPE", "") == ""


@clause("RFC3875-023")
def test_type_and_length_have_no_other_names(server: RunningServer) -> None:
    """HTTP_CONTENT_TYPE and HTTP_CONTENT_LENGTH are never set, whatever the case of the headers."""
    environ = environ_of(server, method="POST", body=b"one", headers=[("CONTENT-TYPE", "a/b")])
    assert [key for key in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH") if key in environ] == []


@clause("P3333-049", "ASGI-HTTP-096", "RFC3875-015")
def test_a_server_has_a_name_and_a_port(server: RunningServer) -> None:
    """SERVER_NAME is not empty, and SERVER_PORT is the server's port in digits."""
    environ = environ_of(server)
    assert environ["SERVER_NAME"]
    assert environ["SERVER_PORT"] == str(server.port)


@clause("P3333-050", "ASGI-HTTP-098", "RFC3875-017")
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_protocol_is_the_requests(server: RunningServer, version: str) -> None:
    """SERVER_PROTOCOL has the version that the client speaks."""
    assert environ_of(server, version=version)["SERVER_PROTOCOL"] == f"HTTP/{version}"


@clause("P3333-051", "RFC3875-020", "RFC9110-001")
def test_each_header_is_a_variable(server: RunningServer) -> None:
    """The variable's name is HTTP_ and the header's name in upper case with underscores."""
    environ = environ_of(server, headers=[("X-One", "1"), ("x-two", "2")])
    assert (environ["HTTP_X_ONE"], environ["HTTP_X_TWO"], environ["HTTP_HOST"]) == ("1", "2", "example.org")
    assert environ.get("HTTP_ACCEPT") is None


@clause("RFC3875-021", "RFC9110-002")
def test_repeated_headers_are_one_value(server: RunningServer) -> None:
    """The server joins repeated headers with commas, in order."""
    value = environ_of(server, headers=[("X-One", "1"), ("X-One", "2")])["HTTP_X_ONE"]
    assert value.replace(" ", "") == "1,2"


@clause("RFC3875-022", "RFC6265-001")
def test_repeated_cookies_are_joined_by_semicolons(server: RunningServer) -> None:
    """The server joins repeated cookies with semicolons, because a comma could be part of a value."""
    value = environ_of(server, headers=[("Cookie", "a=1"), ("Cookie", "b=2")])["HTTP_COOKIE"]
    assert value in ("a=1; b=2", "a=1;b=2")


@clause("RFC3875-024")
@pytest.mark.parametrize("second", ["3", "5"])
def test_two_lengths_are_not_glued(server: RunningServer, second: str) -> None:
    """A request with two Content-Lengths is refused, or the app sees one number."""
    exchange = server.exchange(seen)
    exchange.request("POST", headers=[("Content-Length", "3"), ("Content-Length", second)], body=b"one")
    with contextlib.suppress(AssertionError):
        response = exchange.response()
        assert response.status >= 400 or (second == "3" and exchange.value("environ")["CONTENT_LENGTH"] == "3")
        return
    assert exchange.client.ended


@clause("P3333-052", "ASGI-HTTP-097", "RFC3875-009")
def test_the_client_has_an_address(server: RunningServer) -> None:
    """REMOTE_ADDR is the address that the client connects from; REMOTE_PORT, if set, is its port."""
    exchange = server.exchange(seen)
    port = exchange.client.socket.getsockname()[1]
    exchange.request().response()
    environ = exchange.value("environ")
    assert environ["REMOTE_ADDR"] == "127.0.0.1"
    assert environ.get("REMOTE_PORT", str(port)) == str(port)


@clause("P3333-057")
def test_what_is_not_known_is_left_out(server: RunningServer) -> None:
    """No variable is None, and REMOTE_USER is missing, not empty, if nobody has logged in."""
    environ = environ_of(server)
    assert [key for key, value in environ.items() if value is None] == []
    assert environ.get("REMOTE_USER", "somebody") != ""


@clause("P3333-060")
def test_the_version_of_wsgi_is_a_tuple(server: RunningServer) -> None:
    """wsgi.version is the tuple (1, 0)."""
    assert environ_of(server)["wsgi.version"] == (1, 0)


@clause("P3333-061", "ASGI-HTTP-099")
def test_the_scheme_is_http(server: RunningServer) -> None:
    """wsgi.url_scheme is "http" for a plain connection."""
    assert environ_of(server)["wsgi.url_scheme"] == "http"


@clause("P3333-062", "P3333-064")
def test_there_are_always_streams(server: RunningServer) -> None:
    """wsgi.input and wsgi.errors are set, even for a request without a body."""
    environ = environ_of(server)
    assert {"wsgi.input", "wsgi.errors"} <= environ.keys()


@clause("P3333-067", "P3333-068", "P3333-069")
def test_the_flags_are_there(server: RunningServer) -> None:
    """wsgi.multithread and wsgi.multiprocess are set; wsgi.run_once is false, because more requests follow."""
    environ = environ_of(server)
    assert {type(environ[f"wsgi.{name}"]) for name in ("multithread", "multiprocess", "run_once")} <= {bool, int}
    assert not environ["wsgi.run_once"]


def overlaps(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    notes("began")
    notes("flags", (bool(environ["wsgi.multithread"]), bool(environ["wsgi.multiprocess"])))
    notes.wait("go on")
    start_response("200 OK", [*TEXT])
    return [b"one"]


@clause("P3333-067")
def test_requests_run_at_once_only_if_the_server_says_so(server: RunningServer) -> None:
    """If two requests run at once in one process, wsgi.multithread must be true."""
    first, second = (server.exchange(overlaps).request() for _ in range(2))
    with contextlib.suppress(AssertionError):
        first.value("began")
    ran = first if first.values("began") else second
    other = second if ran is first else first
    with contextlib.suppress(AssertionError):
        other.client.fill(0.3)
    processes = {pid for each in (first, second) for key, _, pid in each.notes.read() if key == "began"}
    both = bool(first.values("began")) and bool(second.values("began"))
    for each in (first, second):
        each.notes.open("go on")
    assert [each.response().body for each in (first, second)] == [b"one"] * 2
    if both and len(processes) == 1:
        assert first.value("flags")[0], "two requests ran at once, and wsgi.multithread is false"


@clause("P3333-070")
def test_names_of_the_servers_own_have_a_prefix(server: RunningServer) -> None:
    """The server's own keys are in lower case and contain a dot."""
    others = [key for key in environ_of(server) if not key.replace("_", "A").isalnum() or key != key.upper()]
    assert [key for key in others if key != key.lower() or "." not in key] == []


@clause("P3333-166")
def test_nothing_goes_past_wsgi(server: RunningServer) -> None:
    """Keys that start with "wsgi." are those of the PEP and of known extensions."""
    known = {f"wsgi.{name}" for name in ("version", "url_scheme", "input", "errors", "multithread", "multiprocess")}
    known |= {f"wsgi.{name}" for name in ("run_once", "file_wrapper", "input_terminated", "early_hints", "websocket")}
    found = {key for key in environ_of(server) if key.startswith("wsgi.")}
    assert found - known <= {"wsgi.date", "wsgi.concurrency", "wsgi.websocket_version"}


def checked(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    try:
        wsgiref_validate.check_environ(environ)  # type: ignore[attr-defined]  # public, but not to typeshed
    except AssertionError as error:
        notes("report", str(error))
    notes("uri", request_uri(environ))
    start_response("200 OK", [*TEXT])
    return [b"one"]


@clause("CONV-008")
def test_the_standard_librarys_validator_has_nothing_to_report(server: RunningServer) -> None:
    """wsgiref.validate finds no error in environ."""
    exchange = server.exchange(checked).request("POST", "/a?b", body=b"one")
    exchange.response()
    exchange.value("uri")
    assert exchange.values("report") == []


@clause("P3333-169")
def test_an_app_can_tell_its_url(server: RunningServer) -> None:
    """The PEP's algorithm rebuilds the URL that the client requested."""
    _, exchange = server.get(checked, "/a%20b?c=d")
    assert exchange.value("uri") == "http://example.org/a%20b?c=d"


@clause("CONV-005")
def test_an_underscore_does_not_pass_for_a_hyphen(server: RunningServer) -> None:
    """X_One is refused or left out, or the app can tell it from X-One."""
    exchange = server.exchange(seen).request(headers=[("X-One", "true"), ("X_One", "false")])
    if exchange.response().status == 200:
        assert exchange.value("environ")["HTTP_X_ONE"] == "true"


@clause("CONV-006")
def test_a_proxy_header_is_not_passed_on(server: RunningServer) -> None:
    """The Proxy header is dropped, because HTTP clients in the app would take HTTP_PROXY for a setting."""
    environ = environ_of(server, headers=[("Proxy", "http://evil.example")])
    assert environ.get("HTTP_PROXY") != "http://evil.example"  # it may be there, from the server's own environment


@clause("CONV-007")
def test_headers_do_not_replace_variables(server: RunningServer) -> None:
    """A header named like a variable does not replace it, because HTTP_ precedes the header's name."""
    environ = environ_of(server, headers=[("Request-Method", "EVIL"), ("Path-Info", "/evil"), ("Wsgi.input", "evil")])
    assert (environ["REQUEST_METHOD"], environ["PATH_INFO"]) == ("GET", "/")
    assert environ["wsgi.input"] != "evil"


@clause("CONV-003")
def test_a_raw_target_is_what_was_sent(server: RunningServer) -> None:
    """REQUEST_URI and RAW_URI may be missing; otherwise they are the request's target."""
    environ = environ_of(server, "/a%20b?c=%20")
    for key in ("REQUEST_URI", "RAW_URI"):
        assert environ.get(key, "/a%20b?c=%20").endswith("/a%20b?c=%20")


@clause("CONV-001")
def test_an_input_that_ends_is_said_to(server: RunningServer) -> None:
    """A server that decodes chunked bodies sets wsgi.input_terminated, because frameworks read none without it."""
    exchange = server.exchange(seen).request("POST", headers=[("Transfer-Encoding", "chunked")], body=b"0\r\n\r\n")
    if exchange.response().status != 200:
        pytest.skip("chunked bodies are refused")
    environ = exchange.value("environ")
    assert environ.get("wsgi.input_terminated") or environ.get("CONTENT_LENGTH") == "0"


@clause("RFC9110-003")
def test_whitespace_around_a_value_is_not_of_it(server: RunningServer) -> None:
    """Spaces and tabs around a header's value are stripped."""
    assert environ_of(server, headers=[("X-One", " \t1 2\t ")])["HTTP_X_ONE"] == "1 2"


@clause("RFC9110-003")
@pytest.mark.parametrize("value", [b"a\x00b", b"a\rb", b"a\nb"], ids=["nul", "cr", "lf"])
def test_control_characters_are_not_passed_on(server: RunningServer, value: bytes) -> None:
    """A header with CR, LF or NUL in its value is refused, or the app sees a value without them."""
    exchange = server.exchange(seen).request(headers=[("X-One", value)])
    exchange.client.rest()
    values = [environ.get("HTTP_X_ONE", "") for environ in exchange.values("environ")]
    assert [found for found in values if set(found) & set("\x00\r\n")] == []


@clause("RFC9112-005", "RFC9112-001")
def test_a_target_may_be_absolute(server: RunningServer) -> None:
    """If the target is a URL, as in requests to proxies, PATH_INFO is the path of the URL."""
    environ = environ_of(server, "http://example.org/a?b=c")
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == ("/a", "b=c")


@clause("RFC9112-001")
def test_options_of_the_whole_server_are_answered(server: RunningServer) -> None:
    """The server answers OPTIONS *, although * is not a path."""
    response, _ = server.get(seen, "*", method="OPTIONS")
    assert response.status in (200, 204, 400, 404, 405, 501)


@clause("RFC9112-006")
def test_a_request_has_one_host(server: RunningServer) -> None:
    """The server answers a request with two different Host headers with 400."""
    exchange = server.exchange(seen)
    exchange.client.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n")
    assert exchange.response().status == 400


def changes(environ: Environ, start_response: StartResponse, notes: Notes) -> Iterable[bytes]:
    """Change environ, as middleware does."""
    notes("mine", environ.get("mine"))
    notes("path", environ["PATH_INFO"])
    environ["mine"] = environ["PATH_INFO"] = environ["SCRIPT_NAME"] = "/changed"
    if environ["QUERY_STRING"] == "clear":
        environ.clear()
    start_response("200 OK", [*TEXT, ("Content-Length", "3")])
    return [b"one"]


@clause("P3333-013")
@pytest.mark.parametrize("target", ["/", "/?clear"])
def test_an_environ_is_the_apps_to_change(server: RunningServer, target: str) -> None:
    """The server sends the response even if the app has emptied its environ."""
    assert server.get(changes, target)[0].body == b"one"


@clause("P3333-014", "P3333-007")
def test_each_request_has_an_environ_of_its_own(server: RunningServer) -> None:
    """An app's changes to its environ do not reach the next request."""
    for number in (1, 2, 3):
        response, exchange = server.get(changes, f"/{number}")
        assert response.body == b"one"
        assert (exchange.value("mine"), exchange.value("path")) == (None, f"/{number}")
