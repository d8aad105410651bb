"""An ASGI twin of `wsgiref.validate`."""

from bridge.validate.connection import ASGIWarning, validator

__all__ = ["ASGIWarning", "validator"]
