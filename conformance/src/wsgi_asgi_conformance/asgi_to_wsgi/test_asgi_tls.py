from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.asgi_to_wsgi.recording import Recording, scope_of
from wsgi_asgi_conformance.samples import http_environ
from wsgi_asgi_conformance.types import Environ
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIServer

CERTIFICATES = [
    f"-----BEGIN CERTIFICATE-----\n{content}\n-----END CERTIFICATE-----\n" for content in ("MIIA", "MIIB", "MIIC")
]
TLS = {"wsgi.url_scheme": "https", "HTTPS": "on", "SSL_PROTOCOL": "TLSv1.3", "SSL_CIPHER": "TLS_AES_128_GCM_SHA256"}
CLIENT = {"SSL_CLIENT_CERT": CERTIFICATES[0], "SSL_CLIENT_S_DN": "CN=client,O=Example", "SSL_CLIENT_VERIFY": "SUCCESS"}


def tls_of(adapt: ToWSGI, serve: WSGIServer, variables: Environ) -> Any:
    """Return the tls extension of a request over TLS with `variables`; skip the test if there is none."""
    scope = scope_of(adapt, serve, http_environ(**{**TLS, **variables}))
    if "tls" not in (scope.get("extensions") or {}):
        pytest.skip("the adapter makes no tls extension of SSL_* variables")
    return scope["extensions"]["tls"]


@clause("ASGI-TLS-001")
@pytest.mark.parametrize(
    "variables",
    [{}, {**TLS, **CLIENT}, {"HTTP_X_FORWARDED_PROTO": "https", "HTTP_SSL_PROTOCOL": "TLSv1.3"}],
    ids=["plain", "stray variables", "client's word"],
)
def test_there_is_no_tls_on_a_plain_connection(adapt: ToWSGI, serve: WSGIServer, variables: Environ) -> None:
    """If the server says http, there is no tls extension, whatever else the environ holds."""
    environ = http_environ(**{**variables, "wsgi.url_scheme": "http"})
    assert "tls" not in (scope_of(adapt, serve, environ).get("extensions") or {})


@clause("ASGI-TLS-002")
def test_tls_without_variables_is_absent_or_empty(adapt: ToWSGI, serve: WSGIServer) -> None:
    """If the server says only https, the adapter does not fail, and invents no value."""
    scope = scope_of(adapt, serve, http_environ(**{"wsgi.url_scheme": "https"}))
    assert (scope["type"], scope["scheme"]) == ("http", "https")
    tls = (scope.get("extensions") or {}).get("tls", {})
    assert [value for value in tls.values() if value not in (None, [], ())] == []


@clause("ASGI-TLS-004", "ASGI-EXT-017")
def test_tls_is_a_dict_with_all_that_is_mandatory(adapt: ToWSGI, serve: WSGIServer) -> None:
    """The extension is a dict with the three mandatory keys."""
    tls = tls_of(adapt, serve, {})
    assert type(tls) is dict
    assert tls.keys() >= {"server_cert", "tls_version", "cipher_suite"}


@clause("ASGI-TLS-005")
@pytest.mark.parametrize("certificate", [CERTIFICATES[0], None], ids=["given", "unknown"])
def test_server_cert_is_there_or_none(adapt: ToWSGI, serve: WSGIServer, certificate: str | None) -> None:
    """server_cert is SSL_SERVER_CERT, as PEM, or None."""
    assert tls_of(adapt, serve, {"SSL_SERVER_CERT": certificate})["server_cert"] == certificate


@clause("ASGI-TLS-006")
@pytest.mark.parametrize("length", [0, 1, 2, 3])
def test_client_cert_chain_begins_with_the_client(adapt: ToWSGI, serve: WSGIServer, length: int) -> None:
    """The client's certificate comes first, then the chain's in order; without one, the chain is empty."""
    variables: Environ = {f"SSL_CLIENT_CERT_CHAIN_{number}": CERTIFICATES[number + 1] for number in range(length - 1)}
    tls = tls_of(adapt, serve, {**(CLIENT if length else {}), **variables})
    assert list(tls.get("client_cert_chain", ())) == CERTIFICATES[:length]


@clause("ASGI-TLS-007")
@pytest.mark.parametrize(
    ("variables", "name", "chain"),
    [
        (CLIENT, "CN=client,O=Example", CERTIFICATES[:1]),
        ({**CLIENT, "SSL_CLIENT_S_DN": "CN=J\xc3\xbcrgen"}, "CN=Jürgen", CERTIFICATES[:1]),
        ({"SSL_CLIENT_S_DN": "CN=client"}, "CN=client", []),
        ({"SSL_CLIENT_S_DN": ""}, None, []),
        ({}, None, []),
    ],
    ids=["certificate", "UTF-8", "name alone", "empty", "none"],
)
def test_client_cert_name_is_the_subject(
    adapt: ToWSGI, serve: WSGIServer, variables: Environ, name: str | None, chain: list[str]
) -> None:
    """The name is SSL_CLIENT_S_DN, which may come without a chain."""
    tls = tls_of(adapt, serve, variables)
    assert tls.get("client_cert_name") == name
    assert list(tls.get("client_cert_chain", ())) == chain


@clause("ASGI-TLS-007")
@pytest.mark.parametrize("name", ["/O=Example/CN=client", "", None])
def test_client_cert_name_is_there_if_the_chain_is(adapt: ToWSGI, serve: WSGIServer, name: str | None) -> None:
    """If the subject is not in the form of RFC 4514, the extension has no chain without a name."""
    tls = tls_of(adapt, serve, {**CLIENT, "SSL_CLIENT_S_DN": name})
    if list(tls.get("client_cert_chain", ())):
        assert tls["client_cert_name"] == "CN=client,O=Example"
    else:
        assert tls.get("client_cert_name") in (None, "CN=client,O=Example")


@clause("ASGI-TLS-008")
@pytest.mark.parametrize("verified", ["SUCCESS", "NONE", "", None])
def test_client_cert_error_is_none_where_nothing_failed(adapt: ToWSGI, serve: WSGIServer, verified: str | None) -> None:
    """The error is None for a verified certificate, and without a certificate."""
    assert tls_of(adapt, serve, {**CLIENT, "SSL_CLIENT_VERIFY": verified}).get("client_cert_error") is None


@clause("ASGI-TLS-008")
@pytest.mark.parametrize("verified", ["FAILED:certificate has expired", "FAILED:", "FAILED"])
def test_client_cert_error_says_what_failed(adapt: ToWSGI, serve: WSGIServer, verified: str) -> None:
    """After a failed verification, the error is not empty, and holds the reason if there is one."""
    error = tls_of(adapt, serve, {**CLIENT, "SSL_CLIENT_VERIFY": verified})["client_cert_error"]
    assert type(error) is str
    assert verified.partition(":")[2] in error
    assert error


@clause("ASGI-TLS-009")
@pytest.mark.parametrize(
    ("protocol", "version"),
    [
        ("TLSv1", 0x0301),
        ("TLSv1.1", 0x0302),
        ("TLSv1.2", 0x0303),
        ("TLSv1.3", 0x0304),
        ("TLSv9", None),
        ("", None),
        (None, None),
    ],
)
def test_tls_version_is_a_number(adapt: ToWSGI, serve: WSGIServer, protocol: str | None, version: int | None) -> None:
    """SSL_PROTOCOL becomes its number in the TLS specifications, or None."""
    assert tls_of(adapt, serve, {"SSL_PROTOCOL": protocol})["tls_version"] == version


@clause("ASGI-TLS-010")
@pytest.mark.parametrize(
    ("cipher", "suite"),
    [
        ("TLS_AES_128_GCM_SHA256", 0x1301),
        ("TLS_AES_256_GCM_SHA384", 0x1302),
        ("ECDHE-RSA-AES128-GCM-SHA256", 0xC02F),
        ("NO-SUCH-CIPHER", None),
        (None, None),
    ],
)
def test_cipher_suite_is_a_number(adapt: ToWSGI, serve: WSGIServer, cipher: str | None, suite: int | None) -> None:
    """SSL_CIPHER, a name of OpenSSL's, becomes IANA's 16-bit number."""
    assert tls_of(adapt, serve, {"SSL_CIPHER": cipher})["cipher_suite"] == suite


@clause("ASGI-TLS-013")
def test_tls_changes_no_messages(adapt: ToWSGI, serve: WSGIServer) -> None:
    """A request over TLS has the same messages and the same response as one without."""
    apps = [Recording(), Recording()]
    for app, variables in zip(apps, ({}, {**TLS, **CLIENT}), strict=True):
        request = serve(adapt(app), http_environ("POST", "/", b"x" * 100_000, **variables)).finish()
        assert (request.status, request.body) == ("200 OK", b"done")
    assert apps[0].received == apps[1].received
