"""Hard assignment: k-means, and the statistics of the clusters around given centers.

A row belongs to the nearest center. Everything here is a pass in which the responsibilities are 0 and 1.
"""

from __future__ import annotations

import time
from typing import Final

import numpy as np

from fastgmm import passes
from fastgmm.density import Density
from fastgmm.kernels import arguments as a
from fastgmm.kernels.lloyd import is_short, lloyd_program
from fastgmm.kernels.programs import far_small
from fastgmm.kernels.runner import Runner
from fastgmm.kernels.small import LARGEST
from fastgmm.kernels.sums import MOMENTS
from fastgmm.stats import SufficientStatistics
from fastgmm.typing import Float64Array, RowSource

_FACTORS: Final = {"full": "chol"}
"""Scatter kind -> factor kind, of the passes that sum moments of labelled rows about each center."""


def spheres(centers: Float64Array, kind: str = "scalar") -> Density:
    """Return equal spheres around `centers` (K, D), as "scalar" or "chol": the most probable one is the nearest."""
    k, d = centers.shape
    nothing = np.zeros(k)
    if kind == "scalar":
        return Density(kind, centers, np.ones(k), nothing, nothing)
    factor = np.zeros((k, d, d))
    factor.reshape(k, -1)[:, :: d + 1] = 1.0
    return Density(kind, centers, factor, nothing, nothing)


def lloyd(
    rows: RowSource, centers: Float64Array, tol: float, rounds: int, deadline: float | None = None
) -> Float64Array:
    """Return the centers (K, D) of k-means: Lloyd's iterations from `centers`.

    Parameters
    ----------
    rows : RowSource
        Centred: means are summed about 0, or, where there are many rows, about the mean of the centers.
    centers : ndarray (K, D) float64
    tol : float
        The iterations end when the centers move, squared and summed, by no more than this.
    rounds : int
        Iterations at most.
    deadline : float, optional
        Value of `time.perf_counter`: no iteration begins later, but those that fit into one launch are one.

    Raises
    ------
    NonFiniteDataError, InvalidDataError
        As `fastgmm.passes.assign`.
    """
    late = deadline is not None and time.perf_counter() >= deadline
    program, moved = lloyd_program(spheres(centers), rows.dtype, tol, rounds)
    if not late and is_short(program, rows.n_rows):
        if Runner(1).run(program, rows, a.ASSIGN)[a.LOST] > 0.0:
            passes.raise_lost(rows)
        return moved
    for _ in range(rounds):
        if deadline is not None and time.perf_counter() >= deadline:
            break
        _, means, _ = passes.assign(rows, centers)
        shift = means - centers
        centers = means
        if float(np.einsum("ij,ij->", shift, shift)) <= tol:
            break
    return centers


def has_partition(scatter: str, n_features: int) -> bool:
    """Whether `partition` serves such rows."""
    return scatter in _FACTORS and n_features <= LARGEST


def partition(rows: RowSource, centers: Float64Array) -> SufficientStatistics:
    """Return the statistics of the rows nearest to each center, scatter kind "full", in one pass.

    Parameters
    ----------
    rows : RowSource
        Of few features; see `has_partition`.
    centers : ndarray (K, D) float64
        Amid the rows: moments are first taken about them.

    Raises
    ------
    NonFiniteDataError, InvalidDataError
        As `fastgmm.passes.assign`.
    """
    density = spheres(centers, "chol")
    program, _ = far_small(density, rows.dtype)
    total = Runner().run(program, rows, a.ASSIGN)
    if total[a.LOST] > 0.0:
        passes.raise_lost(rows)
    reference, s0, s1, s2 = MOMENTS["chol", "full"](program, total, density)
    weight = float(s0.sum())
    return SufficientStatistics.from_moments(
        "full", reference, s0, s1, s2, log_likelihood=0.0, log_map=0.0, total_weight=weight, n_rows=rows.n_rows
    )
