"""Translate between the ASGI tls extension and Apache's SSL_* variables, which PEP 3333 suggests for WSGI."""

import functools
import ssl
from collections.abc import Mapping
from typing import Any

from bridge.types import Environ

_PROTOCOLS = {"SSLv3": 0x0300, "TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
_PROTOCOL_NAMES = {number: name for name, number in _PROTOCOLS.items()}


@functools.cache
def _cipher_suites() -> dict[str, int]:
    """Return the IANA numbers of the cipher suites that this OpenSSL knows, by OpenSSL's names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:COMPLEMENTOFALL")
    return {cipher["name"]: cipher["id"] & 0xFFFF for cipher in context.get_ciphers()}


def ssl_variables_from_tls(tls: Mapping[str, Any]) -> dict[str, str]:
    """Return the SSL_* variables for which the tls extension has a value. Raises TypeError if one is not a str."""
    variables = {}
    if (version := _PROTOCOL_NAMES.get(tls.get("tls_version") or 0)) is not None:
        variables["SSL_PROTOCOL"] = version
    if tls.get("cipher_suite"):
        names = [name for name, number in _cipher_suites().items() if number == tls["cipher_suite"]]
        if names:
            variables["SSL_CIPHER"] = names[0]
    if tls.get("server_cert"):
        variables["SSL_SERVER_CERT"] = tls["server_cert"]
    certificate, *issuers = [*(tls.get("client_cert_chain") or ())] or [""]
    if certificate:
        variables["SSL_CLIENT_CERT"] = certificate
    for index, issuer in enumerate(issuers):
        variables[f"SSL_CLIENT_CERT_CHAIN_{index}"] = issuer
    name, error = tls.get("client_cert_name"), tls.get("client_cert_error")
    if name:
        # Only this and the error may hold more than ASCII. The environ holds UTF-8 bytes as latin-1 (PEP 3333).
        variables["SSL_CLIENT_S_DN"] = name.encode("utf-8", "replace").decode("latin-1")
    verify = f"FAILED:{error}" if error else "SUCCESS" if certificate or name else "NONE"
    variables["SSL_CLIENT_VERIFY"] = verify.encode("utf-8", "replace").decode("latin-1")
    if not all(isinstance(value, str) for value in variables.values()):
        raise TypeError
    return variables


def maybe_tls_from_environ(environ: Environ) -> dict[str, Any] | None:
    """Return the tls extension of a TLS connection, or None if the server gives no details of its TLS.

    Raises TypeError if a variable that becomes text is not a str.
    """
    if not any(environ.get(name) for name in ("SSL_PROTOCOL", "SSL_CIPHER", "SSL_SERVER_CERT", "SSL_CLIENT_CERT")):
        return None
    chain = [environ["SSL_CLIENT_CERT"]] if environ.get("SSL_CLIENT_CERT") else []
    while chain and (issuer := environ.get(f"SSL_CLIENT_CERT_CHAIN_{len(chain) - 1}")):
        chain.append(issuer)
    name = environ.get("SSL_CLIENT_S_DN") or None
    if name is not None:
        name = name.encode("latin-1", "replace").decode("utf-8", "replace")
        if name.startswith("/"):  # OpenSSL's old one-line form, but the spec requires RFC 4514
            name = None
    if not all(isinstance(text, str) for text in (*chain, environ.get("SSL_SERVER_CERT") or "")):
        raise TypeError  # other variables may be ints, as some of cheroot's are
    verify = str(environ.get("SSL_CLIENT_VERIFY") or "")
    return {
        "server_cert": environ.get("SSL_SERVER_CERT") or None,
        # "client_cert_name ... must be present if the chain is": without a usable name, no chain.
        "client_cert_chain": chain if name else [],
        "client_cert_name": name,
        "client_cert_error": verify.partition(":")[2] or verify if verify.startswith("FAILED") else None,
        "tls_version": _PROTOCOLS.get(environ.get("SSL_PROTOCOL", "")),
        "cipher_suite": _cipher_suites().get(environ.get("SSL_CIPHER", "")),
    }
