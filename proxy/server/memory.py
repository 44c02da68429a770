"""What a process that serves keeps of its memory, instead of asking for it again and again."""

from __future__ import annotations

import ctypes
import gc
import os
from typing import Final

# mallopt(3), and malloc.h of the GNU C library.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_LARGEST_KEPT_BYTES: Final = 1024 * 1024  # larger pieces go back to the kernel when they are free
_KEPT_BYTES: Final = 64 * 1024 * 1024


def keep_for_good() -> None:
    """What exists by now is here to stay: going through all of it for garbage holds every request up for 0.2 s."""
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(50_000, 20, 100)


def keep_freed_memory() -> bool:
    """Has the allocator keep up to 64 MiB for the next request; whether that could be arranged.

    A prompt of 100 KB is held in several pieces, each too large for Python's own pools. By default the C library gives
    such memory back when it is free, and the kernel clears it page by page when it is asked for again: a tenth of what
    such a request costs, and more by the heap's luck. Other allocators than the GNU C library's (musl, a preloaded
    jemalloc) go their own way, as does whoever sets `MALLOC_TRIM_THRESHOLD_` or `MALLOC_MMAP_THRESHOLD_`.
    """
    if os.environ.keys() & {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"}:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES) and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES))
