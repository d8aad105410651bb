"""The target and paths of a request: `root_path`, `path` and `raw_path` <-> SCRIPT_NAME, PATH_INFO and RAW_URI."""

import re
import string
from urllib.parse import quote_from_bytes, unquote_to_bytes

from bridge.sansio.native_text import bytes_from_native, native_from_text
from bridge.types import Environ, Scope

# RFC 3986 3.3: a path may contain these as they are; everything else is percent-encoded.
_PATH_SAFE = "/:@!$&'()*+,;=-._~"
_PLAIN = (_PATH_SAFE + string.ascii_letters + string.digits).encode()
# cheroot leaves encoded slashes encoded; Apache does if it is configured to.
_ENCODED_SLASH = re.compile(rb"%(2[Ff])")

# RFC 9112 3.2.2: a target may be a whole URL, and most servers pass it on unchanged.
_SCHEME_AND_AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")


def _without_authority(target: str, root_path: str = "") -> str:
    """Return a target, or its path, without the scheme and authority of the absolute form.

    uvicorn puts its --root-path even in front of a whole URL.
    """
    rest = target.removeprefix(root_path.rstrip("/"))
    match = _SCHEME_AND_AUTHORITY.match(rest)
    if match is None:
        return target
    origin = rest[match.end() :]
    # RFC 9110 4.2.3: an empty path is the same as "/".
    return target[: len(target) - len(rest)] + (origin if origin.startswith("/") else f"/{origin}")


def script_name_and_path_info_from_scope(scope: Scope) -> tuple[str, str]:
    """Return SCRIPT_NAME and PATH_INFO: split `path` after `root_path`, once, at a segment boundary.

    The ASGI spec says that `path` begins with `root_path`. Older servers omit it behind a proxy that
    strips the prefix; `path` is then PATH_INFO unchanged.
    """
    path, root_path = scope["path"], scope.get("root_path") or ""
    if "://" in path:
        path = _without_authority(path, root_path)
    if not path.startswith("/"):  # the "*" of OPTIONS *, which CGI cannot express
        path = f"/{path}" if path not in ("", "*") else ""
    if root_path:
        root_path = root_path.strip("/")
        root_path = f"/{root_path}" if root_path else ""
        if path == root_path or path.startswith(f"{root_path}/"):
            path = path[len(root_path) :]
    root_name = native_from_text(root_path) if root_path else ""
    if path.isascii():
        return root_name, path
    path_info = native_from_text(path)
    if target := maybe_target_path(scope):
        path_info = _maybe_path_info_from_target(target, root_path, path) or path_info
    return root_name, path_info


def maybe_target_path(scope: Scope) -> str | None:
    """Return `raw_path` as a WSGI string, without an authority."""
    raw_path = scope.get("raw_path")
    if not raw_path:
        return None
    target: str = raw_path.decode("latin-1")
    return _without_authority(target, scope.get("root_path") or "") if "://" in target else target


def _maybe_path_info_from_target(target: str, root_path: str, path: str) -> str | None:
    """Recover the path's bytes from `raw_path`; return None if the two disagree.

    Servers decode bytes that are not UTF-8 to U+FFFD. They disagree if middleware has rewritten
    `path`, which then takes precedence.
    """
    raw = unquote_to_bytes(target.encode("latin-1"))
    if not raw.startswith(b"/"):
        raw = b"/" + raw  # as for `path`
    for prefix in (root_path.encode("utf-8", "replace"), b""):
        if raw.startswith(prefix) and raw[len(prefix) :].decode("utf-8", "replace") == path:
            return raw[len(prefix) :].decode("latin-1")
    return None


def paths_from_environ(environ: Environ) -> tuple[str, str, bytes]:
    """Return the scope's `root_path`, `path` (which begins with it) and `raw_path`.

    `raw_path` is the request target in RAW_URI or REQUEST_URI if it decodes to SCRIPT_NAME + PATH_INFO;
    otherwise it is SCRIPT_NAME + PATH_INFO, percent-encoded.
    """
    mounted = environ.get("SCRIPT_NAME")
    script_name = bytes_from_native(mounted).rstrip(b"/") if mounted else b""
    native = environ.get("PATH_INFO") or ""
    path_info = bytes_from_native(_without_authority(native) if "://" in native else native)
    raw_path = b""
    target = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if target and isinstance(target, str):
        candidate = bytes_from_native(_without_authority(target) if "://" in target else target).partition(b"?")[0]
        unquoted = unquote_to_bytes(candidate) if b"%" in candidate else candidate
        raw_path = _raw_path_from_target(candidate, unquoted, script_name, path_info)
        if not raw_path:
            if candidate == b"*" and not script_name and path_info in (b"", b"/*"):
                path_info = raw_path = b"*"  # WSGIToASGI and cheroot send this
            elif b"%2" in path_info:
                slashes_kept = unquote_to_bytes(_ENCODED_SLASH.sub(rb"%25\1", candidate))
                raw_path = _raw_path_from_target(candidate, slashes_kept, script_name, path_info)
                if raw_path:
                    path_info = unquoted[len(script_name) :] if raw_path == candidate else unquoted
    if not raw_path:
        raw_path = _quoted(script_name + path_info or b"/")
    root_path = script_name.decode("utf-8", "replace") if script_name else ""
    return root_path, root_path + path_info.decode("utf-8", "replace") or "/", raw_path


def _quoted(path: bytes) -> bytes:
    return quote_from_bytes(path, _PATH_SAFE).encode() if path.translate(None, _PLAIN) else path


def _raw_path_from_target(target: bytes, decoded: bytes, script_name: bytes, path_info: bytes) -> bytes:
    """Return the `raw_path` for a target that decodes to `decoded`; b"" if it names another path."""
    if _same_text(decoded, script_name + path_info or b"/"):
        return target
    if _same_text(decoded, path_info):  # the server got its SCRIPT_NAME from its configuration
        return _quoted(script_name) + target
    return b""


def _same_text(target: bytes, path: bytes) -> bool:
    """Return whether both are one path; some servers (Werkzeug's) replace bytes that are not UTF-8 by U+FFFD."""
    return target == path or target.decode("utf-8", "replace").encode() == path
