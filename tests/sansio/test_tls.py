import ssl
from typing import Any

import pytest

from bridge.sansio.tls import maybe_tls_from_environ, ssl_variables_from_tls
from bridge.types import Environ

PEM = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"
SERVER, CLIENT, ISSUER, ROOT = (PEM.format(name) for name in ("c2VydmVy", "Y2xpZW50", "aXNzdWVy", "cm9vdA=="))


def tls_with(**keys: Any) -> dict[str, Any]:
    """Return the tls extension of a connection of which only `keys` are known."""
    return {
        "server_cert": None,
        "client_cert_chain": [],
        "client_cert_name": None,
        "client_cert_error": None,
        "tls_version": None,
        "cipher_suite": None,
        **keys,
    }


BOTH_WAYS: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"tls_version": 0x0300}, {"SSL_PROTOCOL": "SSLv3"}),
    ({"tls_version": 0x0301}, {"SSL_PROTOCOL": "TLSv1"}),
    ({"tls_version": 0x0302}, {"SSL_PROTOCOL": "TLSv1.1"}),
    ({"tls_version": 0x0303}, {"SSL_PROTOCOL": "TLSv1.2"}),
    ({"tls_version": 0x0304}, {"SSL_PROTOCOL": "TLSv1.3"}),
    ({"cipher_suite": 0x1301}, {"SSL_CIPHER": "TLS_AES_128_GCM_SHA256"}),
    ({"cipher_suite": 0xC02F}, {"SSL_CIPHER": "ECDHE-RSA-AES128-GCM-SHA256"}),
    ({"server_cert": SERVER}, {"SSL_SERVER_CERT": SERVER}),
    (
        {"tls_version": 0x0304, "client_cert_error": "certificate has expired"},
        {"SSL_PROTOCOL": "TLSv1.3", "SSL_CLIENT_VERIFY": "FAILED:certificate has expired"},
    ),
    (
        {"tls_version": 0x0304, "client_cert_error": "a:b"},
        {"SSL_PROTOCOL": "TLSv1.3", "SSL_CLIENT_VERIFY": "FAILED:a:b"},
    ),
    (
        {"tls_version": 0x0304, "client_cert_name": "CN=caf\xe9 \u4e2d,O=x"},
        {
            "SSL_PROTOCOL": "TLSv1.3",
            "SSL_CLIENT_S_DN": "CN=caf\xc3\xa9 \xe4\xb8\xad,O=x",
            "SSL_CLIENT_VERIFY": "SUCCESS",
        },
    ),
    (
        {"client_cert_chain": [CLIENT], "client_cert_name": "CN=x"},
        {"SSL_CLIENT_CERT": CLIENT, "SSL_CLIENT_S_DN": "CN=x", "SSL_CLIENT_VERIFY": "SUCCESS"},
    ),
    (
        {"client_cert_chain": [CLIENT, ISSUER, ROOT], "client_cert_name": "CN=x"},
        {
            "SSL_CLIENT_CERT": CLIENT,
            "SSL_CLIENT_CERT_CHAIN_0": ISSUER,
            "SSL_CLIENT_CERT_CHAIN_1": ROOT,
            "SSL_CLIENT_S_DN": "CN=x",
            "SSL_CLIENT_VERIFY": "SUCCESS",
        },
    ),
]


@pytest.mark.parametrize(("keys", "variables"), BOTH_WAYS)
def test_tls_is_the_same_both_ways(keys: dict[str, Any], variables: dict[str, str]) -> None:
    """Each key has a variable of Apache's mod_ssl (PEP 3333, environ Variables; ASGI TLS spec, Connection Scope)."""
    variables = {"SSL_CLIENT_VERIFY": "NONE", **variables}
    assert ssl_variables_from_tls(tls_with(**keys)) == variables
    assert maybe_tls_from_environ({"wsgi.url_scheme": "https", **variables}) == tls_with(**keys)


def test_tls_knows_every_cipher_suite_that_python_negotiates() -> None:
    """The number is IANA's, of 16 bits, and each name has one (ASGI TLS spec, Connection Scope)."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    for cipher in context.get_ciphers():
        tls = maybe_tls_from_environ({"wsgi.url_scheme": "https", "SSL_CIPHER": cipher["name"]})
        assert tls is not None
        assert 0 < tls["cipher_suite"] <= 0xFFFF
        assert ssl_variables_from_tls(tls)["SSL_CIPHER"] == cipher["name"]


def test_tls_knows_a_cipher_suite_that_is_off_by_default() -> None:
    """A server may be configured to use suites that Python does not (ASGI TLS spec, Connection Scope)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    on = {cipher["name"] for cipher in context.get_ciphers()}
    context.set_ciphers("ALL:eNULL")
    for cipher in context.get_ciphers():
        if cipher["name"] not in on:
            assert ssl_variables_from_tls({"cipher_suite": cipher["id"] & 0xFFFF})["SSL_CIPHER"] == cipher["name"]


@pytest.mark.parametrize(
    ("tls", "variables"),
    [
        ({}, {}),
        ({"server_cert": None, "tls_version": None, "cipher_suite": None}, {}),
        (tls_with(), {}),
        (tls_with(tls_version=0x9999, cipher_suite=0x9999), {}),
        (tls_with(tls_version=0, cipher_suite=0, server_cert=""), {}),
        ({"client_cert_chain": None}, {}),
        ({"client_cert_chain": (CLIENT,)}, {"SSL_CLIENT_CERT": CLIENT, "SSL_CLIENT_VERIFY": "SUCCESS"}),
        (
            {"client_cert_chain": (cert for cert in (CLIENT, ISSUER))},
            {"SSL_CLIENT_CERT": CLIENT, "SSL_CLIENT_CERT_CHAIN_0": ISSUER, "SSL_CLIENT_VERIFY": "SUCCESS"},
        ),
        ({"client_cert_name": "CN=x"}, {"SSL_CLIENT_S_DN": "CN=x", "SSL_CLIENT_VERIFY": "SUCCESS"}),
        (
            {"client_cert_chain": [CLIENT], "client_cert_name": "CN=x", "client_cert_error": "expired"},
            {"SSL_CLIENT_CERT": CLIENT, "SSL_CLIENT_S_DN": "CN=x", "SSL_CLIENT_VERIFY": "FAILED:expired"},
        ),
        ({"client_cert_name": "CN=\ud800"}, {"SSL_CLIENT_S_DN": "CN=?", "SSL_CLIENT_VERIFY": "SUCCESS"}),
    ],
)
def test_ssl_variables_are_of_what_is_known(tls: dict[str, Any], variables: dict[str, str]) -> None:
    """Optional keys may be missing, others None; a variable without a value is left out (ASGI TLS spec)."""
    assert ssl_variables_from_tls(tls) == {"SSL_CLIENT_VERIFY": "NONE", **variables}


def test_ssl_variables_of_a_chain_that_turns_out_empty() -> None:
    """The chain may be any iterable, even an empty one (ASGI TLS spec, Connection Scope)."""
    assert ssl_variables_from_tls({"client_cert_chain": iter(())}) == {"SSL_CLIENT_VERIFY": "NONE"}


@pytest.mark.parametrize("key", ["client_cert_name", "client_cert_error"])
@pytest.mark.parametrize("text", ["\u20ac", "\ud800"])
def test_ssl_variables_are_latin_1(key: str, text: str) -> None:
    """No code point above 0xFF reaches an app; in ASGI, both keys are Unicode (PEP 3333, Unicode Issues)."""
    for value in ssl_variables_from_tls({key: text}).values():
        value.encode("latin-1")


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"wsgi.url_scheme": "https"},
        {"wsgi.url_scheme": "https", "HTTPS": "on", "SSL_CLIENT_VERIFY": "NONE"},
        {"wsgi.url_scheme": "https", "SSL_PROTOCOL": "", "SSL_CIPHER": "", "SSL_SERVER_CERT": ""},
    ],
)
def test_tls_is_none_where_the_server_says_nothing_of_it(environ: Environ) -> None:
    """The extension may be absent on a connection with TLS (ASGI TLS spec, When to use)."""
    assert maybe_tls_from_environ(environ) is None


@pytest.mark.parametrize(
    ("variables", "keys"),
    [
        ({"SSL_PROTOCOL": "TLSv9", "SSL_SERVER_CERT": ""}, {}),
        ({"SSL_CIPHER": "ROT13"}, {}),
        ({"SSL_CIPHER": "ROT13", "SSL_CIPHER_USEKEYSIZE": 256}, {}),  # as cheroot sets it
        # A chain needs a name in the form of RFC 4514; OpenSSL's old one-line form is not that.
        ({"SSL_CLIENT_CERT": CLIENT, "SSL_CLIENT_VERIFY": "SUCCESS"}, {}),
        ({"SSL_CLIENT_CERT": CLIENT, "SSL_CLIENT_CERT_CHAIN_0": ISSUER, "SSL_CLIENT_S_DN": "/C=x/CN=y"}, {}),
        ({"SSL_CLIENT_CERT": CLIENT, "SSL_CLIENT_S_DN": ""}, {}),
        ({"SSL_SERVER_CERT": SERVER, "SSL_CLIENT_CERT_CHAIN_0": ISSUER}, {"server_cert": SERVER}),
        (
            {"SSL_CLIENT_CERT": CLIENT, "SSL_CLIENT_CERT_CHAIN_1": ROOT, "SSL_CLIENT_S_DN": "CN=x"},
            {"client_cert_chain": [CLIENT], "client_cert_name": "CN=x"},
        ),
        ({"SSL_PROTOCOL": "TLSv9", "SSL_CLIENT_S_DN": "CN=\xff"}, {"client_cert_name": "CN=\ufffd"}),
        ({"SSL_PROTOCOL": "TLSv9", "SSL_CLIENT_S_DN": "CN=\u20ac"}, {"client_cert_name": "CN=?"}),
        # mod_ssl's values are NONE, SUCCESS, GENEROUS and FAILED:reason.
        ({"SSL_PROTOCOL": "TLSv9", "SSL_CLIENT_VERIFY": "GENEROUS"}, {}),
        ({"SSL_PROTOCOL": "TLSv9", "SSL_CLIENT_VERIFY": None}, {}),
        ({"SSL_PROTOCOL": "TLSv9", "SSL_CLIENT_VERIFY": "FAILED"}, {"client_cert_error": "FAILED"}),
        ({"SSL_PROTOCOL": "TLSv9", "SSL_CLIENT_VERIFY": "FAILED:"}, {"client_cert_error": "FAILED:"}),
    ],
)
def test_tls_has_every_key_and_none_for_what_is_not_known(variables: Environ, keys: dict[str, Any]) -> None:
    """Mandatory keys are there, unknown values are None, a chain comes with a name (ASGI TLS spec)."""
    assert maybe_tls_from_environ({"wsgi.url_scheme": "https", **variables}) == tls_with(**keys)
