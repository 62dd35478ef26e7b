"""The problems every benchmark works on: one seeded builder, so that two benchmarks mean the same by the same name.

A problem is data drawn from a known mixture, and a start near it (means off by half a standard deviation, pooled
covariances, equal weights), so that each library does the same EM iterations on the same numbers. How much the
components overlap decides how much a clever pass may skip, hence the kinds:

- overlapping: rows belong to several components at once; nothing can be skipped.
- separated: almost every row belongs to one component, and most pairs of row and component do not matter.
- embedding: decaying spectrum and an offset, as in text or image embeddings after PCA.
- ubm: a universal background model of speech: diagonal, skewed weights, heavy overlap.

``python -m benchmarks.data`` prints how much the components of each problem overlap.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

SMALL = os.environ.get("FASTGMM_BENCH_SMALL", "0") not in {"", "0"}


@dataclass(frozen=True)
class Case:
    """Shape and kind of a problem; its name is what benchmarks and tables call it."""

    n: int
    d: int
    k: int
    covariance_type: str = "full"
    kind: str = "overlapping"
    distance: float = 3.0  # typical distance of two means, in standard deviations
    difference: float = 0.01  # how much covariances differ from one another

    @property
    def name(self) -> str:
        return f"{self.covariance_type}-{self.n:.0e}-{self.d}-{self.k}".replace("e+0", "e")

    @property
    def flops(self) -> float:
        """Useful floating-point operations of one EM iteration; a fused multiply-add counts as two."""
        n, d, k = self.n, self.d, self.k
        return {
            "full": 2.0 * n * k * d * (d + 1),  # a triangular product and a triangular update per row and component
            "tied": 1.0 * n * d * (d + 1) + 4.0 * n * k * d,
            "diag": 8.0 * n * k * d,
            "spherical": 4.0 * n * k * d,
        }[self.covariance_type]

    @property
    def density_flops(self) -> float:
        """Those of the densities alone: half, but for tied covariances, whose triangular product is theirs alone."""
        if self.covariance_type == "tied":
            return self.flops - 2.0 * self.n * self.k * self.d
        return self.flops / 2

    def small(self) -> Case:
        """Return a problem of the same kind that takes milliseconds."""
        return replace(self, n=2000, d=min(self.d, 32), k=min(self.k, 8))


CASES = (
    Case(1_000_000, 2, 8),
    Case(200_000, 16, 16),
    Case(100_000, 64, 16, distance=2.3),
    Case(20_000, 256, 8, kind="separated", distance=4.0, difference=0.05),
    Case(500_000, 8, 128, kind="separated", distance=15.0, difference=0.2),
    Case(200_000, 32, 64, kind="separated", distance=9.0, difference=0.1),
    Case(100_000, 128, 64, kind="embedding", distance=5.0, difference=0.05),
    Case(500_000, 64, 64, "diag", kind="ubm", difference=0.1),
    Case(500_000, 64, 64, "spherical"),
    Case(200_000, 32, 16, "tied"),
)
"""The problems of the comparison: the shapes that published benchmarks and applications use."""

SHORT = Case(300, 2, 3)
"""What a model search does a thousand times: here the time is Python's, not the kernel's."""

ALL = (*CASES, SHORT)


def by_name(name: str) -> Case:
    """Return one of `CASES`, shrunk if the environment says so."""
    for case in ALL:
        if case.name == name:
            return case.small() if SMALL and case is not SHORT else case
    msg = f"no case {name!r}; there are {', '.join(c.name for c in ALL)}"
    raise ValueError(msg)


@dataclass(frozen=True)
class Problem:
    """Data and a start; arrays are C-contiguous."""

    case: Case
    X: np.ndarray  # (n, d)
    weights: np.ndarray  # (k,) float64
    means: np.ndarray  # (k, d) float64
    covariances: np.ndarray  # float64, scikit-learn's shape for the covariance type
    precisions: np.ndarray  # their inverses


@lru_cache(maxsize=1)
def build(case: Case, dtype: str = "float64", seed: int = 0) -> Problem:
    """Return the data and the start of a case.

    Parameters
    ----------
    case : Case
    dtype : str
        "float64" or "float32": the type of X; the numbers are drawn in float64 and are the same.
    seed : int

    Returns
    -------
    Problem
    """
    rng = np.random.default_rng([seed, case.d, case.k])
    n, d, k = case.n, case.d, case.k
    distance, difference = case.distance, case.difference
    spectrum = 1.0 / np.sqrt(1.0 + np.arange(d)) if case.kind == "embedding" else np.ones(d)  # standard deviations
    diagonal = case.covariance_type in {"diag", "spherical"}

    means = rng.standard_normal((k, d)) * spectrum * (distance / np.sqrt(2 * d))
    if case.kind == "embedding":
        means += 0.5 * spectrum
    factors = np.zeros((k, d, d))
    for j in range(k):
        scale = np.exp(difference * rng.standard_normal(d))
        if case.covariance_type == "spherical":
            scale[:] = scale[0]
        factors[j] = np.diag(scale)
        if not diagonal:
            factors[j] += difference * rng.standard_normal((d, d)) / np.sqrt(d)
        if case.covariance_type == "tied" and j:
            factors[j] = factors[0]
        factors[j] *= spectrum[:, None]

    weights = rng.dirichlet(np.full(k, 2.0 if case.kind == "ubm" else 10.0))
    labels = np.sort(rng.choice(k, size=n, p=weights))
    X = rng.standard_normal((n, d))
    first = np.searchsorted(labels, np.arange(k + 1))
    for j in range(k):
        rows = slice(first[j], first[j + 1])
        X[rows] = X[rows] @ factors[j].T + means[j]
    rng.shuffle(X)

    within = np.einsum("k,kij,klj->il", weights, factors, factors)
    deviation = np.sqrt(np.diag(within))
    start = means + 0.5 * deviation * rng.standard_normal((k, d)) * min(1.0, 2.0 / np.sqrt(d))
    covariances = {
        "full": lambda: np.repeat(within[None], k, axis=0),
        "tied": lambda: within,
        "diag": lambda: np.repeat(np.diag(within)[None], k, axis=0),
        "spherical": lambda: np.full(k, np.diag(within).mean()),
    }[case.covariance_type]()
    dense = case.covariance_type in {"full", "tied"}
    precisions = np.linalg.inv(covariances) if dense else 1.0 / covariances
    return Problem(case, np.ascontiguousarray(X, dtype=dtype), np.full(k, 1.0 / k), start, covariances, precisions)


def main() -> None:
    """Print, for each case, how many (row, component) pairs matter after a few iterations."""
    from benchmarks.oracle import em, log_densities

    print(f"{'case':24} {'kind':12} {'r > e^-60':>9} {'r > e^-40':>9} {'r > e^-20':>9} {'kept':>9} {'mean max r':>10}")
    for case in CASES:
        problem = build(replace(case, n=min(case.n, max(10_000, 6 * case.k * case.d))))
        state, _ = em(problem, 3)
        log_p = log_densities(problem.X[:5000], state, case.covariance_type)
        log_r = log_p - np.logaddexp.reduce(log_p, axis=1, keepdims=True)
        shares = " ".join(f"{np.mean(log_r > -t):9.3f}" for t in (60, 40, 20))
        kept = np.mean(log_p - log_p.max(axis=1, keepdims=True) >= np.log(state.weights) - 40.0)  # docs/numerics.md
        print(f"{case.name:24} {case.kind:12} {shares} {kept:9.3f} {np.exp(log_r.max(axis=1)).mean():10.3f}")


if __name__ == "__main__":
    main()
