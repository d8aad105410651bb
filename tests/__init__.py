"""The tests of `bridge`. They use the conformance suite, which is a package of its own that need not be installed."""

import os
import sys
from pathlib import Path

SUITE = str(Path(__file__).parent.parent / "conformance" / "src")
if SUITE not in sys.path:
    sys.path.append(SUITE)

# Detach every response of an ASGI app, on this loop: see `tests.detached`.
if loop := os.environ.get("TESTS_DETACHED"):
    from tests.detached import install

    install(loop)
