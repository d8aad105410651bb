"""Tests of ASGI servers; the apps of each test stand next to it, and run inside the server."""
