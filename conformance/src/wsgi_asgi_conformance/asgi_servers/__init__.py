"""Tests of ASGI servers: each has its apps beside it, which run inside the server."""
