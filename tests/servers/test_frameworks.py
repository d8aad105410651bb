"""Frameworks' apps behind the adapters on real servers.

The checks of each pair run in order on one server, and the last of them end it. `compatibility.py` runs them, too,
and repeats failed ones without an adapter.
"""

from collections.abc import Iterator

import pytest

from tests.servers.checks import ALL, Check
from tests.servers.frameworks import FRAMEWORKS, maybe_version
from tests.servers.pairs import Served, servers_of, serving_pair
from tests.servers.shortcomings import maybe_known

PAIRS = [(name, server) for name in FRAMEWORKS for server in servers_of(name)]


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    """Run the framework's adapted app on the server."""
    name, server = request.param
    framework = FRAMEWORKS[name]
    if maybe_version(framework.distribution) is None:
        pytest.skip(f"{framework.title} is not installed")
    with serving_pair(name, server) as served:
        yield served


@pytest.mark.parametrize("check", ALL, ids=lambda check: check.__name__)
def test_app_behind_an_adapter(request: pytest.FixtureRequest, served: Served, check: Check) -> None:
    """An app does the same behind an adapter as natively."""
    known = maybe_known(*served.pair, check.__name__)
    if known is not None:
        request.applymarker(pytest.mark.xfail(reason=known.why, strict=not known.sometimes))
    check(served)
