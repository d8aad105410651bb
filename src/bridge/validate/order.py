"""The legal order of messages, both ways, as tables: what `bridge.sansio.messages` has for apps, and the rest."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from bridge.sansio.messages import DONE, LIFESPAN, RESPONSE, WEBSOCKET, Order


def _with_all_extensions(order: Order) -> Order:
    """Add what the adapters do not offer: push and zero copy send where a body may come, one debug before all."""
    extended = {state: dict(events) for state, events in order.items()}
    for state, events in order.items():
        for event in ("http.response.body", "http.response.body+"):
            if event in events:
                extended[state]["http.response.push"] = state
                extended[state][event.replace("body", "zerocopysend")] = events[event]
    first = "nothing sent"
    extended["debug sent"] = {event: "debug sent" if to == first else to for event, to in extended[first].items()}
    extended[first]["http.response.debug"] = "debug sent"
    return extended


class Protocol(NamedTuple):
    """Who says what in which order, which begins at its first state; and when the app must not return yet."""

    from_server: Order
    from_app: Order
    unfinished: Mapping[str, str]  # state -> clause
    section: str  # of those clauses


PROTOCOLS: Final[Mapping[str, Protocol]] = {
    "http": Protocol(
        {
            "request due": {"http.request+": "request due", "http.request": "request ended", "http.disconnect": "gone"},
            "request ended": {"http.disconnect": "gone"},
            "gone": {"http.disconnect": "gone"},
        },
        _with_all_extensions(RESPONSE),
        {
            **dict.fromkeys(RESPONSE.keys() - {DONE}, "ASGI-HTTP-072"),
            **dict.fromkeys(("nothing sent", "debug sent"), "ASGI-HTTP-071"),
        },
        "ASGI HTTP spec, Response Start",
    ),
    "websocket": Protocol(
        {
            "connect due": {"websocket.connect": "connected"},
            "connected": {"websocket.receive": "connected", "websocket.disconnect": "gone"},
            "gone": {"websocket.disconnect": "gone"},
        },
        WEBSOCKET,
        {"connecting": "ASGI-WS-011", "denial started": "ASGI-WS-026"},
        "ASGI WebSocket spec, Connect",
    ),
    "lifespan": Protocol(
        {"startup due": {"lifespan.startup": "started"}, "started": {"lifespan.shutdown": "stopping"}},
        LIFESPAN,
        {"starting": "ASGI-LS-007", "serving": "ASGI-LS-019", "stopping": "ASGI-LS-026"},
        "ASGI lifespan spec",
    ),
}
# What is an answer to the other side, and so comes after it. Not so accept and close: in the spec's words
# they may come before the app has received its websocket.connect, and Starlette closes so.
AFTER: Final = {
    "websocket.receive": "websocket.accept",
    "lifespan.startup.complete": "lifespan.startup",
    "lifespan.startup.failed": "lifespan.startup",
    "lifespan.shutdown": "lifespan.startup.complete",
}
