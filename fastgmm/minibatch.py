"""Mini-batch passes before a large fit: many small steps of online EM where full EM would make few large ones.

A full pass over a million rows says little more about where the components are than one over the first ten thousand,
but costs a hundred times as much. Two passes in small steps therefore bring parameters about as far as ten or twenty
iterations of EM, if these have far to go. Full passes follow, so the fixed point is that of exact EM.

Batches are consecutive rows, in the order of the source, cut at multiples of the batch size however the source is
stored: the same rows give the same bits from an array and from a file. Rows that are sorted by what distinguishes the
components make batches that are not like the whole; such data should be shuffled first or fitted without these passes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fastgmm.covariance import Reference
from fastgmm.data import ArrayRows
from fastgmm.em import Accumulate
from fastgmm.online import OnlineState, StepSize, absorb, recall, settle, sound
from fastgmm.params import Params
from fastgmm.typing import RowSource
from fastgmm.validation import check_integer

BATCHES_PER_PASS = 64
"""Steps of a pass where the user does not say: with fewer there is little to gain, with more the noise grows."""

LEAST_ROWS = 4096
"""Rows of a batch at least: below, calls and M-steps take longer than the rows."""

ROWS_PER_PARAMETER = 4
"""Rows of a batch at least, for each component and each of its D + 1 dimensions."""


@dataclass(frozen=True, slots=True)
class MiniBatch:
    """First passes of a fit in small steps; given as ``GaussianMixture(first_passes=MiniBatch())``.

    Parameters
    ----------
    n_passes : int, default 2
        Passes over all rows.
    batch_size : int, optional
        Rows of a batch; about a 64th of all rows where not given, but no fewer than 4096 nor than 4 K (D + 1).

    Raises
    ------
    InvalidParameterError
        If one of them is not a positive integer.

    Examples
    --------
    >>> from fastgmm import GaussianMixture, MiniBatch
    >>> GaussianMixture(8, first_passes=MiniBatch(n_passes=1)).first_passes
    MiniBatch(n_passes=1, batch_size=None)
    """

    n_passes: int = 2
    batch_size: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_passes", check_integer(self.n_passes, "n_passes", minimum=1))
        if self.batch_size is not None:
            object.__setattr__(self, "batch_size", check_integer(self.batch_size, "batch_size", minimum=1))

    def rows_of(self, n_rows: int, n_components: int, n_features: int) -> int:
        """Return the rows of a batch for data and a model of these sizes."""
        if self.batch_size is not None:
            return self.batch_size
        return max(n_rows // BATCHES_PER_PASS, LEAST_ROWS, ROWS_PER_PARAMETER * n_components * (n_features + 1))


def batches(rows: RowSource, size: int) -> Iterator[ArrayRows]:
    """Yield consecutive batches of `size` rows, the last one shorter; each is valid until the next is asked for."""
    for _, x, weight in rows.blocks(size):
        for start in range(0, x.shape[0], size):
            stop = start + size
            yield ArrayRows(x[start:stop], None if weight is None else weight[start:stop])


def run_passes(
    rows: RowSource,
    params: Params,
    schedule: MiniBatch,
    *,
    accumulate: Callable[[ArrayRows, str], Accumulate],
    scatter: str,
    step_size: StepSize,
    reg_covar: Reference,
    reference_variance: Reference,
    floor: bool,
    deadline: float | None = None,
) -> Params:
    """Improve parameters by mini-batch passes.

    Parameters
    ----------
    rows : RowSource
    params : Params
        The start. It counts as much as one batch, so that no component dies of a batch without rows of it.
    schedule : MiniBatch
    accumulate : callable
        ``accumulate(batch, scatter)`` returns the pass over a batch.
    scatter : str
        Scatter kind of the family.
    step_size : StepSize
    reg_covar, reference_variance, floor
        As in `fastgmm.online.settle`.
    deadline : float or None
        Value of `time.perf_counter`: the first batch that ends later is the last.

    Returns
    -------
    Params
        `params` itself where all rows are a single batch: that is what an iteration of EM does as well.
    """
    size = schedule.rows_of(rows.n_rows, params.n_components, params.n_features)
    if size >= rows.n_rows:
        return params
    memory: OnlineState | None = None
    params, _ = sound(params, reference_variance, floor=floor, dtype=rows.dtype)
    for _ in range(schedule.n_passes):
        for batch in batches(rows, size):
            if memory is None:
                memory = recall(params, batch.total_weight, reg_covar)
            stats = accumulate(batch, scatter)(params)
            memory = absorb(memory, stats, stats.total_weight, step_size)
            params, memory = settle(memory, params, reg_covar, reference_variance, floor=floor, dtype=rows.dtype)
            if deadline is not None and time.perf_counter() >= deadline:
                return params
    return params
