"""One side of a connection, the app or its server: what it may say next, and how its faults are reported."""

import warnings
from collections.abc import Mapping
from typing import Any

from bridge.errors import BridgeError
from bridge.sansio.messages import Order
from bridge.sansio.redacted import shown
from bridge.sansio.shapes import Shape


class ASGIWarning(Warning):
    """Issued for what the ASGI spec advises against, and for what it forbids but today's servers tolerate."""


class Side:
    """The app or the server of a connection. `state` is its place in the order of its messages.

    A side that is not `judged` may say what it wants, and its state moves as far as the order goes.
    """

    def __init__(self, name: str, error: type[BridgeError], order: Order, judged: bool = True) -> None:
        self.name = name
        self.error = error
        self.order = order
        self.judged = judged
        self.state = next(iter(order))
        self.types = {event.rstrip("+") for events in order.values() for event in events}

    def blame(self, text: str, section: str, clause: str, tolerated: bool = False) -> None:
        """Raise the error for what this side did, or warn if it is tolerated; `text` goes on after "the app"."""
        if not self.judged:
            return
        fault = self.error(f"the {self.name} {text} ({section}; {clause})")
        if not tolerated:
            raise fault
        warnings.warn(str(fault), ASGIWarning, stacklevel=2)

    def check(self, given: Mapping[str, Any], shape: Shape, what: str) -> None:
        """Raise unless a scope or message of this side has the given shape; warn where servers take more."""
        if not self.judged:
            return
        for key in shape.required:
            if key not in given:
                self.blame(f"{what} without {key!r}", shape.section, shape.keys[key][0].clause)
        values = [(f"{what} whose {key!r} must", given[key], shape.keys[key]) for key in shape.keys if key in given]
        for text, value, rules in [*values, (f"{what}, which must", given, shape.whole)]:
            for rule in rules:
                if not rule.allows(value):
                    self.blame(f"{text} {rule.text}, got {shown(value)}", shape.section, rule.clause, rule.tolerated)

    def step(self, event: str, shape: Shape, what: str) -> None:
        """Move to the state that `event` leads to, or raise if it may not come now."""
        events = self.order.get(self.state, {})
        if event in events:
            self.state = events[event]
            return
        legal = " or ".join(dict.fromkeys(repr(event.rstrip("+")) for event in events)) or "no message"
        self.blame(f"{what} where the spec allows {legal} ({self.state})", shape.section, shape.clause)
