"""A weight says how often a row counts: 2 is the row twice, 0 is no row; the unit of the weights does not matter."""

import numpy as np
import pytest

from fastgmm import GaussianMixture
from fastgmm.data import as_rows
from fastgmm.initialize import methods, sample
from fastgmm.initialize.sample import MAX_ROWS
from tests import reference

TYPES = reference.TYPES
DTYPES = ("float64", "float32")
INITS = ("kmeans", "k-means++", "random_from_data", "random")
RNG = np.random.default_rng(5)
X = np.concatenate([RNG.normal(m, s, (50, 2)) for m, s in ((0.0, 1.0), (4.0, 0.7), (-3.0, 1.3))])[RNG.permutation(150)]
COUNTS = RNG.integers(0, 4, len(X))
START = {"means_init": [[0.0, 0.0], [4.0, 4.0], [-3.0, -3.0]]}

kinds = pytest.mark.parametrize("kind", TYPES)
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def repeated(dtype):
    return np.repeat(X, COUNTS, axis=0).astype(dtype)


def fit(x, weight, kind, **options):
    options = {"random_state": 0, "tol": 1e-5, "max_iter": 200} | options
    return GaussianMixture(3, covariance_type=kind, **options).fit(x, sample_weight=weight)


def assert_same(a, b, tolerance):
    """The same mixture; components in the same order."""
    np.testing.assert_allclose(a.mixture_.weights, b.mixture_.weights, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(a.mixture_.means, b.mixture_.means, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(a.mixture_.covariances, b.mixture_.covariances, rtol=tolerance, atol=tolerance)
    assert a.lower_bound_ == pytest.approx(b.lower_bound_, rel=tolerance)


def rounding(dtype):
    return 1e-9 if dtype == "float64" else 2e-4


@kinds
@dtypes
def test_weights_are_repetitions_in_a_fit(kind, dtype):
    assert COUNTS.min() == 0
    assert COUNTS.max() == 3
    weighted, copied = fit(X.astype(dtype), COUNTS, kind, **START), fit(repeated(dtype), None, kind, **START)
    assert_same(weighted, copied, rounding(dtype))
    assert weighted.n_iter_ == copied.n_iter_
    assert weighted.result_.total_weight == COUNTS.sum() == len(repeated(dtype))


@kinds
@dtypes
def test_weight_zero_is_no_row_to_the_last_bit(kind, dtype):
    x, weight = X.astype(dtype), (COUNTS > 0).astype(float)
    for init in (*INITS, COUNTS_AS_LABELS):
        kept = init[weight > 0.0] if isinstance(init, np.ndarray) else init
        with_zeros = fit(x, weight, kind, init_params=init)
        without = fit(x[weight > 0.0], np.ones(int(weight.sum())), kind, init_params=kept)
        assert_same(with_zeros, without, 0.0)


@kinds
@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("rows", [MAX_ROWS, 48])
def test_equal_weights_draw_what_is_drawn_without_weights(kind, init, rows, monkeypatch):
    """From all rows and, with `rows` fewer than there are, from a part of them; also where others weigh nothing."""
    monkeypatch.setattr(sample, "MAX_ROWS", rows)
    monkeypatch.setattr(methods, "SEED_ROWS", rows // 2)
    kept = COUNTS > 0
    without = fit(X[kept], None, kind, init_params=init)
    for weight, tolerance in ((1.0, 0.0), (0.25, 1e-10), (2.0**41, 1e-10)):
        few = fit(X[kept], np.full(kept.sum(), weight), kind, init_params=init)
        for other in (few, fit(X, weight * kept, kind, init_params=init)):
            np.testing.assert_allclose(other.means_, without.means_, rtol=tolerance, atol=tolerance)
            np.testing.assert_allclose(other.covariances_, without.covariances_, rtol=tolerance, atol=tolerance)
            assert other.n_iter_ == without.n_iter_


def test_unequal_weights_with_the_mean_one_are_weights(monkeypatch):
    monkeypatch.setattr(sample, "MAX_ROWS", 48)
    weight = np.where(np.arange(len(X)) % 2, 0.5, 1.5)
    assert weight.mean() == 1.0
    for given in (weight, np.ascontiguousarray(weight[::-1])):
        rows = as_rows(X, given)
        assert not rows.even
        drawn = sample.draw_sample(rows, 2, np.random.default_rng(0))
        plain = sample.draw_sample(as_rows(X), 2, np.random.default_rng(0))
        assert not np.array_equal(drawn.origin, plain.origin)


COUNTS_AS_LABELS = np.arange(len(X)) % 3


@kinds
def test_rows_of_weight_zero_may_hold_anything(kind):
    x = X.copy()
    x[COUNTS == 0] = [np.nan, np.inf]
    assert_same(fit(x, COUNTS, kind), fit(X, COUNTS, kind), 0.0)


@kinds
@dtypes
@pytest.mark.parametrize("labels", [True, False])
def test_weights_are_repetitions_in_given_starts(kind, dtype, labels):
    """Labels or responsibilities; these starts draw no random numbers, so they must agree themselves."""
    members = COUNTS_AS_LABELS if labels else np.random.default_rng(1).dirichlet(np.ones(3), len(X))
    weighted = fit(X.astype(dtype), COUNTS, kind, init_params=members, max_iter=0)
    copied = fit(repeated(dtype), None, kind, init_params=np.repeat(members, COUNTS, axis=0), max_iter=0)
    assert_same(weighted, copied, rounding(dtype))


@kinds
@dtypes
@pytest.mark.parametrize("init", INITS)
def test_drawn_starts_take_rows_in_proportion_to_their_weights(kind, dtype, init):
    """A draw cannot be the same for rows and for copies of them, but it must lead to as good a mixture."""
    if init == "random":  # random responsibilities: every component starts near the weighted mean
        start = fit(X.astype(dtype), COUNTS, kind, init_params=init, max_iter=0)
        mean, deviation = repeated("float64").mean(axis=0), repeated("float64").std(axis=0)
        assert (np.abs(start.means_ - mean) < 5.0 * deviation / np.sqrt(len(X))).all()
        assert (np.abs(X.mean(axis=0) - mean) > 0.0).all()
        return
    weighted = fit(X.astype(dtype), COUNTS, kind, init_params=init, n_init=3)
    copied = fit(repeated(dtype), None, kind, init_params=init, n_init=3)
    assert weighted.lower_bound_ == pytest.approx(copied.lower_bound_, abs=0.02)
    if init == "k-means++":  # means are rows, and a row of weight 0 is none
        start = fit(X.astype(dtype), COUNTS, kind, init_params=init, max_iter=0)
        rows = X[COUNTS > 0].astype(dtype)
        assert (np.abs(start.means_[:, None] - rows).max(axis=2).min(axis=1) < 1e-5).all()


@kinds
@dtypes
def test_weights_are_repetitions_in_scores(kind, dtype):
    """Also of rows of weight 0; n is the sum of the weights."""
    model = fit(X.astype(dtype), COUNTS, kind)
    x, copies = X.astype(dtype), repeated(dtype)
    for method in ("score", "aic", "bic", "icl"):
        weighted = getattr(model, method)(x, sample_weight=COUNTS)
        assert weighted == pytest.approx(getattr(model, method)(copies), rel=1e-6 if dtype == "float32" else 1e-12)
    n, p = COUNTS.sum(), reference.n_parameters(kind, 3, 2)
    log_likelihood = COUNTS @ model.score_samples(x)
    assert model.score(x, sample_weight=COUNTS) == pytest.approx(log_likelihood / n, rel=1e-6)
    assert model.aic(x, sample_weight=COUNTS) == pytest.approx(-2.0 * log_likelihood + 2.0 * p, rel=1e-6)
    assert model.bic(x, sample_weight=COUNTS) == pytest.approx(-2.0 * log_likelihood + p * np.log(n), rel=1e-6)


@kinds
@dtypes
@pytest.mark.parametrize("unit", [2.0**-40, 0.25, 2.0**30])
def test_a_power_of_two_times_the_weights_gives_the_same_bits(kind, dtype, unit):
    assert_same(fit(X.astype(dtype), COUNTS * unit, kind), fit(X.astype(dtype), COUNTS, kind), 0.0)


@kinds
@pytest.mark.parametrize("unit", [1.0 / 3.0, 1e-9, 7e11])
def test_any_factor_of_the_weights_changes_rounding_only(kind, unit):
    """Ten iterations from one start; what is drawn at random may fall differently where a sum rounds differently."""
    options = START | {"tol": 0.0, "max_iter": 10}
    with pytest.warns(UserWarning, match="did not converge"):
        scaled, plain = (fit(X, COUNTS * u, kind, **options) for u in (unit, 1.0))
    assert_same(scaled, plain, 1e-12)
