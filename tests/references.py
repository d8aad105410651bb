"""Whether objects are freed."""

import gc
import sysconfig
import weakref
from typing import Any


def is_freed(reference: weakref.ref[Any]) -> bool:
    """Return whether an object was freed without the garbage collector.

    A free-threaded Python may free an object only when the thread that created it next runs, so collect there.
    """
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        gc.collect()
    return reference() is None
