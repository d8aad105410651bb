"""One side of a connection, the app or its server: what it may say next, and how its faults are reported."""

import warnings
from collections.abc import Mapping
from typing import Any

from bridge.errors import BridgeError
from bridge.sansio.messages import Order
from bridge.sansio.redacted import shown
from bridge.sansio.shapes import TOLERATED, Shape


class ASGIWarning(Warning):
    """Issued for what the ASGI spec advises against, and for what it forbids but every server tolerates."""


class Side:
    """The app or the server of a connection. `state` is its place in the order of its messages."""

    def __init__(self, name: str, error: type[BridgeError], order: Order) -> None:
        self.name = name
        self.error = error
        self.order = order
        self.state = next(iter(order))
        self.types = {event.rstrip("+") for events in order.values() for event in events}

    def fault(self, text: str, section: str, clause: str) -> BridgeError:
        """Return the error for what this side did; `text` goes on after "the app" or "the server"."""
        return self.error(f"the {self.name} {text} ({section}; {clause})")

    def check(self, given: Mapping[str, Any], shape: Shape, what: str) -> None:
        """Raise unless a scope or message of this side has the given shape; warn where the spec only advises it."""
        for key in shape.required:
            if key not in given:
                raise self.fault(f"{what} without {key!r}", shape.section, shape.keys[key][0].clause)
        values = [(f"{what} whose {key!r} must", given[key], shape.keys[key]) for key in shape.keys if key in given]
        for text, value, rules in [*values, (f"{what}, which must", given, shape.whole)]:
            for rule in rules:
                if not rule.allows(value):
                    fault = self.fault(f"{text} {rule.text}, got {shown(value)}", shape.section, rule.clause)
                    if rule.clause not in TOLERATED:
                        raise fault
                    warnings.warn(str(fault), ASGIWarning, stacklevel=2)

    def step(self, event: str, shape: Shape, what: str) -> None:
        """Move to the state that `event` leads to, or raise if it may not come now."""
        events = self.order.get(self.state, {})
        if event not in events:
            legal = " or ".join(dict.fromkeys(repr(event.rstrip("+")) for event in events)) or "no message"
            raise self.fault(f"{what} where the spec allows {legal} ({self.state})", shape.section, shape.clause)
        self.state = events[event]
