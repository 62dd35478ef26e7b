"""Reading ahead: one thread fills buffers while the caller computes on another one.

1. There are ``prefetch + 1`` buffers: the caller holds one or two, the thread fills one, the rest wait full. They are
   used again and again. With three buffers or more a block is valid until the second one after it is asked for, so that
   a caller can begin with a block before it is done with the one before; with two, until the next is asked for.
2. The thread lives as long as the pass: it ends with the last block, or when the generator is closed, by an exception
   in the caller (Ctrl-C too) or by its collection. It opens the files itself, so nothing survives a fork half open.
3. Where there is no room for a thread, the caller reads by itself.
4. What goes wrong in the thread is raised in the caller, at the place where the block would have come.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np

from fastgmm.data.room import room
from fastgmm.threads import begun
from fastgmm.typing import Float64Array, FloatArray, RowBlock

JOIN_SECONDS = 10.0
"""How long a pass waits for its thread to notice that it is over. A thread that hangs in the caller's own iterator, or
in a file system that has gone away, is left behind: it is a daemon and ends with the process."""


class Buffer(NamedTuple):
    """Room for a block: `x` (n, D), C-contiguous and aligned to a cache line, and `w` (n,) or None."""

    x: FloatArray
    w: Float64Array | None


Take = Callable[[], Buffer]
"""Returns a buffer to fill; waits for one."""

Read = Callable[[Take], Iterator[tuple[RowBlock, Buffer]]]
"""Yields blocks, each in a buffer that it took."""


class _StoppedError(Exception):
    """The caller wants no more blocks."""


def make_buffer(n_rows: int, n_features: int, dtype: np.dtype[np.floating], *, weighted: bool) -> Buffer:
    """Return an aligned buffer."""
    x = room(n_rows * n_features * dtype.itemsize).view(dtype).reshape(n_rows, n_features)
    return Buffer(x, room(n_rows * 8).view(np.float64) if weighted else None)


def pumped(read: Read, buffers: list[Buffer]) -> Iterator[RowBlock]:
    """Yield what `read` yields, read by a thread of its own.

    Parameters
    ----------
    read : callable
        Called in the thread.
    buffers : list of Buffer
        At least two.
    """
    free: SimpleQueue[Buffer | None] = SimpleQueue()
    full: SimpleQueue[tuple[RowBlock, Buffer] | BaseException | None] = SimpleQueue()
    stopped = threading.Event()
    for buffer in buffers:
        free.put(buffer)

    def take() -> Buffer:
        buffer = free.get()
        if buffer is None or stopped.is_set():
            raise _StoppedError
        return buffer

    def work() -> None:
        try:
            for item in read(take):
                full.put(item)
            full.put(None)
        except _StoppedError:
            pass
        except BaseException as error:
            full.put(error)

    thread = threading.Thread(target=work, name="fastgmm-reader", daemon=True)
    held: deque[Buffer] = deque()
    most = 2 if len(buffers) > 2 else 1
    try:
        if not begun(thread):
            for block, buffer in read(take):
                yield block
                free.put(buffer)
            return
        while (item := full.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item[0]
            held.append(item[1])
            if len(held) == most:
                free.put(held.popleft())
    finally:
        kept = list(buffers)
        buffers.clear()  # until the thread has ended, it may write to them, also where this is interrupted
        stopped.set()
        free.put(None)
        if thread.ident is not None:  # else it has not begun, and will see that it is to stop
            thread.join(JOIN_SECONDS)
        if not thread.is_alive():
            buffers.extend(kept)
