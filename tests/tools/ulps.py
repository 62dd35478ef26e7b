"""One E-step and one M-step of every family against 50 digits: how many ulps they are off, and what part of the bound.

    python -m tests.tools.ulps            every case, a table
    python -m tests.tools.ulps --few      the cases that the suite runs

Two measures. *ulps*: the error of a log-density over the spacing of floating-point numbers at the log-density itself,
in the precision of the rows. It is small only where covariances are well conditioned: with a condition number of C the
last bit of the input decides log10(C) digits of the answer. All other columns: the error over the bound that
`tests/rounding.py` derives from the conditioning; below 1, nothing is lost that a backward stable computation keeps.
"""

import argparse
from typing import NamedTuple

import numpy as np

from fastgmm import covariance, passes
from fastgmm.data import as_rows
from fastgmm.params import Params
from tests import exact, reference, rounding

DIMENSIONS = (1, 2, 3, 5, 16)
DTYPES = ("float64", "float32")
HARD = ("plain", "condition 1e4", "condition 1e8", "condition 1e12", "offset 1e8", "underflow", "tiny weights")
ROWS = 18


class Case(NamedTuple):
    x: np.ndarray
    parameters: reference.Parameters
    sample_weight: np.ndarray | None


class Outcome(NamedTuple):
    """Largest errors of one case; all but the first are fractions of their bounds."""

    ulps: float
    log_density: float
    responsibilities: float
    log_likelihood: float
    weight: float
    mean: float
    covariances: float

    @property
    def worst(self) -> float:
        return max(self[1:])


def spectrum(rng, d, condition):
    """A symmetric matrix (D, D) with eigenvalues from 1 to 1 / condition."""
    q = np.linalg.qr(rng.normal(size=(d, d)))[0]
    sigma = (q * np.geomspace(1.0, 1.0 / condition, d)) @ q.T
    return 0.5 * (sigma + sigma.T)


def make_case(kind, d, what, dtype, seed=0):
    """Three components and rows of them, hard in one way."""
    rng = np.random.default_rng([seed, d, HARD.index(what), reference.TYPES.index(kind)])
    k = 3
    condition = float(what.split()[1]) if what.startswith("condition") else 10.0
    values = np.geomspace(1.0, 1.0 / condition, max(d, 2))[:d]
    covariances = {
        "full": lambda: np.array([spectrum(rng, d, condition) for _ in range(k)]),
        "tied": lambda: spectrum(rng, d, condition),
        "diag": lambda: np.array([rng.permutation(values) for _ in range(k)]),
        "spherical": lambda: np.geomspace(1.0, 1.0 / condition, k),
    }[kind]()
    distance = 40.0 if what == "underflow" else 1.5
    means = distance * rng.normal(size=(k, d))
    weights = rng.dirichlet(np.full(k, 3.0))
    sample_weight = None
    if what == "tiny weights":
        weights = np.array([1.0 - 3e-12, 1e-12, 2e-12])
        sample_weight = 10.0 ** rng.uniform(-5.0, 5.0, ROWS)
    if what == "offset 1e8":
        means += 1e8 if dtype == "float64" else 1e3
    parameters = reference.Parameters(weights / weights.sum(), means, covariances, kind)
    # A row or two far out; the others are draws. Every component has some, so that none is empty.
    z = np.arange(ROWS) % k
    stretch = np.where(np.arange(ROWS) < 2 * k, 4.0, 1.0)
    lower = np.linalg.cholesky(reference.dense(parameters))
    x = means[z] + np.einsum("nij,nj->ni", lower[z], stretch[:, None] * rng.normal(size=(ROWS, d)))
    return Case(x.astype(dtype), parameters, sample_weight)


def measure(case, dtype):
    """Run one E-step and one M-step and compare with the right ones."""
    x, parameters, w = case
    family = covariance.family(parameters.covariance_type)
    params = Params(*(np.array(v) for v in parameters[:3]), family.name)
    density = covariance.density(params)
    right = exact.e_step(x, parameters, w)
    joint, r = exact.to_float(right.joint), exact.to_float(right.responsibilities)
    bounds = rounding.density(x, parameters, joint, dtype)
    found = passes.score_samples(as_rows(x), density)
    error = exact.errors(found, right.log_density)
    size = np.abs(exact.to_float(right.log_density))
    spacing = np.spacing(size.astype(dtype)).astype(float)

    proba = passes.predict_proba(as_rows(x), density)
    floor = np.exp(-700.0 if dtype == "float64" else -80.0)  # docs/numerics.md: where exp ends
    proba_error = np.maximum(exact.errors(proba, right.responsibilities) - floor, 0.0)
    proba_bound = bounds.log_responsibility * r + np.finfo(dtype).tiny

    stats = passes.accumulate(as_rows(x, w), density, family.scatter)
    ones = np.ones(len(x)) if w is None else w
    of_sum = rounding.gamma(len(x) + 2, rounding.UNIT["float64"])
    total_bound = float(ones @ (bounds.log_density + of_sum * size))
    map_bound = float(ones @ (bounds.log_density + 2.0 * bounds.log_responsibility.max(axis=1)))
    next_params = covariance.maximize(stats, params, 0.0)
    moments = exact.moments(x, right.responsibilities, w)
    limit = rounding.m_step(x, parameters, r, w, bounds, dtype)
    sigma = exact.covariances(moments, family.name)
    return Outcome(
        float((error / spacing).max()),
        float((error / bounds.log_density).max()),
        float((proba_error / proba_bound).max()),
        max(
            float(exact.errors(stats.log_likelihood, right.log_likelihood)) / total_bound,
            float(exact.errors(stats.log_map, right.log_map)) / map_bound,
        ),
        float((exact.errors(stats.weight, moments.weight) / limit.weight).max()),
        float((exact.errors(next_params.means, moments.mean) / limit.mean).max()),
        float((exact.errors(next_params.covariances, sigma) / limit.covariances).max()),
    )


def cases(few=False):
    """(kind, d, what, dtype)."""
    for dtype in DTYPES:
        for what in HARD:
            for kind in reference.TYPES:
                for d in DIMENSIONS:
                    if d == 1 and what.startswith("condition") and kind != "spherical":
                        continue  # one variance has no condition number
                    if few and d == 16 and (dtype == "float32" or what not in ("condition 1e12", "offset 1e8")):
                        continue
                    yield kind, d, what, dtype


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--few", action="store_true")
    few = parser.parse_args().few
    found = {case: measure(make_case(*case), case[3]) for case in cases(few)}
    print(f"{'case':>15} {'rows':>8} {'ulps':>9}  {' '.join(f'{name:>16}' for name in Outcome._fields[1:])}")
    rows = {what: [(what, kind) for kind in reference.TYPES] for what in HARD[1:]}
    rows |= {"plain, full": [("plain", "full")], "plain, others": [("plain", kind) for kind in reference.TYPES[1:]]}
    for dtype in DTYPES:
        for what, members in rows.items():
            mine = [outcome for case, outcome in found.items() if (case[2], case[0]) in members and case[3] == dtype]
            worst = np.max(np.array(mine), axis=0)
            print(f"{what:>15} {dtype:>8} {worst[0]:9.2g}  {' '.join(f'{v:16.2g}' for v in worst[1:])}")
    print(f"{len(found)} cases of {ROWS} rows; largest part of a bound: {max(o.worst for o in found.values()):.2g}")


if __name__ == "__main__":
    main()
