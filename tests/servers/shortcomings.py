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
MOD_WSGI = ("mod_wsgi", "mod_wsgi-package", "mod_wsgi-own-gil")
# The other frameworks have no route for it and answer 405, which has a length except in Sanic.
ANSWER_HEAD = ("starlette", "django-asgi", "channels", "quart", "responder")

SHORTCOMINGS = (
    Shortcoming(
        "error_mid", "daphne leaves the response of an app that raised open until the client gives up.", ("daphne",)
    ),
    Shortcoming("sigterm_lets_a_response_end", "daphne cuts the responses that it is still sending.", ("daphne",)),
    Shortcoming(
        "chunked_upload",
        "The server does not decode chunked bodies, so the app gets an empty body.",
        (*UWSGI, "wsgiref"),
    ),
    Shortcoming(
        "error_mid",
        "The server ends the response as if it were whole: it closes the connection, or sends the last chunk.",
        (*UWSGI, "wsgiref", *MOD_WSGI, "passenger", "granian-wsgi"),
    ),
    Shortcoming(
        "sigterm_lets_a_response_end",
        "The server cuts the responses that it is still sending.",
        (*UWSGI, *MOD_WSGI, "passenger", "m0serve", "m0serve-wsgi", "pyvoy", "pyvoy-wsgi"),
    ),
    Shortcoming(
        "sigterm_lets_a_response_end",
        "The server cuts the responses that it is still sending. The adapter waits a second for them, which may be too"
        " little, and SIGTERM may raise SystemExit in the greenlet that sends the response.",
        ("gevent-pywsgi", "werkzeug", "wsgiref"),
        sometimes=True,
    ),
    Shortcoming(
        "lifespan_shutdown",
        "A uWSGI worker that is serving a request when SIGTERM comes does not run Python's exit functions.",
        UWSGI,
        sometimes=True,
    ),
    Shortcoming(
        "head_of_a_stream",
        "If a response to HEAD has no length, waitress sends the end of a chunked body.",
        ("waitress",),
        ANSWER_HEAD,
    ),
    Shortcoming(
        "head_of_a_stream",
        "If a response to HEAD has no length, pywsgi sends the end of a chunked body or, like wsgiref, a length of 0.",
        ("gevent-pywsgi", "wsgiref"),
        ANSWER_HEAD,
    ),
    # An app of the server's own kind sends a body to HEAD as well, whose length is the right one.
    Shortcoming(
        "head_of_a_stream",
        "If a response to HEAD has no length, the server adds the length of the app's body, which is empty.",
        ("peregrine-wsgi",),
        ANSWER_HEAD,
        native=False,
    ),
    Shortcoming(
        "head_of_a_stream",
        "If a response to HEAD has no length, the server adds the length of the app's body, which is empty.",
        ("h2corn",),
        ("flask", "flask-in-fastapi", "django", "pyramid", "bottle"),
        native=False,
    ),
    Shortcoming(
        "head",
        "If a response to HEAD has no length, the server adds the length of the app's body, which is empty.",
        ("h2corn",),
        ("django",),
        native=False,
    ),
    Shortcoming("slash_in_path", "m0serve leaves `%2F` in a path as it is.", ("m0serve", "m0serve-wsgi")),
    Shortcoming(
        "lifespan_shutdown",
        "The server embeds Python, and does not run its exit functions.",
        ("m0serve-wsgi", "pyvoy-wsgi"),
        sometimes=True,
    ),
    Shortcoming(
        "chunked_upload", "pyvoy does not tell a WSGI app that a body without a length has an end.", ("pyvoy-wsgi",)
    ),
    Shortcoming("client_leaves", "pyvoy does not tell a WSGI app whether its client is still there.", ("pyvoy-wsgi",)),
    # Falcon's app says 127.0.0.1 without one.
    Shortcoming("client_address", "pyvoy tells a WSGI app no REMOTE_ADDR.", ("pyvoy-wsgi",), sometimes=True),
    Shortcoming("sigterm_ends", "pyvoy takes ten seconds or more to end.", ("pyvoy-wsgi",), sometimes=True),
    Shortcoming(
        "lifespan_shutdown", "mod_wsgi does not run a sub-interpreter's exit functions.", ("mod_wsgi-own-gil",)
    ),
)

# What the tests of `test_asgi_servers` ask for, and a server does not do, by the test's name.
OF_ASGI_SERVERS = {
    "h2corn": {
        "test_upload_that_is_cut_off_raises": "h2corn holds the first block of a chunked body back until more comes",
        "test_lines_are_answered_before_the_next_is_sent": "h2corn holds the first block of a chunked body back",
        "test_body_is_read_in_another_thread": "h2corn holds the first block of a chunked body back until more comes",
        "test_empty_blocks_end_when_their_client_leaves": "h2corn notices that a client has left when it sends to it",
        "test_app_can_wait_for_its_client_to_leave": "h2corn notices that a client has left when it sends to it",
        "test_non_reading_client_gets_a_bounded_number_of_blocks": "h2corn buffers what a client does not read",
        "test_environ_of_a_request": "h2corn leaves %00 in a path as it is",
        "test_target_may_be_a_url": "h2corn refuses such a target",
        "test_app_that_reads_nothing_does_not_ask_for_the_body": "h2corn sends 100 Continue before the app reads",
    },
    "m0serve": {
        "test_upload_that_is_cut_off_raises": "m0serve calls an app with the whole body",
        "test_lines_are_answered_before_the_next_is_sent": "m0serve calls an app with the whole body",
        "test_body_is_read_in_another_thread": "m0serve calls an app with the whole body",
        "test_reader_ends_with_the_response": "m0serve calls an app with the whole body",
        "test_app_that_reads_nothing_does_not_ask_for_the_body": "m0serve calls an app with the whole body",
        "test_empty_blocks_end_when_their_client_leaves": "m0serve notices that a client has left when it sends to it",
        "test_app_can_wait_for_its_client_to_leave": "m0serve notices that a client has left when it sends to it",
        "test_repeated_headers_and_cookies_keep_their_order": "m0serve sends the last of headers of one name",
        "test_environ_of_a_request": "m0serve decodes paths in its own way",
        "test_target_may_be_a_url": "m0serve decodes paths in its own way",
        "test_shutdown_ends_endless_streams": "m0serve has no option for how long a shutdown may take",
    },
    "peregrine": {
        "test_environ_of_a_request": "peregrine takes the server's name from the Host header",
        "test_app_that_reads_nothing_does_not_ask_for_the_body": "peregrine sends 100 Continue before the app reads",
    },
    "pyvoy": {
        "test_empty_blocks_end_when_their_client_leaves": "pyvoy repeats the end of the body for http.disconnect",
        "test_app_can_wait_for_its_client_to_leave": "pyvoy repeats the end of the body for http.disconnect",
        "test_environ_of_a_request": "Envoy refuses %00 in a path",
        "test_target_may_be_a_url": "Envoy refuses bytes beyond ASCII in a target",
        "test_hosts_that_differ_are_refused": "Envoy passes one of several Host headers on",
        "test_app_that_reads_nothing_does_not_ask_for_the_body": "Envoy sends 100 Continue before the app reads",
        "test_shutdown_lets_a_request_end": "pyvoy cuts what is on its way",
        "test_shutdown_ends_endless_streams": "pyvoy has no option for how long a shutdown may take",
    },
}


def maybe_known(framework: str, server: str, check: str) -> Shortcoming | None:
    """Return why the check fails."""
    for known in SHORTCOMINGS:
        if known.check == check and server in known.servers and framework in (known.frameworks or (framework,)):
            return known
    return None
