"""How a fit gets at its rows: the one place where an array in memory and data anywhere else differ.

A fit reads rows in three ways, and an `Engine` is these three functions. Everything above them (starts, EM, reports,
checkpoints) is the same for all engines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from fastgmm import covariance
from fastgmm.constants import SMALL_COVARIANCES_BYTES
from fastgmm.data import Rows, as_rows
from fastgmm.density import Density
from fastgmm.em import Accumulate
from fastgmm.initialize import RowSample, draw_sample
from fastgmm.params import Params
from fastgmm.passes import Accumulator
from fastgmm.stats import SufficientStatistics
from fastgmm.typing import Float64Array


class MakeRows(Protocol):
    """Checks of X and the weights."""

    def __call__(self, X: Any, sample_weight: Any = None, *, dtype: Any = None) -> Rows:
        """Return the rows of `X`; as float64 or float32 where `dtype` says so."""
        ...


class DrawSample(Protocol):
    """The rows that starts are made from, and the variance of the features."""

    def __call__(
        self, rows: Rows, n_components: int, rng: np.random.Generator, *, spread_only: bool = False
    ) -> RowSample:
        """See `fastgmm.initialize.draw_sample`."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """Three ways to the rows.

    Attributes
    ----------
    rows : callable
        ``rows(X, sample_weight=None, *, dtype=None)``: check them and return a row source, which at least knows n_rows,
        n_features, dtype, total_weight, weight_scale, weighted and kept().
    sample : callable
        ``sample(rows, n_components, rng, *, spread_only=False) -> RowSample``.
    accumulate : callable
        ``accumulate(rows, scatter, centre)`` returns the pass of a fit,
        ``(params, *, moments=True) -> SufficientStatistics``. `centre` (D,) is a place near the mean of the data that
        depends on nothing but data and random state, see `fastgmm.passes.Accumulator`.
    """

    rows: MakeRows
    sample: DrawSample
    accumulate: Callable[[Rows, str, Float64Array], Accumulate]


class PassHere:
    """The pass over `rows` in this process; arguments as `Engine.accumulate`."""

    def __init__(self, rows: Rows, scatter: str, centre: Float64Array) -> None:
        self._run = Accumulator(rows, scatter, centre=centre)
        self._dtype = rows.dtype
        self._last: tuple[Params, Density] | None = None

    def __call__(self, params: Params, *, moments: bool = True) -> SufficientStatistics:
        """Run the pass."""
        density = covariance.density(params, self._dtype)
        small = params.covariances.nbytes <= SMALL_COVARIANCES_BYTES  # large ones are not held between passes
        self._last = (params, density) if small else None
        return self._run(density, moments=moments)

    def density(self, params: Params) -> Density | None:
        """Return the density of these parameters if the last pass was made with it."""
        return self._last[1] if self._last is not None and self._last[0] is params else None


IN_MEMORY: Final = Engine(rows=as_rows, sample=draw_sample, accumulate=PassHere)
"""Whatever `as_rows` reads, in this process."""
