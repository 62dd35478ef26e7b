"""Rows on the workers of a cluster: what a fit knows of them, and the slabs that its passes read.

1. Whatever is given becomes one dask array of float rows in chunks of known length, and one of weights with the same
   chunks. Nothing is read here but what must be known: lengths of partitions, and the weights.
2. Rows of weight 0 are taken out and weights are scaled as `fastgmm.data.RowWeights` does it in memory, so the grid of
   blocks is the same.
3. Slabs are cut once, from the chunks, to fit the grid of the passes. They are results of tasks like any other: a slab
   that died with its worker is made again from its chunks. Nothing is scattered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any
from uuid import uuid4

import dask
import dask.array as da
import numpy as np

from fastgmm.dask import tasks
from fastgmm.dask.cluster import Cluster
from fastgmm.data import StreamRows
from fastgmm.data.weights import PIECE, are_even, safe_scale
from fastgmm.errors import InvalidDataError
from fastgmm.kernels.fold import RADIX
from fastgmm.typing import Array, Float64Array, FloatArray, RowBlock

HALO_ROWS = 20 * 192
"""Rows that a slab holds beyond its own: the largest block of any grid."""

SLABS_PER_WORKER = 3
"""Few and fat: enough to even out what workers do besides, few enough for the scheduler."""

FEWEST_SLABS = 16
"""Of rows that stay on the workers: so that workers that join later can take some over."""

SLACK = 0.05
"""How far, relative to its length, the end of a slab may move to where the sums of its blocks are few."""


class DaskRows:
    """A row source whose rows are on a cluster; for messages and starts, not for passes in this process.

    Parameters
    ----------
    cluster : Cluster
    x : dask.array.Array (N, D)
        float32 or float64, one chunk across, lengths of chunks known.
    weight : dask.array.Array (N,), or None
        In chunks as `x`.
    names : tuple of str, or None
        Names of the columns.
    block_rows : int
        Of the grid that slabs should fit.
    persist : bool
        Whether workers keep their slabs from pass to pass.
    files : StreamRows, or None
        What the rows are read from, if from files: knows where a row is, for messages.

    Attributes
    ----------
    n_rows, n_features : int
        Rows of weight 0 not counted.
    n_given : int
        Rows with those of weight 0.
    dtype : numpy.dtype
    weighted : bool
    total_weight, weight_scale : float
    even : bool
        Whether all rows weigh the same.
    """

    def __init__(
        self,
        cluster: Cluster,
        x: Any,
        weight: Any = None,
        *,
        names: tuple[str, ...] | None = None,
        block_rows: int,
        persist: bool = True,
        files: StreamRows | None = None,
    ) -> None:
        self.cluster = cluster
        self.files = files
        self.names = names
        self.persist = persist
        self.dtype: np.dtype[Any] = x.dtype
        self.weighted = weight is not None
        self._given = (x, weight)
        self.n_given, self.n_features = (int(n) for n in x.shape)
        self.weight_scale, self.even = 1.0, True
        self.n_rows, self.total_weight = self.n_given, float(self.n_given)
        self._x, self._weight = x, weight
        if weight is not None:
            self._weigh(x, weight)
        self._slabs: list[Any] | None = None
        n_workers = len(cluster.threads)
        each = max(SLABS_PER_WORKER, -(-FEWEST_SLABS // n_workers)) if persist else SLABS_PER_WORKER
        self._edges = cut(self.n_rows, block_rows, each * n_workers)

    def _weigh(self, x: Any, weight: Any) -> None:
        """Check the weights, and take out the rows of weight 0."""
        chunks = weight.to_delayed().ravel()
        found = self.compute([dask.delayed(tasks.check_weights)(chunk, 1.0) for chunk in chunks])
        first = np.cumsum([0, *weight.chunks[0]])
        for (low, high, bad, _), start in zip(found, first, strict=False):
            if bad >= 0:
                msg = (
                    f"sample_weight must be finite and >= 0; the weight of row {int(start) + bad} is not (the weights "
                    f"of its chunk lie between {low!r} and {high!r}). Use 0 to leave a row out"
                )
                raise InvalidDataError(msg)
        largest = max(high for _, high, _, _ in found)
        if largest == 0.0:
            msg = (
                "sample_weight must hold at least one weight > 0; all weights are zero. "
                "Pass sample_weight=None to count every row once"
            )
            raise InvalidDataError(msg)
        scale = self.weight_scale = safe_scale(largest)
        if scale != 1.0:
            found = self.compute([dask.delayed(tasks.check_weights)(chunk, scale) for chunk in chunks])
        kept = [n for _, _, _, n in found]
        self.n_rows = sum(kept)
        pieces = [weight[at : at + PIECE].to_delayed() for at in range(0, self.n_given, PIECE)]
        self.total_weight = 0.0
        for part in self.compute([dask.delayed(tasks.weight_sum)(list(piece), scale) for piece in pieces]):
            self.total_weight += part
        self.even = are_even(largest * scale, self.n_rows, self.total_weight)
        if self.n_rows < self.n_given or scale != 1.0:
            rows, values = [], []
            for block, chunk, n in zip(x.to_delayed().ravel(), chunks, kept, strict=True):
                some, those = dask.delayed(tasks.kept_rows)(block, chunk, scale), dask.delayed(tasks.kept_weights)
                rows.append(da.from_delayed(some, (n, self.n_features), self.dtype))
                values.append(da.from_delayed(those(chunk, scale), (n,), np.float64))
            self._x, self._weight = da.concatenate(rows), da.concatenate(values)

    # -- what starts and messages ask ----------------------------------------------------------------------------------

    def kept(self) -> Array | None:
        """Return which of the user's rows these are, (N,) bool, or None if all."""
        if self.n_rows == self.n_given:
            return None
        mask: Array = self.compute([self._given[1] * self.weight_scale > 0.0])[0]
        return mask

    def blocks(self, multiple: int) -> Iterator[RowBlock]:
        """Yield all rows, brought to this process slab by slab: only labels that a user gives need that."""
        del multiple  # what reads them wants any blocks

        def own(number: int) -> Any:
            return self.compute_on_slabs(lambda slabs: [dask.delayed(tasks.own_rows)(slabs[number])])[0]

        for number, first in enumerate(self._edges[:-1]):
            x, weight = own(number)
            yield RowBlock(first, x, weight)

    def originals(self) -> Iterator[tuple[int, FloatArray]]:
        """Yield (row, that row) for the first that is not finite and counts, in the user's numbering."""
        x, weight = self._given
        chunks = x.to_delayed().ravel()
        ws = [None] * len(chunks) if weight is None else weight.to_delayed().ravel()
        look = dask.delayed(tasks.first_bad_row)
        found = self.compute([look(chunk, one, self.dtype.name) for chunk, one in zip(chunks, ws, strict=True)])
        for first, bad in zip(np.cumsum([0, *x.chunks[0]]), found, strict=False):
            if bad is not None:
                yield int(first) + bad[0], bad[1]
                return

    # -- slabs ---------------------------------------------------------------------------------------------------------

    def slabs(self) -> list[Any]:
        """Return the slabs: futures, or with ``persist=False`` what makes them."""
        if self._slabs is None:
            self._slabs = self._make()
        return self._slabs

    def _make(self) -> list[Any]:
        made = []
        addresses = [address for address, threads in self.cluster.threads.items() for _ in range(threads)]
        make = dask.delayed(tasks.make_slab, pure=False)
        for number, (first, end) in enumerate(pairwise(self._edges)):
            rows = slice(first, min(end + HALO_ROWS, self.n_rows))
            x = list(self._x[rows].to_delayed().ravel())
            weight = None if self._weight is None else list(self._weight[rows].to_delayed().ravel())
            where = addresses[number * len(addresses) // (len(self._edges) - 1)]
            with dask.annotate(workers=[where], allow_other_workers=True):
                made.append(make(x, weight, self.dtype.name, first, end, rows.stop - rows.start))
        return list(self.cluster.client.compute(made, optimize_graph=False)) if self.persist else made

    @property
    def lengths(self) -> list[int]:
        """Rows of each slab."""
        return [end - first for first, end in pairwise(self._edges)]

    def blocks_of(self, block_rows: int) -> list[tuple[int, int]]:
        """Return first block and end of each slab, in a grid of such blocks."""
        return [tasks.blocks_of(first, end, block_rows, self.n_rows) for first, end in pairwise(self._edges)]

    def ready(self) -> list[Any]:
        """Return the slabs, as futures, when all are there; those that died with a worker have then been made again."""

        def settled() -> list[Any]:
            slabs = self.cluster.finished(self.slabs())
            for slab in slabs:
                if slab.status != "finished":
                    slab.result()  # raises what went wrong
            return list(slabs)

        return self.cluster.retried(settled, self.recover)

    def move(self, moves: list[tuple[int, str]]) -> None:
        """Have workers take over slabs, by number, from those that hold them."""
        slabs, client = self.slabs(), self.cluster.client
        for number, address in moves:
            where = {"workers": [address], "allow_other_workers": True}
            slabs[number] = client.submit(tasks.same, slabs[number], **where, pure=False, key=f"slab-{uuid4().hex}")

    def recover(self) -> None:
        """Cut new slabs if some are lost for good; those that died with a worker are being made again already."""
        if self._slabs is not None and self.persist and any(s.status in ("error", "cancelled") for s in self._slabs):
            self._slabs = None  # first let go of those that failed, and with them of what they failed for
            self._slabs = self._make()

    def compute(self, delayed: list[Any]) -> list[Any]:
        """Return the results of tasks."""
        return self._retried(lambda: delayed)

    def compute_on_slabs(self, tasks_on: Callable[[list[Any]], list[Any]]) -> list[Any]:
        """Return the results of tasks that are described from the slabs, anew if slabs were lost for good."""
        return self._retried(lambda: tasks_on(self.slabs()))

    def _retried(self, describe: Callable[[], list[Any]]) -> list[Any]:
        client = self.cluster.client

        def once() -> list[Any]:
            return list(client.gather(self.cluster.finished(client.compute(describe(), optimize_graph=False))))

        return self.cluster.retried(once, self.recover)

    # -- the sample of a start -----------------------------------------------------------------------------------------

    def whole(self) -> tuple[FloatArray, Float64Array | None]:
        """Return all rows and their weights: for small data."""
        own = dask.delayed(tasks.own_rows)
        found = self.compute_on_slabs(lambda slabs: [own(slab) for slab in slabs])
        weight = np.concatenate([part for _, part in found]) if self.weighted else None
        return np.concatenate([x for x, _ in found]), weight

    def pick(self, targets: Float64Array) -> tuple[FloatArray, Float64Array]:
        """Return the rows in whose share of the weight the targets lie, and how many lie there."""
        if not self.weighted:
            index, count = np.unique(np.minimum(targets.astype(np.int64), self.n_rows - 1), return_counts=True)
            parts = np.split(index, np.searchsorted(index, self._edges[1:-1]))
            take = dask.delayed(tasks.take_rows)
            rows = self.compute_on_slabs(
                lambda slabs: [take(slab, part) for slab, part in zip(slabs, parts, strict=True)]
            )
            return np.concatenate(rows), count.astype(np.float64)

        def chain(slabs: list[Any]) -> list[Any]:  # sums of floats have an order
            found, before = [], 0.0
            for slab in slabs:
                found.append(dask.delayed(tasks.rows_at)(slab, before, targets))
                before = dask.delayed(tasks.last_edge)(slab, before)
            return found

        got = self.compute_on_slabs(chain)
        return np.concatenate([x for x, _ in got]), np.concatenate([count for _, count in got])


def cut(n_rows: int, block_rows: int, parts: int) -> list[int]:
    """Return the edges, in rows, of at most `parts` runs of blocks of about the same length.

    An edge is where the counter of `fastgmm.kernels.fold` has a round number, within `SLACK`: few sums then travel.
    """
    n_blocks = -(-n_rows // block_rows)
    parts = min(parts, n_blocks)
    edges = {0}
    for i in range(1, parts):
        ideal = i * n_blocks / parts
        slack = int(SLACK * n_blocks / parts)
        edges.add(_roundest(max(round(ideal) - slack, 1), min(round(ideal) + slack, n_blocks - 1)))
    return [*(edge * block_rows for edge in sorted(edges)), n_rows]


def _roundest(low: int, high: int) -> int:
    """Return the number in low..high with the most zeros at its end in base 16; of those the one with fewest sums."""
    size = 1
    while (high // (size * RADIX)) * (size * RADIX) >= low:
        size *= RADIX
    candidates = range(-(-low // size) * size, high + 1, size)
    return max(candidates, key=lambda number: number // size % RADIX)
