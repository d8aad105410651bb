"""Requests in both directions: each environ and each scope has a counterpart, or is refused."""

from hypothesis import given

from bridge.errors import ClientProtocolError, ServerProtocolError
from bridge.sansio.announcement import Announcement, announcement_from_scope
from bridge.sansio.request import environ_from_scope, scope_from_environ
from bridge.sansio.request_headers import with_header_pairs
from bridge.sansio.shapes import SCOPES as SHAPES
from bridge.sansio.websocket import Refusal, is_websocket_request, maybe_refusal, websocket_scope_from_http
from bridge.types import Environ, Scope
from tests.fuzz.strategies import ENVIRONS, FUZZ, SCOPES, SPOILED_ENVIRONS, SPOILED_SCOPES

# The adapter also passes on control characters in a request's headers, because servers should have refused them.
LEFT_TO_SERVERS = "RFC9110-003"


def check_scope(scope: Scope) -> None:
    """Check a scope against the ASGI spec."""
    shape = SHAPES[scope["type"]]
    assert scope.keys() >= set(shape.required)
    for key, rules in shape.keys.items():
        if key in scope:
            kept = [rule for rule in rules if not rule.tolerated and rule.clause != LEFT_TO_SERVERS]
            assert all(rule.allows(scope[key]) for rule in kept), (key, scope[key])


@FUZZ
@given(ENVIRONS)
def test_any_environ_has_a_scope_or_is_refused(environ: Environ) -> None:
    """The scope follows the ASGI spec, and can be translated back to an environ."""
    try:
        scope = scope_from_environ(environ)
    except ServerProtocolError:
        assert not environ.get("REQUEST_METHOD")
        return
    except ClientProtocolError:
        assert environ.get("CONTENT_LENGTH") or "," in environ["HTTP_HOST"]
        return
    check_scope(scope)
    assert scope["path"].startswith(scope["root_path"])
    environ_from_scope(scope)


@FUZZ
@given(SCOPES)
def test_any_scope_has_an_environ_or_is_refused(scope: Scope) -> None:
    """The environ holds bytes as latin-1, and can be translated back to a scope; `test_apps` checks PEP 3333."""
    try:
        environ = environ_from_scope(scope)
    except ClientProtocolError:
        assert {name.lower() for name, _ in scope["headers"]} & {b"content-length", b"host"}
        return
    for value in environ.values():
        if isinstance(value, str):
            value.encode("latin-1")
    check_scope(scope_from_environ(environ))


@FUZZ
@given(SPOILED_ENVIRONS)
def test_any_value_in_an_environ_is_read_or_refused(environ: Environ) -> None:
    """A value that is not a str reaches no scope: it is skipped, or an error of the server."""
    environ = {"REQUEST_METHOD": "GET", **environ}
    try:
        maybe_refusal(environ)
        assert is_websocket_request(environ) in (True, False)
        check_scope(scope_from_environ(environ))
    except (ClientProtocolError, ServerProtocolError):
        pass


@FUZZ
@given(SPOILED_SCOPES)
def test_any_value_in_a_scope_is_read_or_refused(scope: Scope) -> None:
    """A value that breaks the ASGI spec is either read in the only sensible way, or an error of the server."""
    try:
        environ = environ_from_scope(with_header_pairs(scope))
        assert isinstance(announcement_from_scope(scope), Announcement)
    except (ClientProtocolError, ServerProtocolError):
        return
    assert all(isinstance(environ[key], str) for key in environ if key.isupper())


@FUZZ
@given(ENVIRONS)
def test_any_handshake_is_answered(environ: Environ) -> None:
    """A correct handshake has a websocket scope; any other is refused with a status and a sentence."""
    environ = {"REQUEST_METHOD": "GET", "HTTP_SEC_WEBSOCKET_VERSION": "13", **environ}
    assert is_websocket_request(environ) in (True, False)
    refusal = maybe_refusal(environ)
    assert refusal is None or (isinstance(refusal, Refusal) and refusal.status[:1] == "4" and refusal.text)
    try:
        check_scope(websocket_scope_from_http(scope_from_environ(environ)))
    except ClientProtocolError:
        assert refusal is not None
    except ServerProtocolError:
        assert not environ["REQUEST_METHOD"]
