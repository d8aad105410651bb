"""In this repository, the conformance suite judges `bridge`, by all there is, unless the options say otherwise."""

import os

import pytest
import tests  # noqa: F401  # first, as it may have all responses detached

pytest_plugins = ["wsgi_asgi_conformance.plugin"]

OURS = {"wsgi_to_asgi": "bridge:WSGIToASGI", "asgi_to_wsgi": "bridge:ASGIToWSGI"}


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Fill in what was not given."""
    given = [config.getoption(direction) for direction in OURS]
    for direction, name in OURS.items():
        if config.getoption(direction) is None:
            setattr(config.option, direction, name)
    if all(name in (None, "none") or name.startswith("bridge:") for name in given):
        config.option.thorough = config.option.advised = True
        if config.getoption("backends") == "asyncio" and "--backends" not in config.invocation_params.args:
            config.option.backends = "asyncio,trio"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what does not apply to detached responses, if all are to be detached."""
    if "TESTS_DETACHED" in os.environ:
        from tests.detached import skip_what_differs

        skip_what_differs(items)
