"""The legal order of messages in both directions, as tables. Those for apps extend `bridge.sansio.messages`."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from bridge.sansio.messages import DONE, LIFESPAN, RESPONSE, WEBSOCKET, Order


def _with_all_extensions(order: Order) -> Order:
    """Add the extensions that the adapters do not offer.

    Push and zero copy send may come wherever a body may, and one debug message before everything else.
    """
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
    """The order of each side's messages, from the first state on, and where the app must not return yet."""

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
# Messages that answer one of the other side, which must have come before. websocket.accept and websocket.close are not
# among them, because the spec lets an app send them before it receives websocket.connect, as Starlette's close does.
AFTER: Final = {
    "websocket.receive": "websocket.accept",
    "lifespan.startup.complete": "lifespan.startup",
    "lifespan.startup.failed": "lifespan.startup",
    "lifespan.shutdown": "lifespan.startup.complete",
}
