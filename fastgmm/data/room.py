"""Room for rows that goes back to the system as soon as nobody refers to it.

The C library keeps what is freed, in pieces that later requests may not fit into: some ten megabytes for each pass and
its thread, which add up. So large buffers are mapped.
"""

from __future__ import annotations

import mmap

import numpy as np

from fastgmm.typing import Array

ALIGNMENT = 64
"""A cache line."""

MAPPED_BYTES = 1 << 20
"""From this size on it is mapped: a call to the system costs little beside filling so much."""

# Private, so that it is not shared with forked children; Windows knows no such flags and shares nothing.
_FLAGS = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}


def room(n_bytes: int) -> Array:
    """Return uninitialised bytes (n_bytes,) uint8, aligned to a cache line.

    Raises
    ------
    MemoryError
    """
    if n_bytes >= MAPPED_BYTES:
        try:
            return np.frombuffer(mmap.mmap(-1, n_bytes, **_FLAGS), np.uint8)
        except OSError as error:
            msg = f"no room for a buffer of {n_bytes} bytes: {error}. Open the rows with smaller block_bytes"
            raise MemoryError(msg) from error
    raw = np.empty(n_bytes + ALIGNMENT, np.uint8)
    begin = -raw.ctypes.data % ALIGNMENT
    return raw[begin : begin + n_bytes]
