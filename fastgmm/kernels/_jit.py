"""The one front door to Numba: compiles blocks of work, and launches them serially or in parallel.

Why it is like this
-------------------
1. A pass is a C function ``block(table, item, worker, tag)`` (see `arguments.py`), compiled once for each element type.
   One launcher, compiled once for all of them, calls it through its address in parallel; serially it is called as any
   C function is, so that small fits wait for no launcher. Both run the same machine code, and give the same bits by
   construction.
2. The parallel launcher starts one worker a thread; workers draw items from an atomic counter, so a thread that is
   slowed down by something else on the machine takes fewer items. Which thread took which item cannot matter: an item
   writes to its own place.
3. A parallel launch is unsafe in two situations, and then the serial twin runs: when another Python thread is inside
   one and the threading layer is not thread safe (`workqueue` would abort the process), and in a process that was
   forked after a launch (GNU OpenMP would end it).
4. No fast-math flag is ever set; error_model="numpy" removes the branches for division by zero.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.ccallback import CFunc
from numba.extending import intrinsic

from fastgmm.kernels._cache import attach, stamp

OPTIONS: dict[str, Any] = {"nopython": True, "error_model": "numpy"}
THREAD_SAFE_LAYERS = ("tbb", "omp")
ELEMENT = {"float64": types.float64, "float32": types.float32}

Body = Callable[[Any, int, int, Any], None]
_byte: Any = ctypes.c_char


@functools.cache
def compile_block(body: Body, dtype: str) -> int:
    """Compile the body of a pass for an element type; return the address of the C function.

    Parameters
    ----------
    body : function (table, item, worker, tag)
        Written in Numba's Python; `table` is a pointer to int64, `tag` a null pointer to the element type.
    dtype : {"float64", "float32"}
    """
    signature = (types.CPointer(types.int64), types.int64, types.int64, types.CPointer(ELEMENT[dtype]))
    block = CFunc(body, (signature, types.void), locals={}, options=dict(OPTIONS))
    attach(block)
    with _uncollected():
        block.compile()
    _keep.append(block)
    address: int = block.address
    return address


@contextmanager
def _uncollected() -> Iterator[None]:
    """Hold the garbage collector: a compilation makes a million objects, and looking at them takes a twelfth of it."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


_keep: list[Any] = []  # compiled code lives as long as its owner


@intrinsic
def _call_block(typingctx: Any, address: Any, table: Any, item: Any, worker: Any) -> Any:
    """Call ``block(table, item, worker, null)`` at an address."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        i64, byte = ir.IntType(64), cgutils.voidptr_t
        kind = ir.FunctionType(ir.VoidType(), [byte, i64, i64, byte])
        function = builder.inttoptr(args[0], kind.as_pointer())
        builder.call(function, [builder.inttoptr(args[1], byte), args[2], args[3], cgutils.get_null_value(byte)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), codegen


@intrinsic
def _next_item(typingctx: Any, counter: Any) -> Any:
    """Fetch the counter at an address and add one to it, atomically."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        i64 = ir.IntType(64)
        place = builder.inttoptr(args[0], i64.as_pointer())
        return builder.atomic_rmw("add", place, ir.Constant(i64, 1), "monotonic")

    return types.int64(types.int64), codegen


_prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
_serial = functools.cache(_prototype)  # of an address; a call gives Python's lock back


def _run_serially(address: int, where: int, items: int) -> None:
    block = _serial(address)
    for item in range(items):
        block(where, item, 0, None)


def _parallel(address: int, table: int, items: int, workers: int, counter: int) -> None:
    for worker in numba.prange(workers):
        item = _next_item(counter)
        while item < items:
            _call_block(address, table, item, worker)
            item = _next_item(counter)


def _draw(address: int, table: int, items: int, worker: int, counter: int) -> None:
    item = _next_item(counter)
    while item < items:
        _call_block(address, table, item, worker)
        item = _next_item(counter)


@functools.cache
def _drawer() -> Any:
    function = numba.njit(_draw, nogil=True, error_model="numpy")
    attach(function)
    function.compile("void(int64, int64, int64, int64, int64)")
    return function


def draw_items(address: int, table: int, items: int, worker: int, counter: int) -> None:
    """Take part in a launch as one of its workers: call a block for items that are drawn from a counter.

    Parameters
    ----------
    address, table, counter : int
        Addresses of the block, of its table, and of an int64 that holds the next item.
    items, worker : int
    """
    _drawer()(address, table, items, worker, counter)


@functools.cache
def _launcher() -> Any:
    function = numba.njit(_parallel, nogil=True, parallel=True, error_model="numpy")
    attach(function)
    function.compile("void(int64, int64, int64, int64, int64)")
    return function


def compile_launchers(threads: int) -> None:
    """Compile what launches with so many threads need."""
    if threads > 1:
        _launcher()


# -- which of the two --------------------------------------------------------------------------------------------------
_lock = threading.Lock()
_launched = False  # this process has started threads of the parallel launcher
_serial_only = False  # it was forked from one that had


def _in_child() -> None:
    global _lock, _serial_only
    _lock = threading.Lock()  # the parent's may have been held
    _serial_only = _serial_only or _launched


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def n_threads() -> int:
    """Threads that a launch from this Python thread may use."""
    return 1 if _serial_only else int(numba.get_num_threads())


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Let launches from this Python thread use at most so many threads, and give back the setting it had."""
    before = int(numba.get_num_threads())
    if threads >= before:
        yield
        return
    numba.set_num_threads(threads)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def launch(address: int, table: npt.NDArray[np.int64], items: int, workers: int) -> None:
    """Call a block for items 0 .. items-1, by at most `workers` threads.

    Parameters
    ----------
    address : int
        From `compile_block`.
    table : ndarray of int64
        What the block reads; see `arguments.py`.
    items, workers : int
        Worker numbers given to the block are below `workers`.
    """
    where = ctypes.addressof(_byte.from_buffer(table))
    workers = min(workers, items)
    if workers <= 1 or _serial_only:
        _run_serially(address, where, items)
    elif _layer() in THREAD_SAFE_LAYERS:
        _run_parallel(address, where, items, workers)
    elif _lock.acquire(blocking=False):
        try:
            _run_parallel(address, where, items, workers)
        finally:
            _lock.release()
    else:
        _run_serially(address, where, items)


def _run_parallel(address: int, where: int, items: int, workers: int) -> None:
    global _launched
    function = _launcher()
    _launched = True
    counter = np.zeros(16, np.int64)  # 128 bytes, so that the counter shares no cache line with anything written
    function(address, where, items, workers, ctypes.addressof(_byte.from_buffer(counter)) + 64)


def _layer() -> str | None:
    """The threading layer, None before the first launch."""
    try:
        return str(numba.threading_layer())
    except ValueError:
        return None


def inlined(function: Any) -> Any:
    """Make a function part of the Numba code that calls it: what is used once then compiles once, with its caller."""
    return numba.njit(inline="always")(stamp(function))
