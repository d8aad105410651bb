from typing import Any

import pytest

from bridge.sansio.request_name import request_name


@pytest.mark.parametrize(
    ("scope", "name"),
    [
        ({"type": "http", "method": "GET", "path": "/a/b", "query_string": b"token=secret"}, "GET /a/b"),
        ({"type": "websocket", "path": "/chat", "query_string": b"token=secret"}, "WebSocket /chat"),
        ({"type": "http", "method": "GET", "path": "/a?b#c"}, "GET /a%3Fb%23c"),
        ({"type": "http", "method": "GET", "path": "/a\r\nERROR forged"}, "GET /a%0D%0AERROR%20forged"),
        ({"type": "http", "method": "GET", "path": "/caf\xe9\udcff"}, "GET /caf%C3%A9%3F"),
        ({"type": "http", "method": "GET", "path": "/" + "x" * 300}, "GET /" + "x" * 199),
        ({"type": "http"}, "None None"),
    ],
)
def test_a_request_is_named_by_its_method_and_path(scope: dict[str, Any], name: str) -> None:
    """Whatever a client sends, the name fits on one line, and leaves out the query, which may hold secrets."""
    assert request_name(scope) == name
