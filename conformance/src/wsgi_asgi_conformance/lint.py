"""The validator of the ASGI side, if `bridge` is installed. Without it, only the tests judge."""

from wsgi_asgi_conformance.types import ASGIApp

# The validator's exceptions, and those among them that report a fault of the server; empty without `bridge`.
REPORTS: tuple[type[Exception], ...] = ()
SERVER_FAULTS: tuple[type[Exception], ...] = ()
try:
    from bridge.errors import BridgeError, ServerProtocolError
    from bridge.validate import validator as _validator
except ImportError:

    def validator(app: ASGIApp) -> ASGIApp:
        """Return `app` as it is."""
        return app

else:
    REPORTS, SERVER_FAULTS = (BridgeError,), (ServerProtocolError,)

    def validator(app: ASGIApp) -> ASGIApp:
        """Return an app that does what `app` does, and raises if `app` or its server breaks the ASGI spec."""
        return _validator(app)
