"""What servers and frameworks do not do, so that no adapter can."""

from typing import NamedTuple


class Shortcoming(NamedTuple):
    """A check that also fails without an adapter."""

    check: str
    why: str
    servers: tuple[str, ...]
    frameworks: tuple[str, ...] = ()  # () means all
    sometimes: bool = False  # False means always
    native: bool = True  # False: it fails only when these frameworks meet these servers


UWSGI = ("uwsgi-threads", "uwsgi-lazy-apps")
# The other frameworks have no route for it and answer 405, which has a length except in Sanic.
ANSWER_HEAD = ("starlette", "django-asgi", "channels", "quart", "responder")

SHORTCOMINGS = (
    Shortcoming(
        "error_mid", "daphne leaves the response of an app that raised open until the client gives up.", ("daphne",)
    ),
    Shortcoming("sigterm_lets_a_response_end", "daphne cuts the responses that are on their way.", ("daphne",)),
    Shortcoming(
        "chunked_upload",
        "The server does not decode chunked bodies, so that an app sees none.",
        (*UWSGI, "wsgiref"),
    ),
    Shortcoming(
        "error_mid",
        "The server ends the response like a whole one: without a length it is HTTP/1.0's, or its last chunk is sent.",
        (*UWSGI, "wsgiref", "mod_wsgi", "passenger"),
    ),
    Shortcoming(
        "sigterm_lets_a_response_end",
        "The server cuts the responses that are on their way.",
        (*UWSGI, "mod_wsgi", "passenger"),
    ),
    Shortcoming(
        "sigterm_lets_a_response_end",
        "The server cuts responses that are on their way. The adapter gives them a second, which may be too little; and"
        " among greenlets SIGTERM may raise SystemExit in the response's own.",
        ("gevent-pywsgi", "werkzeug", "wsgiref"),
        sometimes=True,
    ),
    Shortcoming(
        "lifespan_shutdown",
        "A worker of uWSGI's with a request on its way at SIGTERM ends without Python's exit functions.",
        UWSGI,
        sometimes=True,
    ),
    Shortcoming(
        "head_of_a_stream",
        "waitress sends the end of a chunked body also to HEAD, if there is no length.",
        ("waitress",),
        ANSWER_HEAD,
    ),
    Shortcoming(
        "head_of_a_stream",
        "To HEAD without a length pywsgi sends the end of a chunked body or, as wsgiref does, `Content-Length: 0`.",
        ("gevent-pywsgi", "wsgiref"),
        ANSWER_HEAD,
    ),
)


def maybe_known(framework: str, server: str, check: str) -> Shortcoming | None:
    """Return why the check fails."""
    for known in SHORTCOMINGS:
        if known.check == check and server in known.servers and framework in (known.frameworks or (framework,)):
            return known
    return None
