"""The conformance suite: one test a clause, with the adapter under test as an argument."""

import pytest

clause = pytest.mark.clause
