"""Support for child processes of the tests."""

import os
import sys


def child_environ(**variables: str) -> dict[str, str]:
    """Return environment variables that let a child Python import what this one can import."""
    path = [os.getcwd(), *(entry for entry in sys.path if entry)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), **variables}
