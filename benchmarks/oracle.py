"""EM in plain NumPy, in blocks of rows, sharing no code with any library: what every peer's result is held against.

Obvious rather than fast: one component at a time, and scatter about the new means in a second pass over the rows.
"""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.linalg import solve_triangular

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.data import Problem

BLOCK = 1000  # rows: what a component makes of them fits a cache


class State(NamedTuple):
    """Parameters of a mixture; covariances in scikit-learn's shape."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray


def dense(covariances: np.ndarray, k: int, d: int, covariance_type: str) -> Iterator[np.ndarray]:
    """Yield each component's (D, D) covariance."""
    for j in range(k):
        yield {
            "full": lambda j=j: covariances[j],
            "tied": lambda: covariances,
            "diag": lambda j=j: np.diag(covariances[j]),
            "spherical": lambda j=j: covariances[j] * np.eye(d),
        }[covariance_type]()


def log_densities(X: np.ndarray, state: State, covariance_type: str) -> np.ndarray:
    """Return log(weight_k N(x | mean_k, covariance_k)), shape (n, K)."""
    k, d = state.means.shape
    out = np.empty((len(X), k))
    if covariance_type in {"diag", "spherical"}:
        for j in range(k):
            variance = np.broadcast_to(state.covariances[j], d)
            y = X - state.means[j]
            out[:, j] = -0.5 * (y * y @ (1 / variance) + np.log(2 * np.pi * variance).sum())
        return out + np.log(state.weights)
    for j, covariance in enumerate(dense(state.covariances, k, d, covariance_type)):
        chol = np.linalg.cholesky(covariance)
        y = (X - state.means[j]) @ solve_triangular(chol, np.eye(d), lower=True).T
        out[:, j] = -0.5 * ((y * y).sum(axis=1) + d * np.log(2 * np.pi)) - np.log(np.diag(chol)).sum()
    return out + np.log(state.weights)


def em(problem: Problem, iterations: int, reg_covar: float = 0.0) -> tuple[State, list[float]]:
    """Return the parameters after some iterations, and the log-likelihood of the start and after each iteration."""
    states, history = path(problem, iterations, reg_covar)
    return states[-1], history


def path(problem: Problem, iterations: int, reg_covar: float = 0.0) -> tuple[list[State], list[float]]:
    """Return the parameters and the log-likelihood of the start and after each iteration."""
    X, kind = problem.X, problem.case.covariance_type
    states = [State(problem.weights, problem.means, problem.covariances)]
    blocks = [slice(i, i + BLOCK) for i in range(0, len(X), BLOCK)]
    history = []
    for iteration in range(iterations + 1):
        total, responsibilities = 0.0, []
        for block in blocks:
            log_p = log_densities(X[block].astype(float), states[-1], kind)
            norm = np.logaddexp.reduce(log_p, axis=1, keepdims=True)
            total += float(norm.sum())
            responsibilities.append(np.exp(log_p - norm))
        history.append(total)
        if iteration < iterations:
            states.append(_maximize(X, blocks, responsibilities, kind, reg_covar))
    return states, history


def one_blas_thread() -> AbstractContextManager[object]:
    """Return a context in which BLAS starts no threads: with small matrices on a busy machine they wait for ever."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:  # asv's environments have none
        return nullcontext()
    return threadpool_limits(1, "blas")


RESOLUTION = {"float64": 1e-10, "float32": 5e-5}
"""Differences, as `difference` measures them, that rounding alone makes in fits of such rows."""


class Reference(NamedTuple):
    """What a library's result is held against after some iterations."""

    state: State
    step: float  # how far the last iteration went, as `difference` measures it
    history: list[float]

    def same(self, difference: float, tolerance: float, dtype: str = "float64") -> bool:
        """Return whether a result with this difference can be of the same number of iterations from the same start.

        Where the last iteration changed less than the dtype's rounding can tell, the difference says nothing of their
        number, and only the tolerance counts.
        """
        step = self.step / 10
        return bool(difference < (tolerance if step < RESOLUTION[dtype] else min(tolerance, step)))


def reference(problem: Problem, iterations: int, folder: Path | None = None) -> Reference:
    """Return what to hold results against; kept in a folder, if given, under a name that data and method decide."""
    kind = problem.case.covariance_type
    files = [None] * (iterations + 1)
    if folder is not None:
        key = hashlib.sha256(Path(__file__).read_bytes())
        for array in (problem.X, problem.weights, problem.means, problem.covariances):
            key.update(np.ascontiguousarray(array).data)
        stem = f"{problem.case.name}-{problem.X.dtype}-{key.hexdigest()[:16]}"
        files = [folder / f"{stem}-{i}.npz" for i in range(iterations + 1)]
        if files[-1].exists():
            with np.load(files[-1]) as kept:
                state = State(*(kept[name] for name in State._fields))
                return Reference(state, float(kept["step"]), list(kept["history"]))
    with one_blas_thread():
        states, history = path(problem, iterations)
    for i in range(1, iterations + 1):
        found = Reference(states[i], difference(states[i - 1], states[i], kind), history[: i + 1])
        if folder is not None:  # those of fewer iterations are on the way
            folder.mkdir(parents=True, exist_ok=True)
            np.savez(files[i], **found.state._asdict(), step=found.step, history=found.history)
    return found


def _maximize(X: np.ndarray, blocks: list[slice], resp: list[np.ndarray], kind: str, reg: float) -> State:
    mass = sum(r.sum(axis=0) for r in resp)
    means = sum(r.T @ X[b].astype(float) for r, b in zip(resp, blocks, strict=True)) / mass[:, None]
    k, d = means.shape
    scatter = np.zeros((k, d) if kind in {"diag", "spherical"} else (k, d, d))
    for r, block in zip(resp, blocks, strict=True):
        for j in range(k):
            y = X[block].astype(float) - means[j]
            scatter[j] += r[:, j] @ (y * y) if scatter.ndim == 2 else (y * r[:, j : j + 1]).T @ y
    covariances = {
        "full": lambda: scatter / mass[:, None, None] + reg * np.eye(d),
        "tied": lambda: scatter.sum(axis=0) / mass.sum() + reg * np.eye(d),
        "diag": lambda: scatter / mass[:, None] + reg,
        "spherical": lambda: (scatter / mass[:, None] + reg).mean(axis=1),
    }[kind]()
    return State(mass / mass.sum(), means, covariances)


def difference(state: State, reference: State, covariance_type: str) -> float:
    """Return the largest difference of two sets of parameters, relative to weights and standard deviations.

    Means are measured in standard deviations, covariances by the product of the two standard deviations.
    """
    k, d = reference.means.shape
    deviations = np.array([np.sqrt(np.diag(c)) for c in dense(reference.covariances, k, d, covariance_type)])
    scale = {
        "full": lambda: deviations[:, :, None] * deviations[:, None, :],
        "tied": lambda: deviations[0][:, None] * deviations[0],
        "diag": lambda: deviations**2,
        "spherical": lambda: deviations[:, 0] ** 2,
    }[covariance_type]()
    worst = [
        np.max(np.abs(mine - theirs) / unit)
        for mine, theirs, unit in zip(state, reference, (reference.weights, deviations, scale), strict=True)
    ]
    return float(np.max(worst))  # NaN if any is: Python's own max would pass over it
