"""Everything that runs on a worker: plain functions of plain values, so that any worker can do any of it again.

1. Rows lie on the workers in *slabs*: (x, weights or None, first row, end). A slab is responsible for the blocks of the
   grid that begin in its rows, and holds some rows more than its own, so that the last of these blocks is whole.
   Different passes have different grids; a slab serves all of them.
2. One pass at a time runs in a process, with as many threads as the worker has. Where that is one, no threads are
   started at all.
"""

from __future__ import annotations

import math
import pickle
import threading

import numpy as np

from fastgmm import __version__
from fastgmm.data.arrays import ArrayRows, to_float
from fastgmm.data.ranges import read_range
from fastgmm.errors import InvalidDataError
from fastgmm.kernels._cache import kernel_digest
from fastgmm.kernels._jit import limited_threads
from fastgmm.kernels.runner import Runner
from fastgmm.partials import Partial, Work, merge, run_partial
from fastgmm.typing import Array, Float64Array, FloatArray

Slab = tuple[FloatArray, Float64Array | None, int, int]

_turn = threading.Lock()
_runners: dict[int, Runner] = {}  # number of threads -> scratch; used with the lock held


def worker_threads() -> int:
    """Threads of the worker that runs this task; 1 outside a worker."""
    from distributed import get_worker

    try:
        return int(get_worker().state.nthreads)
    except ValueError:
        return 1


def describe_worker() -> tuple[str, str]:
    """Return the version of this package and the digest of its kernels."""
    return __version__, kernel_digest()


# -- rows --------------------------------------------------------------------------------------------------------------


def read_x(source: bytes, start: int, stop: int) -> FloatArray:
    """Return a range of the rows of a pickled source."""
    return read_range(pickle.loads(source), start, stop)[0]


def read_weights(source: bytes, start: int, stop: int) -> Float64Array:
    """Return the weights of a range of the rows of a pickled source."""
    weights = read_range(pickle.loads(source), start, stop)[1]
    assert weights is not None  # the caller knows that there are some
    return weights


def make_slab(
    parts: list[Array], weights: list[Array] | None, dtype: str, first: int, end: int, n_rows: int | None = None
) -> Slab:
    """Join slices of chunks to a slab of `n_rows` rows; one slice that passes can read as it is is not copied.

    Raises
    ------
    InvalidDataError
        If the chunks have other lengths than the dask array says.
    """
    x = to_float(parts[0] if len(parts) == 1 else np.concatenate(parts), np.dtype(dtype), "X")
    if n_rows is not None and len(x) != n_rows:
        msg = (
            f"X must have chunks of the lengths that it states; its rows {first} to {first + n_rows - 1} came as "
            f"{len(x)} rows. Call X.compute_chunk_sizes(), or mend what makes the chunks"
        )
        raise InvalidDataError(msg)
    if x.base is not None and x.nbytes < 0.75 * _memory(x).nbytes:
        x = x.copy()  # do not keep the rest of the chunk alive
    if weights is None:
        return x, None, first, end
    return x, np.concatenate(weights).astype(np.float64, copy=False), first, end


def _memory(x: Array) -> Array:
    while isinstance(x.base, np.ndarray):
        x = x.base
    return x


def check_weights(w: Array, scale: float) -> tuple[float, float, int, int]:
    """Return smallest and largest weight, the first that is not valid (-1: none), and the number of those > 0."""
    w = np.asarray(w, np.float64)
    bad = np.flatnonzero(~((w >= 0.0) & (w < math.inf)))
    if not w.size:
        return math.inf, 0.0, -1, 0
    return float(w.min()), float(w.max()), int(bad[0]) if bad.size else -1, int(np.count_nonzero(w * scale))


def weight_sum(parts: list[Array], scale: float) -> float:
    """Return the sum of a piece of the weights, as `fastgmm.data.RowWeights` takes it."""
    w = np.concatenate(parts)
    return float((w if scale == 1.0 else w * scale).sum())


def kept_rows(x: Array, w: Array, scale: float) -> Array:
    """Return the rows of positive weight."""
    return x[np.asarray(w, np.float64) * scale > 0.0]


def kept_weights(w: Array, scale: float) -> Float64Array:
    """Return the positive weights, scaled."""
    w = np.asarray(w, np.float64) * scale
    return w[w > 0.0]


def first_bad_row(x: Array, w: Array | None, dtype: str) -> tuple[int, FloatArray] | None:
    """Return number and values of the first row of a chunk that holds NaN or infinity and counts; None without any."""
    bad = ~np.isfinite(to_float(x, np.dtype(dtype), "X")).all(axis=1)
    if w is not None:
        bad &= np.asarray(w) > 0.0
    if not bad.any():
        return None
    row = int(np.argmax(bad))
    return row, to_float(x[row : row + 1], np.dtype(dtype), "X").copy()


# -- the sample of a start ---------------------------------------------------------------------------------------------


def take_rows(slab: Slab, index: Array) -> FloatArray:
    """Return rows of a slab by their numbers."""
    x, _, first, _ = slab
    rows: FloatArray = x[np.asarray(index) - first]
    return rows


def own_rows(slab: Slab) -> tuple[FloatArray, Float64Array | None]:
    """Return the rows that no other slab is responsible for."""
    x, w, first, end = slab
    return x[: end - first], None if w is None else w[: end - first]


def last_edge(slab: Slab, before: float) -> float:
    """Go on with the sum of the weights."""
    return float(_edges(slab, before)[-1])


def _edges(slab: Slab, before: float) -> Float64Array:
    w = own_rows(slab)[1]
    assert w is not None  # only weighted rows are asked
    return np.cumsum(np.concatenate(([before], w)))[1:]


def rows_at(slab: Slab, before: float, targets: Float64Array) -> tuple[FloatArray, Float64Array]:
    """Return the rows in whose share of the weight targets lie, and how many lie there."""
    edges = _edges(slab, before)
    low, high = np.searchsorted(targets, (before, edges[-1]))
    index = np.minimum(np.searchsorted(edges, targets[low:high], side="right"), edges.size - 1)
    index, count = np.unique(index, return_counts=True)
    return slab[0][index], count.astype(np.float64)


# -- passes ------------------------------------------------------------------------------------------------------------


def run_slab(work: Work, slab: Slab, threads: int | None = None) -> Partial | None:
    """Run a pass over the blocks that begin in the rows of a slab, with so many threads; None if none does."""
    x, w, first, end = slab
    size = work.block_rows
    begin, stop = blocks_of(first, end, size, work.n_rows)
    if begin >= stop:
        return None
    rows = slice(begin * size - first, min(stop * size, work.n_rows) - first)
    threads = worker_threads() if threads is None else threads
    with _turn, limited_threads(threads):
        runner = _runners.setdefault(threads, Runner(threads))
        return run_partial(work, ArrayRows(x[rows], None if w is None else w[rows]), begin, runner=runner)


def blocks_of(first: int, end: int, block_rows: int, n_rows: int) -> tuple[int, int]:
    """Return the blocks of a grid that begin in rows first .. end - 1."""
    n_blocks = -(-n_rows // block_rows)
    return -(-first // block_rows), min(-(-end // block_rows), n_blocks)


def same(slab: Slab) -> Slab:
    """Return the slab: what a worker runs to get one that another holds."""
    return slab


def merge_parts(parts: list[Partial | None]) -> Partial | None:
    """Add up neighbouring parts."""
    there = [part for part in parts if part is not None]
    return merge(there) if there else None


def forget() -> None:
    """Drop the scratch of passes."""
    with _turn:
        _runners.clear()
