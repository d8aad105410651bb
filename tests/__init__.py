"""The tests of `bridge`. They use the conformance suite, which is a package of its own that need not be installed."""

import sys
from pathlib import Path

SUITE = str(Path(__file__).parent.parent / "conformance" / "src")
if SUITE not in sys.path:
    sys.path.append(SUITE)
