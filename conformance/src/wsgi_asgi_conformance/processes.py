"""What child processes of the tests need."""

import os
import sys


def child_environ(**variables: str) -> dict[str, str]:
    """Return the variables for a Python process that is to import what this one can import."""
    path = [os.getcwd(), *(entry for entry in sys.path if entry)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), **variables}
