import pytest

from bridge import AppProtocolError, ClientDisconnected
from bridge.errors import is_of_disconnect


class ClientDisconnect(Exception):
    """Named as Starlette's."""


class WebSocketDisconnect(Exception):
    """Named as Starlette's and Litestar's."""


class ClientDisconnectedError(Exception):
    """Named as Quart's."""


def behind(error: BaseException, context: BaseException) -> BaseException:
    """Return `error`, raised while `context` was handled, or was on its way out."""
    error.__context__ = context
    return error


def because_of(error: BaseException, cause: BaseException) -> BaseException:
    """Return `error`, raised from `cause`."""
    error.__cause__ = cause
    return error


LEFT = ClientDisconnected()


@pytest.mark.parametrize(
    "error",
    [
        LEFT,
        because_of(ValueError(), LEFT),
        because_of(ValueError(), because_of(KeyError(), LEFT)),
        ClientDisconnect(),
        because_of(ValueError(), ClientDisconnect()),
        behind(ClientDisconnect(), LEFT),
        behind(WebSocketDisconnect(), LEFT),
        behind(ClientDisconnectedError(), LEFT),
        behind(ClientDisconnected(), ValueError()),
        BaseExceptionGroup("", [LEFT, behind(ClientDisconnect(), LEFT)]),
        because_of(ValueError(), BaseExceptionGroup("", [LEFT])),
    ],
)
def test_an_error_because_of_a_disconnect(error: BaseException) -> None:
    """It is ClientDisconnected, was raised from it, or is what a framework says in its stead."""
    assert is_of_disconnect(error)


@pytest.mark.parametrize(
    "error",
    [
        None,
        ValueError(),
        AppProtocolError(),
        ConnectionResetError(),
        behind(ValueError(), LEFT),
        behind(ConnectionResetError(), LEFT),
        behind(ClientDisconnect(), ValueError()),
        behind(ClientDisconnect(), behind(ValueError(), LEFT)),
        because_of(behind(ValueError(), LEFT), KeyError()),
        BaseExceptionGroup("", [LEFT, behind(ValueError(), LEFT)]),
    ],
)
def test_an_error_beside_a_disconnect(error: BaseException | None) -> None:
    """What only came behind it, out of a `finally` say, is the app's own."""
    assert not is_of_disconnect(error)


def test_an_error_in_a_ring() -> None:
    """An exception may refer to a group that holds it, as those out of Starlette's middleware do."""
    error = ValueError()
    error.__cause__ = BaseExceptionGroup("", [error])
    assert not is_of_disconnect(error)
