import copy
import errno
import itertools
import pickle
import re
from typing import Any

import pytest

from bridge import errors
from bridge.errors import AppProtocolError, BridgeError, ClientDisconnected
from bridge.sansio.messages import DONE, LIFESPAN, RESPONSE, Order, event_from_message, next_state

# --- Events -------------------------------------------------------------------------------------

START = "http.response.start"
BODY = "http.response.body"
TRAILERS = "http.response.trailers"


@pytest.mark.parametrize(
    ("message", "event"),
    [
        ({"type": START}, START),
        ({"type": START, "trailers": False}, START),
        ({"type": START, "trailers": True}, f"{START}+"),
        ({"type": START, "more_body": True}, START),
        ({"type": BODY}, BODY),
        ({"type": BODY, "more_body": False}, BODY),
        ({"type": BODY, "more_body": None}, BODY),
        ({"type": BODY, "more_body": True}, f"{BODY}+"),
        ({"type": BODY, "more_trailers": True}, BODY),
        ({"type": TRAILERS}, TRAILERS),
        ({"type": TRAILERS, "more_trailers": False}, TRAILERS),
        ({"type": TRAILERS, "more_trailers": True}, f"{TRAILERS}+"),
        ({"type": "http.response.pathsend", "more_body": True}, "http.response.pathsend"),
        ({"type": "lifespan.startup.complete"}, "lifespan.startup.complete"),
        ({"type": "unheard.of", "more_body": True}, "unheard.of"),
    ],
)
def test_event_is_the_type_and_whether_more_follows(message: dict[str, Any], event: str) -> None:
    """One key says whether more follows, by default not (ASGI HTTP spec; docs/extensions, HTTP Trailers)."""
    assert event_from_message(message) == event


class OnlyItems:
    def __getitem__(self, key: str) -> str:
        return START


@pytest.mark.parametrize(
    "message", [None, 5, "http.response.start", b"", [], (), {}, {"status": 200}, {"type": []}, OnlyItems()]
)
def test_event_of_what_is_no_message_is_refused(message: Any) -> None:
    """A message is a dict with a type (ASGI spec, Events)."""
    with pytest.raises(AppProtocolError, match="a dict with a str 'type', got"):
        event_from_message(message)


# --- Order --------------------------------------------------------------------------------------

# One letter per event, so that a regular expression can say again what is legal: a response is a start and then a
# file, or a body of one or more blocks; trailers follow if the start announced them; early hints come before the body
# (ASGI HTTP spec; docs/extensions).
LETTERS = {
    "h": "http.response.early_hint",
    "s": START,
    "S": f"{START}+",
    "b": BODY,
    "B": f"{BODY}+",
    "p": "http.response.pathsend",
    "t": TRAILERS,
    "T": f"{TRAILERS}+",
    "x": "http.response.push",
}
WHOLE_RESPONSE = re.compile("h*(sh*(p|B*b)|Sh*(p|B*b)T*t)")
HINT_IN_A_BODY = re.compile(".*B.*h")  # has a test of its own


def words(order: Order, state: str, length: int) -> set[str]:
    """Return all sequences of up to `length` events that lead from `state` to DONE."""
    if state == DONE:
        return {""}
    if length == 0:
        return set()
    found: set[str] = set()
    for letter, event in LETTERS.items():
        try:
            state_after = next_state(order, state, event)
        except AppProtocolError:
            continue
        found.update(letter + word for word in words(order, state_after, length - 1))
    return found


def test_response_order_is_that_of_the_spec() -> None:
    """Of all sequences of up to five messages, the table accepts exactly those that are responses."""
    every = ("".join(word) for length in range(6) for word in itertools.product(LETTERS, repeat=length))
    legal = {word for word in every if WHOLE_RESPONSE.fullmatch(word)}
    taken = words(RESPONSE, "nothing sent", 5)
    assert {word for word in taken if not HINT_IN_A_BODY.match(word)} == legal
    assert {"sb", "hsb", "sp", "shhp", "sBBBb", "SbTTt", "Spt", "SBbt"} < legal


@pytest.mark.parametrize(
    ("sent", "legal"),
    [("", True), ("s", True), ("S", True), ("sB", True), ("SB", True), ("sBB", True), ("Sb", False), ("Sp", False)],
)
def test_early_hint_may_come_until_the_last_block(sent: str, legal: bool) -> None:
    """It may come before the start, where it is useful, and until the last block (docs/extensions, Early Hints)."""
    state = "nothing sent"
    for letter in sent:
        state = next_state(RESPONSE, state, LETTERS[letter])
    try:
        assert next_state(RESPONSE, state, LETTERS["h"]) == state
    except AppProtocolError:
        assert not legal
    else:
        assert legal


@pytest.mark.parametrize(
    ("state", "event", "state_after"),
    [
        ("starting", "lifespan.startup.complete", "serving"),
        ("starting", "lifespan.startup.failed", "failed"),
        ("stopping", "lifespan.shutdown.complete", DONE),
        ("stopping", "lifespan.shutdown.failed", DONE),
    ],
)
def test_lifespan_order_is_that_of_the_spec(state: str, event: str, state_after: str) -> None:
    """Startup and shutdown are each answered once, by one of two messages, and no other message is legal."""
    assert next_state(LIFESPAN, state, event) == state_after
    legal = {(state, event) for state, events in LIFESPAN.items() for event in events}
    assert (state, event) in legal
    assert len(legal) == 4


@pytest.mark.parametrize("state", ["serving", "failed", DONE])
@pytest.mark.parametrize("event", ["lifespan.startup.complete", "lifespan.shutdown.complete", START, "unheard.of"])
def test_lifespan_has_states_in_which_nothing_is_legal(state: str, event: str) -> None:
    """An answer that was not asked for is an error, with the state in its text (ASGI lifespan spec)."""
    with pytest.raises(AppProtocolError, match=rf"sent '{event}' where the spec allows no message \({state}\)"):
        next_state(LIFESPAN, state, event)


@pytest.mark.parametrize("order", [RESPONSE, LIFESPAN], ids=["response", "lifespan"])
def test_order_leads_nowhere_that_it_does_not_know(order: Order) -> None:
    """Each state that a table leads to has a row in it, or is DONE."""
    assert {state for events in order.values() for state in events.values()} <= {*order, DONE}


@pytest.mark.parametrize(
    ("state", "event", "text"),
    [
        ("trailers due", f"{BODY}+", f"ASGI app sent '{BODY}' where the spec allows '{TRAILERS}' (trailers due)"),
        ("nothing sent", BODY, f"the spec allows '{START}' or 'http.response.early_hint' (nothing sent)"),
        ("streaming", START, f"sent '{START}' where the spec allows '{BODY}'"),
        ("started", 5, "sent '5' where"),
        ("started", None, "sent 'None' where"),
        ("started", [], "sent '[]' where"),
        ("done", BODY, "where the spec allows no message (done)"),
    ],
    ids=["more", "before start", "second start", "int", "None", "list", "done"],
)
def test_illegal_event_is_told_what_would_have_been_legal(state: str, event: Any, text: str) -> None:
    """The error names what came, what was expected, and the state of the response (ASGI spec, Error Handling)."""
    with pytest.raises(AppProtocolError, match=re.escape(text)):
        next_state(RESPONSE, state, event)


# --- Errors -------------------------------------------------------------------------------------

CLASSES = {name: value for name, value in vars(errors).items() if isinstance(value, type)}


def test_errors_are_the_tree_that_is_drawn() -> None:
    """The docstring of bridge.errors has every error, under the one root."""
    drawn = re.findall(r"^    (?:├── |└── )?(\w+)", errors.__doc__ or "", re.MULTILINE)
    assert drawn == list(CLASSES)
    for name in drawn[1:]:
        assert CLASSES[name].__mro__[1] is BridgeError


@pytest.mark.parametrize("text", [None, "gone while it was sent"])
def test_client_disconnected_is_what_servers_take_for_a_broken_pipe(text: str | None) -> None:
    """It is an OSError with errno EPIPE (ASGI HTTP spec, Disconnected Client)."""
    error = ClientDisconnected() if text is None else ClientDisconnected(text)
    assert isinstance(error, ConnectionError)
    assert error.errno == errno.EPIPE
    assert str(error) == f"[Errno {errno.EPIPE}] {text or 'the client disconnected'}"


@pytest.mark.parametrize("name", CLASSES)
def test_errors_can_be_copied_and_pickled(name: str) -> None:
    """Error reporters and process pools do both."""
    error = CLASSES[name]("text")
    for clone in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(clone) is type(error)
        assert str(clone) == str(error)
