"""Tests of WSGI servers; the apps of each test stand next to it, and run inside the server."""
