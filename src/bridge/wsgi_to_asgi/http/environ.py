"""What a WSGI app finds in the environ of an HTTP request."""

from typing import BinaryIO

from bridge.sansio.request import CGI_TEMPLATE, environ_from_scope
from bridge.types import Environ, Scope
from bridge.wsgi_to_asgi.http.streams import Disconnected, ErrorStream, FileWrapper

# The values that every environ shares; None stands for those that each request sets.
_TEMPLATE: Environ = {
    **CGI_TEMPLATE,
    "wsgi.version": (1, 0),
    "wsgi.input": None,
    "wsgi.input_terminated": True,
    "wsgi.errors": ErrorStream(),
    "wsgi.multithread": True,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
    "wsgi.file_wrapper": FileWrapper,
    "bridge.disconnected": None,
}


def environ_template(multithread: bool, multiprocess: bool) -> Environ:
    """Return the values that all environs of one adapter share."""
    return {**_TEMPLATE, "wsgi.multithread": multithread, "wsgi.multiprocess": multiprocess}


def environ_for_request(scope: Scope, template: Environ, input_stream: BinaryIO, disconnected: Disconnected) -> Environ:
    """Return the environ of one request. It is made in the worker thread, so as not to hold up the loop.

    Raises ClientProtocolError if the request's headers contradict each other.
    """
    environ = environ_from_scope(scope, template)
    environ["wsgi.input"] = input_stream
    environ["bridge.disconnected"] = disconnected
    return environ
