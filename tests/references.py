"""What is left of an object."""

import gc
import sysconfig
import weakref
from typing import Any


def is_freed(reference: weakref.ref[Any]) -> bool:
    """Return whether an object is gone without the garbage collector's help.

    Free-threaded Python keeps what another thread than its own lets go of until its own runs on: there, with that help.
    """
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        gc.collect()
    return reference() is None
