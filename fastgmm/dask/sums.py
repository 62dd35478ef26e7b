"""A pass over distributed rows: by messages (`fastgmm.dask.calls`), or as tasks.

As tasks a pass is one graph: the packed parameters travel inline with the tasks (`Work`), each task runs where its slab
is, and neighbours are merged eight at a time while they are more than eight. When workers die, Dask makes their slabs
again and runs their tasks elsewhere; when it gives up, the pass starts again from the same parameters.

Either way the blocks that the sums cover are checked at the end, so it does not matter what was computed twice.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import dask
import numpy as np

from fastgmm import covariance, passes
from fastgmm.dask import tasks
from fastgmm.dask.calls import Calls, Unreachable
from fastgmm.dask.rows import DaskRows
from fastgmm.dask.session import Session
from fastgmm.em import Accumulate
from fastgmm.kernels.programs import PROGRAMS
from fastgmm.kernels.schedule import block_rows
from fastgmm.params import Params
from fastgmm.partials import Partial, PartialRunner, Work
from fastgmm.stats import SufficientStatistics
from fastgmm.typing import Float64Array, RowBlock

_log = logging.getLogger(__name__)

ARITY = 8
"""Parts that one task merges."""


class _Suspects:
    """What an `Accumulator` may read of distributed rows: only the row that is not finite, if there is one."""

    def __init__(self, rows: DaskRows) -> None:
        self._rows = rows
        self.n_rows = rows.n_rows
        self.n_features = rows.n_features
        self.dtype: np.dtype[Any] = rows.dtype
        self.weighted = rows.weighted

    def blocks(self, multiple: int) -> Iterator[RowBlock]:
        """Yield the first row that is not finite."""
        del multiple
        for first, x in self._rows.originals():
            yield RowBlock(first, x, None)


class ClusterRunner(PartialRunner):
    """Runs passes over the slabs of distributed rows: by messages where that is possible, else by tasks.

    Parameters
    ----------
    rows : DaskRows
    session : Session, optional
        Of the fit; without it, and for rows that do not stay on the workers, there are tasks only.
    """

    def __init__(self, rows: DaskRows, session: Session | None = None) -> None:
        super().__init__(self._parts)
        self._rows = rows
        self._calls = Calls(rows, session) if session is not None and rows.persist else None
        self._last: Any = None

    def _parts(self, work: Work) -> list[Partial]:
        rows = self._rows
        if (calls := self._calls) is not None:
            try:
                return rows.cluster.retried(lambda: calls.run(work), rows.recover)
            except Unreachable as why:
                _log.warning("fastgmm.dask: passes go through the scheduler, which is slower: %s", why)
                self._calls = None
        found = rows.cluster.retried(lambda: self._once(work), rows.recover)
        return [part for part in found if part is not None]

    def _once(self, work: Work) -> list[Partial | None]:
        client, slabs = self._rows.cluster.client, self._rows.slabs()
        if self._rows.persist:
            parts = client.map(tasks.run_slab, [work] * len(slabs), slabs, pure=False, key="accumulate")
            level = parts
            while len(level) > ARITY:
                groups = [level[i : i + ARITY] for i in range(0, len(level), ARITY)]
                level = client.map(tasks.merge_parts, groups, pure=False, key="merge")
        else:
            run, merge = dask.delayed(tasks.run_slab, pure=False), dask.delayed(tasks.merge_parts, pure=False)
            work = dask.delayed(work)
            parts = [run(work, slab) for slab in slabs]
            while len(parts) > ARITY:
                parts = [merge(parts[i : i + ARITY]) for i in range(0, len(parts), ARITY)]
            level = client.compute(parts, optimize_graph=False)
        found: list[Partial | None] = client.gather(self._rows.cluster.finished(level))
        # Futures are dropped only now that the next ones are on their way: to drop one is a message, too, and the next
        # message would wait until it is sent.
        self._last = parts, level
        return found


def accumulate_on(
    rows: DaskRows, scatter: str, centre: Float64Array | None = None, *, session: Session | None = None
) -> Accumulate:
    """Return the pass of a fit over distributed rows; `centre` as in `fastgmm.passes.Accumulator`."""
    run = passes.Accumulator(_Suspects(rows), scatter, centre=centre, runner=ClusterRunner(rows, session))

    def accumulate(params: Params, *, moments: bool = True) -> SufficientStatistics:
        return run(covariance.density(params, rows.dtype), moments=moments)

    return accumulate


def grid_rows(n_components: int, n_features: int, covariance_type: str, dtype: Any) -> int:
    """Return the rows of a block in the passes of a fit."""
    family = covariance.FAMILIES[covariance_type]
    square = np.eye(n_features) if family.shape(1, n_features)[-2:] == (n_features, n_features) else 1.0
    means = np.zeros((n_components, n_features))
    params = Params(
        np.full(n_components, 1.0 / n_components),
        means,
        np.ones(family.shape(n_components, n_features)) * square,
        family.name,
    )
    density = covariance.density(params)
    program, _ = PROGRAMS[density.kind](density, np.dtype(dtype))
    return block_rows(n_components, program.slot_length)
