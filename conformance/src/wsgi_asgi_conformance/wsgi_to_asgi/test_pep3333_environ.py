import re
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.util import request_uri

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.asgi_server import ASGIServer, ToASGI
from wsgi_asgi_conformance.types import Environ, StartResponse

TLS: dict[str, Any] = {
    "server_cert": None,
    "client_cert_chain": [],
    "client_cert_name": None,
    "client_cert_error": None,
    "tls_version": 0x0304,
    "cipher_suite": 0x1301,
}
HOST = (b"host", b"example.org")
# A request with everything that a scope may hold, and one with as little as possible.
FULL: dict[str, Any] = {
    "method": "POST",
    "scheme": "https",
    "http_version": "2",
    "path": "/\u4e2d/\U0001f600",
    "root_path": "/\u4e2d",
    "query_string": b"a=%20&b=%FF",
    "headers": [
        HOST,
        (b"content-type", b"a/b; c=\xe9"),
        (b"content-length", b"0"),
        (b"x-bytes", bytes(range(128, 256))),
    ],
    "client": ["/run/\u4e2d", 0],
    "server": ["/run/\u4e2d", None],
    "extensions": {"tls": {**TLS, "client_cert_name": "CN=\u4e2d", "client_cert_error": "\u4e2d"}},
}
BARE: dict[str, Any] = {"http_version": "1.0", "headers": [], "client": None, "server": None, "extensions": None}


@pytest.fixture(params=[{}, FULL, BARE], ids=["plain", "full", "bare"])
def environ(environ_for: Callable[..., Environ], request: pytest.FixtureRequest) -> Environ:
    """The environ of a plain, a full and a bare request."""
    return environ_for("scheme" if request.param is BARE else "", **request.param)


@clause("P3333-001", "P3333-058")
def test_metadata_is_native_strings(environ: Environ) -> None:
    """All keys, and the values of CGI's variables, are exactly str."""
    assert {type(key) for key in environ} == {str}
    assert {key: value for key, value in environ.items() if "." not in key and type(value) is not str} == {}


@clause("P3333-003", "P3333-146")
def test_strings_hold_latin1_only(environ: Environ) -> None:
    """No string has a character above 0xFF, whatever the path, address or certificate is."""
    strings = {key: value for key, value in environ.items() if isinstance(value, str)}
    assert {key: value for key, value in strings.items() if max(value, default="") > "\xff"} == {}


@clause("P3333-003")
def test_a_string_is_bytes_read_as_latin1(environ_for: Callable[..., Environ]) -> None:
    """Bytes 0x80-0xFF of headers and query become the same code points; other text is encoded in UTF-8 first."""
    environ = environ_for(**{**FULL, "query_string": b"a=%20&b=\xff"})
    assert environ["HTTP_X_BYTES"] == "".join(map(chr, range(128, 256)))
    assert environ["CONTENT_TYPE"] == "a/b; c=\xe9"
    assert environ["QUERY_STRING"] == "a=%20&b=\xff"
    assert environ["SCRIPT_NAME"].encode("latin-1") == "/\u4e2d".encode()
    assert environ["PATH_INFO"].encode("latin-1") == "/\U0001f600".encode()


@clause("P3333-043")
@pytest.mark.parametrize("method", ["GET", "PURGE", "M-SEARCH"])
def test_request_method_is_the_method(environ_for: Callable[..., Environ], method: str) -> None:
    """REQUEST_METHOD is the client's method, even if it is not a standard one."""
    assert environ_for(method=method)["REQUEST_METHOD"] == method


@clause("P3333-044", "P3333-045")
@pytest.mark.parametrize(
    ("root_path", "path", "path_info"),
    [("", "/", "/"), ("", "/x", "/x"), ("/base", "/base", ""), ("/base", "/base/", "/"), ("/base", "/base/x", "/x")],
)
def test_a_path_is_that_of_the_app_and_the_rest(
    environ_for: Callable[..., Environ], root_path: str, path: str, path_info: str
) -> None:
    """SCRIPT_NAME is where the app is mounted, PATH_INFO is the rest of the path, and either may be empty."""
    environ = environ_for(root_path=root_path, path=path, raw_path=path.encode())
    assert environ.get("SCRIPT_NAME", "") == root_path
    assert environ.get("PATH_INFO", "") == path_info


@clause("P3333-046")
@pytest.mark.parametrize("query", ["", "a=1&b=%20+", "?", "%"])
def test_query_string_is_as_the_client_wrote_it(environ_for: Callable[..., Environ], query: str) -> None:
    """QUERY_STRING is what follows the first "?", and is not decoded."""
    assert environ_for(query_string=query.encode()).get("QUERY_STRING", "") == query


@clause("P3333-047", "P3333-048")
@pytest.mark.parametrize(("name", "value"), [("CONTENT_TYPE", "text/plain; charset=x"), ("CONTENT_LENGTH", "0")])
def test_content_variables_are_their_headers(environ_for: Callable[..., Environ], name: str, value: str) -> None:
    """CONTENT_TYPE and CONTENT_LENGTH have their header's value, if any, and do not also exist as HTTP_ variables."""
    header = (name.replace("_", "-").lower().encode(), value.encode())
    environ = environ_for(method="POST", headers=[HOST, header])
    assert environ[name] == value
    assert f"HTTP_{name}" not in environ
    assert environ_for(method="POST").get(name, "") == ""


@clause("P3333-049")
@pytest.mark.parametrize("headers", [[HOST], []], ids=["host", "no-host"])
@pytest.mark.parametrize(
    "server",
    [("192.0.2.2", 8000), ["192.0.2.2", 8000], ("::1", 80), None, ["/run/x.sock", None]],
    ids=["tuple", "list", "ipv6", "none", "unix-socket"],
)
def test_server_name_and_port_are_always_there(
    environ_for: Callable[..., Environ], server: Any, headers: list[tuple[bytes, bytes]]
) -> None:
    """SERVER_NAME and SERVER_PORT are non-empty strings for any server, even an unknown one."""
    for environ in (environ_for(server=server, headers=headers), environ_for("server", headers=headers)):
        name, port = environ["SERVER_NAME"], environ["SERVER_PORT"]
        assert (type(name), type(port)) == (str, str)
        assert name
        assert port.isdecimal()


@clause("P3333-050")
@pytest.mark.parametrize(
    ("version", "protocols"),
    [
        ("1.0", ["HTTP/1.0"]),
        ("1.1", ["HTTP/1.1"]),
        ("2", ["HTTP/2", "HTTP/2.0"]),
        ("3", ["HTTP/3", "HTTP/3.0"]),
    ],
)
def test_server_protocol_is_the_version(
    environ_for: Callable[..., Environ], version: str, protocols: list[str]
) -> None:
    """SERVER_PROTOCOL is HTTP, a slash and the request's version."""
    assert environ_for(http_version=version)["SERVER_PROTOCOL"] in protocols


@clause("P3333-051")
def test_each_header_is_an_http_variable(environ_for: Callable[..., Environ]) -> None:
    """Each header has an HTTP_ variable, except Content-Type and Content-Length, and nothing else has one."""
    names = [b"host", b"cookie", b"x-one", b"x-one", b"if-none-match", b"content-type", b"content-length", b"te"]
    environ = environ_for(method="POST", headers=[(name, b"0") for name in names])
    variables = {key for key in environ if key.startswith("HTTP_")}
    assert variables == {"HTTP_HOST", "HTTP_COOKIE", "HTTP_X_ONE", "HTTP_IF_NONE_MATCH", "HTTP_TE"}


@clause("P3333-052")
def test_other_cgi_variables_are_there_where_known(environ_for: Callable[..., Environ]) -> None:
    """REMOTE_ADDR is the client's address; REMOTE_PORT, if it is set, is its port as a str."""
    environ = environ_for(client=("192.0.2.7", 5))
    assert environ["REMOTE_ADDR"] == "192.0.2.7"
    assert environ.get("REMOTE_PORT", "5") == "5"


@clause("P3333-053")
def test_tls_is_told_in_apaches_variables(environ_for: Callable[..., Environ]) -> None:
    """HTTPS is "on" if there is TLS, and SSL_PROTOCOL names its version; without TLS, both are missing."""
    assert environ_for(scheme="https")["HTTPS"] == "on"
    environ = environ_for(scheme="https", extensions={"tls": TLS})
    assert (environ["HTTPS"], environ["SSL_PROTOCOL"]) == ("on", "TLSv1.3")
    assert [key for key in environ_for() if key.startswith(("HTTPS", "SSL_"))] == []


@clause("P3333-057")
def test_a_variable_without_a_value_is_left_out(environ_for: Callable[..., Environ]) -> None:
    """For an unknown client, REMOTE_HOST and REMOTE_USER are missing, and no variable is None."""
    environ = environ_for(**BARE)
    assert {"REMOTE_HOST", "REMOTE_PORT", "REMOTE_USER", "AUTH_TYPE"}.isdisjoint(environ)
    assert [key for key, value in environ.items() if value is None or value == "None"] == []


@clause("CONV-021")
@pytest.mark.parametrize("client", [None, ("", 0)], ids=repr)
def test_remote_addr_is_there_on_a_unix_socket(environ_for: Callable[..., Environ], client: Any) -> None:
    """Without an address, REMOTE_ADDR is empty, as on gunicorn, because many apps read it without a default."""
    assert environ_for(client=client)["REMOTE_ADDR"] == ""


@clause("P3333-059")
def test_the_process_environment_does_not_pass_for_the_request(
    environ_for: Callable[..., Environ], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Environment variables of the process override nothing in environ, and do not appear as headers."""
    for name in ("SCRIPT_NAME", "REMOTE_ADDR", "REMOTE_USER", "CONTENT_LENGTH", "HTTP_PROXY", "HTTP_COOKIE", "HTTPS"):
        monkeypatch.setenv(name, "7")
    environ = environ_for(client=("192.0.2.7", 5))
    assert environ.get("SCRIPT_NAME", "") == ""
    assert environ["REMOTE_ADDR"] == "192.0.2.7"
    assert environ.get("CONTENT_LENGTH", "") == ""
    assert {"REMOTE_USER", "HTTPS", "HTTP_PROXY", "HTTP_COOKIE"}.isdisjoint(environ)


@clause("P3333-060")
def test_wsgi_version_is_1_0(environ: Environ) -> None:
    """wsgi.version is the tuple (1, 0)."""
    assert type(environ["wsgi.version"]) is tuple
    assert environ["wsgi.version"] == (1, 0)


@clause("P3333-061")
def test_url_scheme_is_the_scheme(environ_for: Callable[..., Environ]) -> None:
    """wsgi.url_scheme is the scope's scheme, or ASGI's default, http."""
    assert environ_for(scheme="http")["wsgi.url_scheme"] == "http"
    assert environ_for(scheme="https")["wsgi.url_scheme"] == "https"
    assert environ_for("scheme")["wsgi.url_scheme"] == "http"


@clause("P3333-068")
def test_multiprocess_is_true_where_that_is_not_known(environ: Environ) -> None:
    """wsgi.multiprocess is true, because the server may run more processes."""
    assert environ["wsgi.multiprocess"]


@clause("P3333-068")
def test_multiprocess_is_false_where_the_adapter_is_told_so(adapt: ToASGI, serve: ASGIServer) -> None:
    """wsgi.multiprocess is false if the adapter is told that there is one process, because debuggers require it."""
    told: list[bool] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        told.append(bool(environ["wsgi.multiprocess"]))
        start_response("200 OK", [])
        return []

    try:
        adapter = adapt(app, multiprocess=False)
    except TypeError:
        pytest.skip("the adapter has no option named multiprocess")
    serve(adapter).finish()
    assert told == [False]


@clause("P3333-069")
def test_run_once_is_false(environ: Environ) -> None:
    """wsgi.run_once is false, because the process does not end with the request."""
    assert not environ["wsgi.run_once"]


@clause("P3333-070")
def test_names_of_the_adapters_own_are_lower_case_with_a_prefix(environ: Environ) -> None:
    """A key is upper case, as CGI's variables are, or lower case with a prefix and a dot."""
    others = [key for key in environ if not re.fullmatch("[A-Z][A-Z0-9_]*", key)]
    assert [key for key in others if not re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)+", key)] == []


@clause("P3333-166")
def test_nothing_in_environ_goes_past_wsgi(environ: Environ) -> None:
    """No value in environ lets an app send or receive behind the back of WSGI middleware."""
    values = [value for key, value in environ.items() if not key.startswith("wsgi.")]
    values += [inner for value in values if isinstance(value, dict) for inner in value.values()]
    assert [value for value in values if callable(value)] == []


@clause("P3333-169")
@pytest.mark.parametrize(
    ("url", "keys"),
    [
        ("http://example.org/", {}),
        ("http://example.org:8000/", {"headers": [(b"host", b"example.org:8000")]}),
        ("https://example.org/a?b=%20", {"scheme": "https", "path": "/a", "query_string": b"b=%20"}),
        ("http://example.org/base/a", {"root_path": "/base", "path": "/base/a"}),
        ("http://example.org/%E4%B8%AD%20", {"path": "/\u4e2d "}),
        ("http://192.0.2.2/", {"headers": []}),
        ("http://192.0.2.2:8000/", {"headers": [], "server": ("192.0.2.2", 8000)}),
        ("https://192.0.2.2/", {"headers": [], "server": ("192.0.2.2", 443), "scheme": "https"}),
        ("http://[2001:db8::1]:8000/", {"headers": [], "server": ("2001:db8::1", 8000)}),
    ],
)
def test_the_url_can_be_reconstructed(environ_for: Callable[..., Environ], url: str, keys: dict[str, Any]) -> None:
    """The PEP's algorithm reconstructs the requested URL from environ."""
    assert request_uri(environ_for(**keys)) == url
