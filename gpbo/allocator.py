"""How the C library treats freed memory, which matters for temporaries of a few megabytes.

glibc returns such memory to the system at once, so every temporary of the next operation is mapped
and zeroed page by page again: on a CPU that took 40 % of the time of a batch of log densities (256
chains of 20 to 60 results, 1000 to 14,000 page faults for each evaluation).
"""

import ctypes
import os
from functools import cache

#: Blocks up to the first size come from the heap, which keeps free memory up to the second. The
#: first is the largest threshold that glibc allows.
_FROM_HEAP, _KEPT = 32 << 20, 256 << 20
#: Names of glibc's `mallopt`.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
#: If any of these is in the environment, the user has decided.
_DECIDED = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


@cache
def keep_freed_memory() -> bool:
    """Let this process keep up to 256 MB that it freed, for its next temporaries.

    It is done once in a process; the result says whether it was. Nothing is changed if the C
    library is not glibc or the environment sets its thresholds.
    """
    if any(name in os.environ for name in _DECIDED) or not _is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_THRESHOLD, _FROM_HEAP)) and bool(mallopt(_TRIM_THRESHOLD, _KEPT))


def _is_glibc() -> bool:
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (AttributeError, ValueError, OSError):  # Windows, macOS, and musl, which has the name
        return False
