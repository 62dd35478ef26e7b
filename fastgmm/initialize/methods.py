"""Starts by name: `METHODS` maps ``init_params`` to a function of the sample.

The three methods with centers differ only in how they choose them; the rows nearest to each center then give its weight
and covariance. Methods work on the centred and scaled sample and know nothing of covariance families.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from fastgmm import passes
from fastgmm.clusters import lloyd, spheres
from fastgmm.data import ArrayRows
from fastgmm.initialize.sample import RowSample
from fastgmm.typing import Array, Float64Array, FloatArray, IntArray

SEED_ROWS = 8192
"""k-means++ looks at no more rows than this (or 16 K): one sweep over them for each candidate."""

SEED_ROWS_PER_COMPONENT = 16

FEW_FEATURES = 4
"""Up to so many, distances are summed column by column: rows are too short for loops of their own."""

LLOYD_ITERATIONS = 50
"""k-means is a start, not a result; it is stopped here at the latest."""

LLOYD_TOL = 1e-4
"""k-means has converged when its centers move, squared and summed, by no more than this times the mean variance
(scikit-learn's rule and number)."""

RANDOM_ROWS = 2048
"""Rows that get random responsibilities (or 8 K). With more, all components would start at the mean of the data."""

RANDOM_ROWS_PER_COMPONENT = 8


def kmeans(
    sample: RowSample, n_components: int, rng: np.random.Generator, deadline: float | None = None
) -> Float64Array:
    """Return k-means centers (K, D): Lloyd's iterations from k-means++ seeds."""
    centers = seeds(sample, n_components, rng, deadline)
    tol = LLOYD_TOL * float(sample.variance.mean()) / sample.unit**2
    return lloyd(ArrayRows(sample.z, sample.weight), centers, tol, LLOYD_ITERATIONS, deadline)


def seeds(
    sample: RowSample, n_components: int, rng: np.random.Generator, deadline: float | None = None
) -> Float64Array:
    """Return K rows far apart, (K, D): k-means++ seeds."""
    return sample.z[plus_plus(sample, n_components, rng, deadline)].astype(np.float64)


def random_rows(
    sample: RowSample,
    n_components: int,
    rng: np.random.Generator,
    deadline: float | None = None,  # noqa: ARG001 - one signature for all; this one is quick
) -> Float64Array:
    """Return K different rows drawn at random in proportion to their weights, (K, D)."""
    return sample.z[_draw(sample, n_components, rng)].astype(np.float64)


CENTERS: dict[str, Callable[[RowSample, int, np.random.Generator, float | None], Float64Array]] = {
    "kmeans": kmeans,
    "k-means++": seeds,
    "random_from_data": random_rows,
}
"""Functions of the sample, K, the random generator and a value of `time.perf_counter` or None: when that is over, what
is left to do is done in a simpler way."""

METHODS: tuple[str, ...] = (*CENTERS, "random")
"""Valid names of ``init_params``."""


def random_responsibilities(
    sample: RowSample, n_components: int, rng: np.random.Generator
) -> tuple[RowSample, Float64Array]:
    """Return a part of the sample and uniform random responsibilities for it, (n, K), rows not normalised."""
    size = max(RANDOM_ROWS, RANDOM_ROWS_PER_COMPONENT * n_components)
    if sample.z.shape[0] > size:
        sample = sample.take(np.sort(_draw(sample, size, rng)))
    # 1 - [0, 1) is never zero, so every row belongs somewhere.
    return sample, 1.0 - rng.random((sample.z.shape[0], n_components))


def nearest(sample: RowSample, centers: Float64Array) -> IntArray:
    """Return the index of the center nearest to each row, (n,)."""
    # By the kernel that k-means has compiled, and not one that only this pass would need.
    return passes.predict(ArrayRows(sample.z, sample.weight), spheres(centers), apart=True)


def _draw(sample: RowSample, size: int, rng: np.random.Generator) -> IntArray:
    """Draw `size` different rows in proportion to their weights."""
    n = sample.z.shape[0]
    if sample.weight is None:
        return rng.choice(n, size, replace=False)
    return _largest_keys(sample.weight, size, rng)


def _largest_keys(weight: Array, size: int, rng: np.random.Generator) -> IntArray:
    """Draw `size` different rows in proportion to `weight` (n,), those of weight 0 last.

    The largest of log(u)/w (Efraimidis and Spirakis): draws without replacement even where weights span 600 decades.
    """
    with np.errstate(divide="ignore", over="ignore"):
        keys = np.log(rng.random(weight.shape[0])) / weight
    return np.argsort(-keys, kind="stable")[:size].astype(np.int64)


def plus_plus(
    sample: RowSample, n_components: int, rng: np.random.Generator, deadline: float | None = None
) -> IntArray:
    """Choose K rows, each far from those before it.

    Parameters
    ----------
    sample : RowSample
        At most `SEED_ROWS` rows of it (or 16 for each component) are looked at.
    n_components : int
        K.
    rng : numpy.random.Generator
    deadline : float or None
        Value of `time.perf_counter` from which on all other rows are drawn at once, as the next one would be.

    Returns
    -------
    ndarray (K,) int64
        Rows of the sample; different ones as long as there are rows at different places.

    Notes
    -----
    The next row is drawn with probability proportional to w_i min_j |z_i - c_j|^2, 2 + log K times, and the draw that
    leaves the smallest sum of these is kept. A row of weight 2 is drawn as two rows would be.

    References
    ----------
    D. Arthur, S. Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007.
    """
    size = max(SEED_ROWS, SEED_ROWS_PER_COMPONENT * n_components)
    part: IntArray | None = None
    if sample.z.shape[0] > size:
        part = np.sort(_draw(sample, size, rng))
        # Rows were drawn in proportion to their weights, so they count the same now.
        z, weight = sample.z[part], None
    else:
        z, weight = sample.z, sample.weight
    chosen = np.zeros(n_components, dtype=np.int64)
    mass = np.ones(z.shape[0]) if weight is None else weight
    chosen[0] = _by_mass(mass, rng.random(1))[0]
    closest = _sq_distances(z, z[chosen[:1]])[0]
    n_trials = 2 + int(math.log(n_components))
    for k in range(1, n_components):
        score = closest if weight is None else closest * weight
        if not score.max() > 0.0:
            # Fewer distinct rows than components: the others start on top of these.
            chosen[k:] = _by_mass(mass, rng.random(n_components - k))
            break
        if deadline is not None and time.perf_counter() >= deadline:
            chosen[k:] = _largest_keys(score, n_components - k, rng)
            break
        candidates = _by_mass(score, rng.random(n_trials))
        distances = np.minimum(closest, _sq_distances(z, z[candidates]))
        best = int((distances if weight is None else distances * weight).sum(axis=1).argmin())
        chosen[k], closest = candidates[best], distances[best]
    return chosen if part is None else part[chosen]


def _by_mass(mass: Array, u: Float64Array) -> IntArray:
    """Return the rows at the fractions `u` of the cumulated mass; never a row of mass 0."""
    cumulated = mass.cumsum()
    index = cumulated.searchsorted(u * cumulated[-1], side="right")
    if index.max() == mass.shape[0]:  # a product that was rounded up to the whole mass
        index = np.minimum(index, np.flatnonzero(mass)[-1])
    return np.asarray(index, dtype=np.int64)


def _sq_distances(z: FloatArray, points: FloatArray) -> Float64Array:
    """Squared distance of every row to each point, (m, n) float64, by differences: no cancellation, no BLAS threads."""
    if z.shape[1] <= FEW_FEATURES:
        total = np.zeros((len(points), z.shape[0]))
        with np.errstate(over="ignore"):  # infinitely far is far: such a row is drawn next
            for column, places in zip(z.T, points.T, strict=True):
                d = np.subtract(column, places[:, None], dtype=np.float64)
                d *= d
                total += d
        return total
    out = np.empty((len(points), z.shape[0]))
    for point, row in zip(points, out, strict=True):
        d = np.subtract(z, point, dtype=np.float64)
        np.einsum("ij,ij->i", d, d, out=row)
    return out
