from collections.abc import Callable, Iterable
from typing import Any

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.asgi_server import ASGIServer, ToASGI
from wsgi_asgi_conformance.samples import http_scope
from wsgi_asgi_conformance.types import Environ, StartResponse

PEM = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"
WHOLE = {
    "server_cert": PEM.format("server"),
    "client_cert_chain": [PEM.format("client"), PEM.format("issuer")],
    "client_cert_name": "CN=J\xe4n,O=Example",
    "client_cert_error": None,
    "tls_version": 0x0304,
    "cipher_suite": 0x1301,
}
NOTHING = {"server_cert": None, "tls_version": None, "cipher_suite": None}


def ssl_variables(environ: Environ) -> dict[str, Any]:
    """Return an environ's variables about TLS; skip the test if there are none."""
    variables = {key: value for key, value in environ.items() if key.startswith("SSL_")}
    if not variables:
        pytest.skip("the adapter passes on nothing from the tls extension")
    return variables


@clause("ASGI-TLS-003", "ASGI-EXT-017")
@pytest.mark.parametrize(
    "extensions", [None, {}, {"tls": NOTHING}, {"tls": WHOLE}], ids=["none", "no-tls", "bare", "tls"]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_scheme_says_whether_it_is_https(
    environ_for: Callable[..., Environ], scheme: str, extensions: dict[str, Any] | None
) -> None:
    """wsgi.url_scheme is the scope's scheme, with or without the extension, because a proxy may terminate TLS."""
    environ = environ_for(scheme=scheme, extensions=extensions)
    assert environ["wsgi.url_scheme"] == scheme
    assert environ.get("HTTPS", "on" if scheme == "https" else "off") in (["on", "1"] if scheme == "https" else ["off"])


@clause("ASGI-TLS-003")
def test_https_is_on_without_the_extension(environ_for: Callable[..., Environ]) -> None:
    """If the adapter sets HTTPS, its value depends on the scheme alone."""
    environ = environ_for(scheme="https", extensions={"tls": WHOLE})
    if "HTTPS" not in environ:
        pytest.skip("the adapter does not set HTTPS")
    assert environ_for(scheme="https")["HTTPS"] == environ["HTTPS"]


@clause("ASGI-TLS-011", "ASGI-EXT-017")
@pytest.mark.parametrize(
    "tls",
    [
        NOTHING,
        {**NOTHING, "client_cert_chain": [], "client_cert_name": None, "client_cert_error": None},
        {**WHOLE, "client_cert_chain": []},
        {
            **WHOLE,
            "client_cert_chain": (),
            "client_cert_error": "expired",
            "tls_version": 0x0A0A,
            "cipher_suite": 0xFFFF,
        },
        {key: WHOLE[key] for key in NOTHING},
    ],
    ids=["nothing", "all-none", "no-chain", "unknown", "no-client"],
)
def test_what_is_not_known_of_tls_may_be_missing(environ_for: Callable[..., Environ], tls: dict[str, Any]) -> None:
    """Missing values, None and unknown numbers cause no error and set no variables."""
    environ = environ_for(scheme="https", extensions={"tls": tls})
    assert environ["wsgi.url_scheme"] == "https"
    variables = [value for key, value in environ.items() if key.startswith("SSL_")]
    assert all(type(value) is str and value not in ("", "None") for value in variables)


@clause("ASGI-TLS-012", "ASGI-EXT-017")
def test_tls_is_in_apaches_variables(environ_for: Callable[..., Environ]) -> None:
    """Each value of the extension is a str in the variable that Apache has for it."""
    environ = environ_for(scheme="https", extensions={"tls": WHOLE})
    variables = ssl_variables(environ)
    assert all(type(value) is str for value in variables.values())
    assert variables["SSL_PROTOCOL"] == "TLSv1.3"
    assert variables.get("SSL_CIPHER", "TLS_AES_128_GCM_SHA256") == "TLS_AES_128_GCM_SHA256"
    assert variables["SSL_SERVER_CERT"] == WHOLE["server_cert"]
    assert variables["SSL_CLIENT_CERT"] == PEM.format("client")
    assert variables["SSL_CLIENT_S_DN"].encode("latin-1").decode() == "CN=J\xe4n,O=Example"
    assert variables["SSL_CLIENT_VERIFY"] == "SUCCESS"


@clause("ASGI-TLS-012")
@pytest.mark.parametrize(
    ("version", "name"), [(0x0300, "SSLv3"), (0x0301, "TLSv1"), (0x0302, "TLSv1.1"), (0x0303, "TLSv1.2")]
)
def test_versions_of_tls_have_apaches_names(environ_for: Callable[..., Environ], version: int, name: str) -> None:
    """SSL_PROTOCOL is Apache's name for the version of TLS."""
    environ = environ_for(scheme="https", extensions={"tls": {**WHOLE, "tls_version": version}})
    assert ssl_variables(environ)["SSL_PROTOCOL"] == name


@clause("ASGI-TLS-012")
@pytest.mark.parametrize(
    ("tls", "verify"),
    [
        ({"client_cert_chain": [], "client_cert_name": None}, "NONE"),
        ({"client_cert_error": "certificate has expired"}, "FAILED:certificate has expired"),
    ],
    ids=["no-certificate", "failed"],
)
def test_ssl_client_verify_says_how_it_went(
    environ_for: Callable[..., Environ], tls: dict[str, Any], verify: str
) -> None:
    """SSL_CLIENT_VERIFY is NONE without a client certificate, and FAILED with the reason if that was rejected.

    Without a certificate, the variables for its contents are missing.
    """
    environ = environ_for(scheme="https", extensions={"tls": {**WHOLE, **tls}})
    assert ssl_variables(environ)["SSL_CLIENT_VERIFY"] == verify
    if verify == "NONE":
        assert not environ.keys() & {"SSL_CLIENT_CERT", "SSL_CLIENT_S_DN"}


@clause("ASGI-TLS-013")
def test_tls_adds_no_events(adapt: ToASGI, serve: ASGIServer) -> None:
    """A response has the same messages with and without TLS."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "3")])
        return [environ["wsgi.input"].read()]

    adapter = adapt(app)
    plain = serve(adapter, http_scope("POST"), b"one").finish()
    secure = serve(adapter, http_scope("POST", scheme="https", extensions={"tls": WHOLE}), b"one").finish()
    assert secure.sent == plain.sent
