"""`ASGIToWSGI` on trio, for a run of the suite: `--asgi-to-wsgi tests.conformance.trio_adapter:ASGIToWSGI`."""

import functools

import bridge

ASGIToWSGI = functools.partial(bridge.ASGIToWSGI, backend="trio")
