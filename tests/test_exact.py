"""Against right answers: 50 decimal digits for an E-step and an M-step, NIST's certified values for one component."""

from fractions import Fraction

import numpy as np
import pytest

from fastgmm import GaussianMixture
from fastgmm.kernels import programs
from tests import exact, reference, rounding
from tests.tools import ulps

FEW = list(ulps.cases(few=True))
GROUPS = sorted({(what, dtype) for _, _, what, dtype in FEW})


@pytest.fixture(autouse=True)
def _choosing(monkeypatch):
    """Fits over few rows, too, look at whether components are near."""
    monkeypatch.setattr(programs, "FEW_PAIRS", 0)


@pytest.mark.parametrize(("what", "dtype"), GROUPS)
def test_e_step_and_m_step_are_within_the_derived_bounds(what, dtype):
    mine = [case for case in FEW if case[2:] == (what, dtype)]
    assert {kind for kind, *_ in mine} == set(reference.TYPES)
    for case in mine:
        outcome = ulps.measure(ulps.make_case(*case), dtype)
        assert outcome.worst < 1.0, (case, outcome)


@pytest.mark.parametrize("dtype", ulps.DTYPES)
def test_well_conditioned_log_densities_are_right_to_a_few_ulps(dtype):
    """Bounds are worst cases; where nothing is hard the result must be close: 16 for the products and sums in |y|^2.

    Products with rows about a common centre cost up to `rounding.NEAR` (`full`), expanded squares about it up to the
    square of that (the other families).
    """
    for kind in reference.TYPES:
        for d in (1, 2, 3, 5):
            power = 1 if kind == "full" else 2
            limit = 16.0 * rounding.NEAR[dtype] ** power
            assert ulps.measure(ulps.make_case(kind, d, "plain", dtype), dtype).ulps < limit


@pytest.mark.parametrize("kind", reference.TYPES)
def test_the_bounds_are_sharp_enough_to_catch_a_wrong_formula(kind):
    """The expanded square, |x|^2 - 2 x mu + |mu|^2, and parameters off by 1e-12 are outside."""
    x, parameters, _ = ulps.make_case(kind, 3, "offset 1e8", "float64")
    joint = exact.to_float(exact.e_step(x, parameters).joint)
    bounds = rounding.density(x, parameters, joint, "float64")
    p = np.linalg.inv(reference.dense(parameters))
    expanded = np.einsum("ni,kij,nj->nk", x, p, x)
    expanded += np.einsum("ki,kij,kj->k", parameters.means, p, parameters.means)
    expanded -= 2.0 * np.einsum("ni,kij,kj->nk", x, p, parameters.means)
    log_det = np.linalg.slogdet(reference.dense(parameters))[1]
    found = np.log(parameters.weights) - 0.5 * (expanded + log_det + 3.0 * np.log(2.0 * np.pi))
    assert (np.abs(found - joint) > bounds.joint).any()
    x, parameters, _ = ulps.make_case(kind, 3, "plain", "float64")
    right = exact.e_step(x, parameters)
    bounds = rounding.density(x, parameters, exact.to_float(right.joint), "float64")
    moved = reference.e_step(x, parameters._replace(covariances=parameters.covariances * (1.0 + 1e-12)))
    assert (exact.errors(moved.log_density, right.log_density) > bounds.log_density).any()


def test_the_exact_oracle_agrees_with_the_plain_one():
    for kind in reference.TYPES:
        x, parameters, w = ulps.make_case(kind, 3, "plain", "float64")
        fine, plain = exact.e_step(x, parameters, w), reference.e_step(x, parameters, w)
        np.testing.assert_allclose(exact.to_float(fine.log_density), plain.log_density, rtol=1e-12)
        np.testing.assert_allclose(exact.to_float(fine.responsibilities), plain.responsibilities, atol=1e-12)
        assert float(fine.log_map) == pytest.approx(plain.log_map, rel=1e-10)
        found = exact.covariances(exact.moments(x, fine.responsibilities, w), kind)
        expected = reference.m_step(x, plain.responsibilities, kind, sample_weight=w).covariances
        np.testing.assert_allclose(np.asarray(found, dtype=float), expected, rtol=1e-10, atol=1e-13)


# -- NIST StRD, univariate summary statistics: https://www.itl.nist.gov/div898/strd/univ/homepage.html -----------------


def alternating(first, low, high):
    return [first, *[low, high] * 500]


NUMACC = {
    # values as NIST prints them, certified mean and standard deviation (n - 1), and how many digits of the certified
    # standard deviation are left when the values are stored as doubles: the decimals are not representable
    "NumAcc1": (["10000001", "10000003", "10000002"], "10000002", "1", 15.0),
    "NumAcc2": (alternating("1.2", "1.1", "1.3"), "1.2", "0.1", 13.6),
    "NumAcc3": (alternating("1000000.2", "1000000.1", "1000000.3"), "1000000.2", "0.1", 9.0),
    "NumAcc4": (alternating("10000000.2", "10000000.1", "10000000.3"), "10000000.2", "0.1", 8.0),
}


# A tile of 192 rows is summed one after the other at worst, its 0.01s all rounded the same way: 192 u and a few.
VARIANCE_DIGITS = -np.log10(200 * 2.0**-53)


def digits(found, right):
    """Log relative error: how many decimal digits are right, 16 at most."""
    error = abs((Fraction(found) - right) / right)
    return 16.0 if error == 0 else min(16.0, -float(np.log10(float(error))))


def summary(values):
    """Exact mean and variance (n - 1) of rational numbers."""
    mean = sum(values) / len(values)
    return mean, sum((v - mean) ** 2 for v in values) / (len(values) - 1)


@pytest.mark.parametrize("kind", reference.TYPES)
@pytest.mark.parametrize("name", NUMACC)
def test_numacc(name, kind):
    texts, mean, deviation, stored_digits = NUMACC[name]
    certified_mean, certified_deviation = Fraction(mean), Fraction(deviation)
    assert summary([Fraction(t) for t in texts]) == (certified_mean, certified_deviation**2)
    x = np.array([float(t) for t in texts])
    n = len(x)
    model = GaussianMixture(1, covariance_type=kind, reg_covar=0.0).fit(x[:, None])
    found_mean = float(model.means_[0, 0])
    variance = float(model.covariances_.ravel()[0]) * n / (n - 1)
    # What a computation can be held to is the right answer for the doubles that it was given.
    exact_mean, exact_variance = summary([Fraction(float(v)) for v in x])
    assert digits(found_mean, exact_mean) >= 15.5
    assert digits(variance, exact_variance) >= VARIANCE_DIGITS
    assert digits(found_mean, certified_mean) >= 15.0
    assert digits(np.sqrt(variance), certified_deviation) >= stored_digits


def test_numacc_where_the_textbook_formula_fails():
    """Why these data exist: E[x^2] - E[x]^2 has no digit left."""
    x = np.array([float(t) for t in NUMACC["NumAcc4"][0]])
    variance = (np.mean(x * x) - np.mean(x) ** 2) * len(x) / (len(x) - 1)
    assert digits(abs(variance), Fraction(1, 100)) < 1.0


@pytest.mark.parametrize("kind", reference.TYPES)
def test_numacc_of_several_features_at_once(kind):
    """NumAcc2 beside noise of another unit and place: one feature does not spoil the other."""
    x = np.array([float(t) for t in NUMACC["NumAcc2"][0]])
    noise = 1e9 + 2.0**20 * np.random.default_rng(0).integers(-50, 50, len(x))
    model = GaussianMixture(1, covariance_type=kind, reg_covar=0.0).fit(np.column_stack([x, noise]))
    dense = model.mixture_.covariances_dense[0]
    n = len(x)
    mean, variance = summary([Fraction(float(v)) for v in x])
    other_mean, other_variance = summary([Fraction(float(v)) for v in noise])
    assert digits(float(model.means_[0, 0]), mean) >= 15.0
    assert digits(float(model.means_[0, 1]), other_mean) >= 15.0
    found, other = (float(dense[i, i]) * n / (n - 1) for i in range(2))
    if kind == "spherical":
        assert digits(found, (variance + other_variance) / 2) >= VARIANCE_DIGITS
    else:
        assert digits(found, variance) >= VARIANCE_DIGITS
        assert digits(other, other_variance) >= VARIANCE_DIGITS
