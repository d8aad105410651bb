import pytest

from bridge import AppProtocolError, ClientDisconnected
from bridge.errors import is_of_disconnect


class ClientDisconnect(Exception):
    """Has the name of Starlette's error."""


class WebSocketDisconnect(Exception):
    """Has the name of Starlette's and Litestar's error."""


class ClientDisconnectedError(Exception):
    """Has the name of Quart's error."""


def behind(error: BaseException, context: BaseException) -> BaseException:
    """Return `error` as if it was raised while `context` was being handled."""
    error.__context__ = context
    return error


def because_of(error: BaseException, cause: BaseException) -> BaseException:
    """Return `error` as if it was raised from `cause`."""
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
    """Such an error is ClientDisconnected, was raised from it, or is a framework's name for it."""
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
    """An error that an app raised later, for example in a `finally`, is the app's own."""
    assert not is_of_disconnect(error)


def test_an_error_in_a_ring() -> None:
    """An exception may refer to a group that holds it, as exceptions from Starlette's middleware do."""
    error = ValueError()
    error.__cause__ = BaseExceptionGroup("", [error])
    assert not is_of_disconnect(error)
