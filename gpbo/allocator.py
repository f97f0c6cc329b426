"""What the C library does with memory that is freed, which temporaries of some megabytes feel.

glibc gives such memory back to the system at once, and every temporary of the next operation is
then mapped and zeroed page by page again: on a CPU that took 40 % of the time of a batch of log
densities (256 chains of 20 to 60 results, 1000 to 14,000 page faults for each evaluation).
"""

import ctypes
import os
from functools import cache

#: Blocks up to this size are taken from the heap, and the heap keeps so much that is free. The
#: first is the largest that glibc allows.
_FROM_HEAP, _KEPT = 32 << 20, 256 << 20
#: Names of glibc's `mallopt`.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
#: With any of these in the environment the user has decided.
_DECIDED = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


@cache
def keep_freed_memory() -> bool:
    """Let this process keep up to 256 MB that it freed, for its next temporaries.

    Once in a process; whether it was done. Nothing is changed where the C library is not glibc,
    or where the environment sets its thresholds.
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
