"""`StreamRows`: rows that are read from files, or from the caller's own blocks, in every pass.

1. `facts` finds how many rows there are, `cutting` makes blocks of them, `pump` reads ahead.
2. Peak memory is ``(prefetch + 1) * block_bytes``, what the format's own decoder holds, and the statistics, for any
   number of rows. A source that fits into one block is read once and kept.
3. What is read must be the same in every pass: size, time and identity of files before and after, and for everything
   the number of rows and a checksum of every 64th of them.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fastgmm.data.cutting import SPARE_ROWS, Cut, Selection, fill, weights_of
from fastgmm.data.facts import Facts, scan
from fastgmm.data.formats.base import Part
from fastgmm.data.pump import Buffer, Take, make_buffer, pumped
from fastgmm.data.weights import RowWeights
from fastgmm.errors import DataChangedError, InvalidParameterError
from fastgmm.typing import Array, Float64Array, FloatArray, RowBlock

CHECKED = 64
"""Every so many rows enter the checksum."""


class StreamRows:
    """Rows of one or more parts, in order; made by `fastgmm.open_rows`.

    A `fastgmm.typing.RowSource`; every method that takes data takes one. Nothing is open between passes. Not to be read
    from two threads at once if it is small enough to be kept.

    Attributes
    ----------
    n_rows, n_features : int
        Rows of weight 0 not counted. The number of rows of text files, streams and iterables is found by a pass over
        them when it is first asked for; with a weight column its values are read then, too.
    n_given : int
        Rows with those of weight 0.
    dtype : numpy.dtype
        float32 or float64.
    names : tuple of str, or None
        Names of the features.
    weighted : bool
    total_weight, weight_scale : float
        Sum of the weights as handed out, and what the given ones were multiplied by.
    even : bool
        Whether all rows weigh the same.
    sources : tuple of str
        What the parts are called.
    """

    def __init__(self, parts: Sequence[Part], selection: Selection, given: RowWeights | None = None) -> None:
        self._parts = tuple(parts)
        self._selection = selection
        self._given = given
        self._stamps = tuple(part.stamp() for part in parts)
        self._facts: Facts | None = None
        self._kept_block: RowBlock | None = None
        self._checksum: int | None = None
        self._spare: list[list[Buffer]] = []
        self.n_features = len(selection.columns)
        self.names = selection.names
        self.dtype = selection.dtype
        self.weighted = given is not None or selection.weight is not None

    # -- facts ---------------------------------------------------------------------------------------------------------

    @property
    def n_rows(self) -> int:
        """Rows that are handed out."""
        return self._known().n_rows

    @property
    def n_given(self) -> int:
        """Rows with those of weight 0."""
        return self._known().n_given

    @property
    def total_weight(self) -> float:
        """Sum of the weights as handed out."""
        return self._known().total

    @property
    def weight_scale(self) -> float:
        """What the given weights were multiplied by."""
        return self._known().scale

    @property
    def even(self) -> bool:
        """Whether all rows weigh the same."""
        return self._known().even

    @property
    def sources(self) -> tuple[str, ...]:
        """What the parts are called."""
        return tuple(part.source for part in self._parts)

    @property
    def reads_ahead(self) -> bool:
        """Whether a thread reads while the caller computes, and a block is valid while the caller has the next one."""
        return self._selection.prefetch > 1 and self.n_rows > self._rows_of_a_block

    @property
    def n_bytes(self) -> int | None:
        """Size of all rows in memory; None where their number is not known yet."""
        counts = [part.n_rows for part in self._parts]
        if self._facts is None and any(n is None for n in counts):
            return None
        n_rows = sum(n for n in counts if n is not None) if self._facts is None else self._facts.n_given
        return n_rows * self._row_bytes

    @property
    def _row_bytes(self) -> int:
        return self.n_features * self.dtype.itemsize + 8 * self.weighted

    @property
    def _rows_of_a_block(self) -> int:
        return max(self._selection.block_bytes // self._row_bytes, 1)

    def _known(self) -> Facts:
        if self._facts is None:
            self._facts = scan(self._parts, self._selection, self._given, self._place)
        return self._facts

    # -- rows ----------------------------------------------------------------------------------------------------------

    def blocks(self, multiple: int) -> Iterator[RowBlock]:
        """Yield blocks of a multiple of `multiple` rows in order, the last one shorter.

        A block is valid until the next one is asked for.

        Raises
        ------
        DataChangedError
            If the data are not what they were.
        InvalidDataError
            If they cannot be read.
        """
        return self._blocks(multiple, drop=True)

    def originals(self) -> Iterator[tuple[int, FloatArray]]:
        """Yield (first row, rows) in the user's numbering, with zeros in rows of weight 0."""
        for block in self._blocks(1, drop=False):
            yield block.first, block.x

    def kept(self) -> Array | None:
        """Return which of the user's rows have a weight > 0, (N,) bool, or None if all have."""
        facts = self._known()
        if facts.n_rows == facts.n_given:
            return None
        if self._given is not None:
            return self._given.kept()
        assert self._selection.weight is not None  # what else would drop rows
        mask = [w * facts.scale > 0.0 for part in self._parts for w in weights_of(part, self._selection.weight)]
        return np.concatenate(mask)

    def place(self, row: int) -> str:
        """Say where a row is (from 0, those of weight 0 counted): in which file, and where in it."""
        return self._place(row, () if len(self._parts) == 1 else self.unweighted()._known().ends)

    def _place(self, row: int, ends: tuple[int, ...]) -> str:
        part, within = self._locate(row, ends)
        return f"row {row} (from 0), which is {part.place(within)} of {part.source},"

    def is_missing(self, row: int, column: int) -> bool:
        """Whether the value there is missing, and not a NaN."""
        part, within = self.locate(row)
        return part.is_missing(within, self._selection.columns[column])

    def locate(self, row: int) -> tuple[Part, int]:
        """Return the part that a row (from 0, those of weight 0 counted) is in, and its number there."""
        return self._locate(row, () if len(self._parts) == 1 else self.unweighted()._known().ends)

    def _locate(self, row: int, ends: tuple[int, ...]) -> tuple[Part, int]:
        if len(self._parts) == 1:
            return self._parts[0], row
        index = min(bisect_right(ends, row), len(ends) - 1)
        return self._parts[index], row - (ends[index - 1] if index else 0)

    def to_array(self) -> FloatArray:
        """Return all rows as one array (N, D), rows of weight 0 too; a memory map where the file allows it."""
        return self.unweighted().read_all()[0]

    def read_all(self) -> tuple[FloatArray, Float64Array | None]:
        """Return all rows (N, D) and their weights (N,) as they are stored, read once."""
        columns = self._selection
        if len(self._parts) == 1 and not self.weighted:
            whole = self._parts[0].whole(columns.columns, self.dtype)
            if whole is not None:
                return whole, None
        counts = [part.n_rows for part in self._parts]
        size = max(columns.block_bytes // self._row_bytes, 1)
        # A new source, which knows nothing of weights yet and so does not scale them.
        stored = StreamRows(self._parts, replace(columns, prefetch=0))._raw(size, drop=False)
        if any(n is None for n in counts):  # counting first would read a text file twice
            blocks = [(x.copy(), None if w is None else w.copy()) for _, x, w in stored]
            x = np.concatenate([np.empty((0, self.n_features), self.dtype), *(x for x, _ in blocks)])
            return x, np.concatenate([w for _, w in blocks if w is not None]) if columns.weight is not None else None
        x = np.empty((sum(n for n in counts if n is not None), self.n_features), self.dtype)
        weights = None if columns.weight is None else np.empty(x.shape[0])
        for first, part, w in stored:
            x[first : first + part.shape[0]] = part
            if weights is not None and w is not None:
                weights[first : first + w.shape[0]] = w
        return x, weights

    # -- the same rows, otherwise --------------------------------------------------------------------------------------

    def with_dtype(self, dtype: Any) -> StreamRows:
        """Return the same rows converted to float32 or float64."""
        if np.dtype(dtype) == self.dtype:
            return self
        return self._like(replace(self._selection, dtype=np.dtype(dtype)), self._given)

    def with_weights(self, sample_weight: Any) -> StreamRows:
        """Return the same rows with weights (N,) held in memory, or one for all.

        Raises
        ------
        InvalidParameterError
            If there is a weight column already.
        """
        if self.weighted:
            msg = "sample_weight must be None for a source that was opened with weights: which of the two should count?"
            raise InvalidParameterError(msg)
        return self._like(self._selection, RowWeights(sample_weight, self.n_given))

    def unweighted(self) -> StreamRows:
        """Return the same rows, each counting once."""
        return self if not self.weighted else self._like(replace(self._selection, weight=None), None)

    def _like(self, selection: Selection, given: RowWeights | None) -> StreamRows:
        made = StreamRows(self._parts, selection, given)
        made._stamps = self._stamps
        if self._facts is not None and selection.weight == self._selection.weight and given is self._given:
            made._facts = self._facts
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept_block": None, "_spare": []}

    def __repr__(self) -> str:
        where = self.sources[0] if len(self._parts) == 1 else f"{self.sources[0]} and {len(self._parts) - 1} more"
        rows = "?" if self._facts is None and self.n_bytes is None else self.n_given
        weighted = ", weighted" if self.weighted else ""
        return f"StreamRows({where}: {rows} x {self.n_features}, {self.dtype}{weighted})"

    # -- reading -------------------------------------------------------------------------------------------------------

    def _blocks(self, multiple: int, *, drop: bool) -> Iterator[RowBlock]:
        facts = self._known()
        count = facts.n_rows if drop else facts.n_given
        size = max(self._rows_of_a_block // multiple, 1) * multiple
        if count <= self._rows_of_a_block:
            self._check_stamps()
            if not drop or self._kept_block is None:
                # Room to spare, so that rows of weight 0 behind the last one need no second buffer.
                block = next(iter(self._counted(count, count + SPARE_ROWS, drop=drop)))
                if not drop:
                    yield block
                    return
                self._kept_block = block
            yield self._kept_block
            return
        yield from self._counted(count, min(size, count), drop=drop)

    def _counted(self, count: int, size: int, *, drop: bool) -> Iterator[RowBlock]:
        """Yield blocks, and make sure that they are `count` rows, and those of the first pass."""
        self._check_stamps()
        done, checksum = 0, 0
        for block in self._raw(size, drop=drop):
            done += block.x.shape[0]
            if done > count:
                self._raise_changed(f"there are more than the {count} rows there were at first")
            checksum = zlib.crc32(block.x[-block.first % CHECKED :: CHECKED].tobytes(), checksum)
            yield block
        self._check_stamps()
        if done != count:
            self._raise_changed(f"there were {count} rows at first and {done} now")
        if drop:
            if self._checksum is not None and checksum != self._checksum:
                self._raise_changed("rows have other values than they had at first")
            self._checksum = checksum

    def _raw(self, size: int, *, drop: bool) -> Iterator[RowBlock]:
        """Yield blocks of `size` rows, read ahead by a thread where there is more than one."""
        scale = 1.0 if self._facts is None else self._facts.scale
        cut = Cut(size, drop, self._given, scale)

        def read(take: Take) -> Iterator[tuple[RowBlock, Buffer]]:
            return fill(self._parts, self._selection, cut, take)

        several = self._facts is None or self._facts.n_rows > size
        ahead = self._selection.prefetch if several else 0
        buffers = self._buffers(ahead + 1, size)
        try:
            if ahead:
                yield from pumped(read, buffers)
            else:
                for block, _ in read(lambda: buffers[0]):
                    yield block
        finally:
            if several:  # a lone block is kept, and so is its buffer
                self._spare[:] = [buffers]

    def _buffers(self, count: int, size: int) -> list[Buffer]:
        """Return buffers, those of the last pass if they suit."""
        spare = self._spare.pop() if self._spare else []
        if len(spare) == count and spare[0].x.shape[0] == size:
            return spare
        del spare
        return [make_buffer(size, self.n_features, self.dtype, weighted=self.weighted) for _ in range(count)]

    def _check_stamps(self) -> None:
        for part, stamp in zip(self._parts, self._stamps, strict=True):
            if part.stamp() != stamp:
                self._raise_changed(f"{part.source} was written to, replaced or removed")

    def _raise_changed(self, what: str) -> None:
        msg = (
            f"the data changed while they were in use: {what}. A fit reads them once for each iteration: use data that "
            "nobody writes to, and a function that returns the same blocks every time"
        )
        raise DataChangedError(msg)
