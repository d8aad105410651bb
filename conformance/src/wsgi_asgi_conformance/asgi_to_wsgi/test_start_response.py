import re

import pytest

from wsgi_asgi_conformance import clause
from wsgi_asgi_conformance.apps import asgi_response, http_app
from wsgi_asgi_conformance.types import Receive, Scope, Send
from wsgi_asgi_conformance.wsgi_server import ToWSGI, WSGIServer


@clause("P3333-017")
def test_start_response_gets_positional_arguments(adapt: ToWSGI, serve: WSGIServer) -> None:
    """Servers may name the arguments as they like, so only their order counts."""
    request = serve(adapt(asgi_response(b"one"))).finish()
    assert [len(start.args) in (2, 3) and start.kwargs == {} for start in request.starts] == [True]


@clause("P3333-038")
@pytest.mark.parametrize("blocks", [(), (b"one",), (b"", b"one", b"two")], ids=["empty", "one", "late"])
def test_start_response_comes_before_the_first_block(
    adapt: ToWSGI, serve: WSGIServer, blocks: tuple[bytes, ...]
) -> None:
    """The adapter yields no byte of the body before it has called start_response, and has called it at the end."""
    request = serve(adapt(asgi_response(*blocks, status=201))).finish()
    kinds = [entry.kind for entry in request.log if entry.kind != "block" or entry.value]
    assert kinds.index("start_response") < (kinds.index("block") if "block" in kinds else kinds.index("exhausted"))
    assert request.status[:3] == "201"
    assert request.body == b"".join(blocks)


@clause("P3333-038")
def test_start_response_comes_before_a_block_of_an_error_page(adapt: ToWSGI, serve: WSGIServer) -> None:
    """If an app raises before it answers, no byte of the error page precedes start_response."""

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("no answer")

    request = serve(adapt(app)).until_ended()
    assert isinstance(request.error, ValueError) or request.status.startswith("500 ")


@clause("P3333-041")
def test_start_response_may_come_with_the_first_iteration(adapt: ToWSGI, serve: WSGIServer) -> None:
    """Whether early or late, the adapter has called it when it yields the first item, even an empty one."""
    request = serve(adapt(asgi_response(b"", b"one"))).finish()
    kinds = [entry.kind for entry in request.log]
    assert kinds.index("start_response") < kinds.index("block")


@clause("P3333-093")
@pytest.mark.parametrize("status", [200, 204, 299, 404, 418, 451, 500, 599])
def test_a_status_is_a_code_a_space_and_a_reason(adapt: ToWSGI, serve: WSGIServer, status: int) -> None:
    """Unregistered codes have a reason as well."""
    request = serve(adapt(asgi_response(status=status))).finish()
    assert re.fullmatch(rf"{status} \S(.*\S)?", request.status)


@clause("P3333-094")
@pytest.mark.parametrize("status", [200, 404, 599])
def test_a_status_has_no_control_characters(adapt: ToWSGI, serve: WSGIServer, status: int) -> None:
    """The status holds nothing that would end the line or be displayed as something else."""
    assert serve(adapt(asgi_response(status=status))).finish().status.isprintable()


@clause("P3333-118")
def test_start_response_is_called_once_for_two_starts(adapt: ToWSGI, serve: WSGIServer) -> None:
    """A second http.response.start is refused, and does not reach the server."""
    errors: list[Exception] = []

    @http_app
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            await send({"type": "http.response.start", "status": 404, "headers": []})
        except Exception as error:
            errors.append(error)
        await send({"type": "http.response.body", "body": b"one"})

    request = serve(adapt(app)).until_ended()
    assert [start.args[0][:3] for start in request.starts] == ["200"]
    assert len(errors) == 1
