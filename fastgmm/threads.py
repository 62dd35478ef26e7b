"""Threads of Python's, begun only where there is room for them.

A thread whose stack just fits into what is left of the address space, and nothing else, never says that it has begun,
and CPython waits for that for ever. So room is looked for beforehand.
"""

from __future__ import annotations

import mmap
import threading
from contextlib import suppress
from typing import Final

THREAD_ROOM: Final = 1 << 21
"""Bytes that a thread needs to begin, beside its stack; a few thousand would do."""

LARGEST_STACK: Final = 1 << 23
"""Bytes of a stack where the system names no limit."""


def begun(thread: threading.Thread) -> bool:
    """Start a thread; False where the system has no room for it."""
    with suppress(OSError, ValueError, RuntimeError):
        private = {"flags": mmap.MAP_PRIVATE} if hasattr(mmap, "MAP_PRIVATE") else {}
        mmap.mmap(-1, stack_bytes() + THREAD_ROOM, **private).close()
        thread.start()
        return True
    return False


def stack_bytes() -> int:
    """Size of a new thread's stack, bytes, or more."""
    try:
        import resource  # not on Windows
    except ImportError:
        return LARGEST_STACK
    limit = resource.getrlimit(resource.RLIMIT_STACK)[0]
    return max(threading.stack_size(), LARGEST_STACK if limit == resource.RLIM_INFINITY else limit)
