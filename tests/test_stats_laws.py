"""The algebra of sufficient statistics, against direct sums over the rows."""

import functools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgmm import stats
from fastgmm.errors import IncompatibleStatisticsError, InvalidParameterError
from fastgmm.stats import OUTER, SufficientStatistics, scatter_shape
from tests import reference, strategies
from tests.doubles import statistics_of


def direct(x, r, w, kind):
    """Two-pass statistics: (weight, mean, scatter); means of empty components are NaN."""
    wr = r * w[:, None]
    n = wr.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (wr.T @ x) / n[:, None]
    return n, means, reference.reduced_scatter(x, wr, np.nan_to_num(means), kind)


def assert_equal(stats, x, r, w, kind):
    weight, mean, scatter = direct(x, r, w, kind)
    size = max(np.abs(x).max(), 1e-300)
    np.testing.assert_allclose(stats.weight, weight, rtol=1e-12, atol=1e-300)
    alive = weight > 0.0
    np.testing.assert_allclose(stats.mean[alive], mean[alive], rtol=1e-12, atol=1e-13 * size)
    assert np.isfinite(stats.mean).all()
    # Deviations carry the rounding of the rows themselves, so the tolerance is in units of eps^2 size^2 and eps spread.
    spread = np.abs(x - x.mean(axis=0)).max()
    tolerance = 1e-11 * spread**2 + (1e-14 * size) ** 2
    np.testing.assert_allclose(stats.scatter, scatter, rtol=1e-10, atol=tolerance * max(w.sum(), 1e-300))
    assert stats.total_weight == pytest.approx(w.sum(), rel=1e-12)
    assert stats.n_rows == len(x)


def near(x, k, seed=0):
    """A reference point within the cloud for each component."""
    return x[np.random.default_rng(seed).integers(0, len(x), k)]


@given(strategies.weighted_rows(), strategies.scatter_kinds, strategies.seeds)
def test_from_moments_equals_direct_sums(rows, kind, seed):
    x, r, w = rows
    assert_equal(statistics_of(x, r, kind, near(x, r.shape[1], seed), w), x, r, w, kind)


@given(strategies.weighted_rows(), strategies.scatter_kinds, st.integers(1, 5), strategies.seeds)
def test_any_split_in_any_order_merges_to_the_whole(rows, kind, n_parts, seed):
    x, r, w = rows
    rng = np.random.default_rng(seed)
    part = rng.integers(0, n_parts, len(x))
    pieces = [
        statistics_of(x[part == p], r[part == p], kind, near(x, r.shape[1], seed + p), w[part == p])
        for p in rng.permutation(n_parts)
    ]
    assert_equal(functools.reduce(SufficientStatistics.merge, pieces), x, r, w, kind)


@given(strategies.weighted_rows(), strategies.scatter_kinds)
def test_merge_is_associative(rows, kind):
    x, r, w = rows
    a, b, c = (statistics_of(x[i::3], r[i::3], kind, near(x, r.shape[1], i), w[i::3]) for i in range(3))
    assert_equal(a.merge(b).merge(c), x, r, w, kind)
    assert_equal(a.merge(b.merge(c)), x, r, w, kind)


@given(strategies.weighted_rows(), strategies.scatter_kinds)
def test_zeros_is_the_identity_to_the_last_bit(rows, kind):
    x, r, w = rows
    stats = statistics_of(x, r, kind, near(x, r.shape[1]), w, log_likelihood=-3.5, log_map=-0.25)
    zero = SufficientStatistics.zeros(kind, r.shape[1], x.shape[1])
    alive = stats.weight > 0.0
    for merged in (stats.merge(zero), zero.merge(stats)):
        np.testing.assert_array_equal(merged.weight, stats.weight)
        np.testing.assert_array_equal(merged.mean[alive], stats.mean[alive])
        np.testing.assert_array_equal(merged.scatter, stats.scatter)
        assert (merged.log_likelihood, merged.log_map) == (stats.log_likelihood, stats.log_map)
        assert (merged.total_weight, merged.n_rows) == (stats.total_weight, stats.n_rows)


@given(strategies.weighted_rows(), strategies.scatter_kinds, st.floats(1e-3, 1e3))
def test_scaling_statistics_scales_row_weights(rows, kind, factor):
    x, r, w = rows
    stats = statistics_of(x, r, kind, near(x, r.shape[1]), w, log_likelihood=-2.0, log_map=-1.0).scaled(factor)
    assert_equal(stats, x, r, w * factor, kind)
    assert stats.log_likelihood == pytest.approx(-2.0 * factor)
    assert stats.log_map == pytest.approx(-factor)


# Steps of online EM are no smaller; a weight below 1e-290 would lose digits, as subnormal numbers have fewer.
@given(strategies.weighted_rows(), strategies.scatter_kinds, st.just(0.0) | st.floats(1e-12, 1.0))
def test_online_blend_is_a_reweighting_of_rows(rows, kind, step):
    x, r, w = rows
    half = len(x) // 2
    old = statistics_of(x[:half], r[:half], kind, near(x, r.shape[1]), w[:half])
    new = statistics_of(x[half:], r[half:], kind, near(x, r.shape[1], 1), w[half:])
    blended = np.concatenate([w[:half] * (1.0 - step), w[half:] * step])
    assert_equal(old.scaled(1.0 - step).merge(new.scaled(step)), x, r, blended, kind)


@given(strategies.weighted_rows(), strategies.scatter_kinds)
def test_merge_leaves_its_operands_alone(rows, kind):
    x, r, w = rows
    a = statistics_of(x, r, kind, near(x, r.shape[1]), w)
    before = a.weight.copy(), a.mean.copy(), a.scatter.copy()
    a.merge(a)
    for array, copy in zip((a.weight, a.mean, a.scatter), before, strict=True):
        np.testing.assert_array_equal(array, copy)
        assert not array.flags.writeable


@pytest.mark.parametrize("kind", OUTER)
@pytest.mark.parametrize("offset", [1e8, -1e8])
def test_offset_of_1e8_costs_no_digits(kind, offset):
    rng = np.random.default_rng(0)
    x = np.round(rng.normal(size=(500, 3)) * 2.0**20) / 2.0**20  # representable exactly after the shift, too
    r, w = rng.dirichlet([1.0, 1.0], size=500), np.ones(500)
    here = statistics_of(x, r, kind, np.zeros((2, 3)), w)
    parts = [statistics_of(x[i::4] + offset, r[i::4], kind, np.full((2, 3), offset) + i, w[i::4]) for i in range(4)]
    there = functools.reduce(SufficientStatistics.merge, parts)
    np.testing.assert_allclose(there.mean - offset, here.mean, atol=3e-8)
    np.testing.assert_allclose(there.scatter, here.scatter, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("kind", OUTER)
def test_large_arrays_take_the_same_values(kind):
    rng = np.random.default_rng(1)
    x, r = rng.normal(size=(50, 120)), rng.dirichlet(np.ones(6), size=50)
    whole = statistics_of(x[:25], r[:25], kind, x[:6]).merge(statistics_of(x[25:], r[25:], kind, x[6:12]))
    assert_equal(whole, x, r, np.ones(50), kind)


@pytest.mark.parametrize("kind", OUTER)
@pytest.mark.parametrize("size", [0, 1 << 40])
def test_component_by_component_or_all_at_once_is_the_same(monkeypatch, kind, size):
    rng = np.random.default_rng(3)
    x, r = rng.normal(size=(40, 4)), rng.dirichlet(np.ones(3), size=40)
    monkeypatch.setattr(stats, "_LOOP_FROM", size)
    whole = statistics_of(x[:9], r[:9], kind, x[:3]).merge(statistics_of(x[9:], r[9:], kind, x[3:6]))
    assert_equal(whole, x, r, np.ones(40), kind)


def test_large_scatter_is_changed_without_a_copy_of_it():
    c, d = np.ones(17), np.ones((17, 64))
    scatter = np.zeros((17, 64, 64))
    assert scatter.size > 1 << 16
    stats._subtract_outer("full", scatter, c, d)  # what the first call alone allocates
    tracemalloc.start()
    try:
        stats._subtract_outer("full", scatter, c, d)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.3 * scatter.nbytes
    np.testing.assert_array_equal(scatter, -2.0)


@pytest.mark.parametrize("kind", OUTER)
def test_outer_is_the_sum_of_outer_products(kind):
    rng = np.random.default_rng(2)
    c, d = rng.uniform(size=3), rng.normal(size=(3, 4))
    full = np.array([ck * np.outer(dk, dk) for ck, dk in zip(c, d, strict=True)])
    expected = {
        "full": full,
        "pooled": full.sum(axis=0),
        "diag": np.array([np.diag(m) for m in full]),
        "trace": np.array([np.trace(m) for m in full]),
    }[kind]
    np.testing.assert_allclose(OUTER[kind](c, d), expected, rtol=1e-14)
    assert scatter_shape(kind, 3, 4) == expected.shape


def test_pooled_squares_near_the_largest_number():
    """The result is made symmetric without a sum that overflows where the result does not."""
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(OUTER["pooled"](np.ones(1), np.array([[1.3e154, 1.0]]))[0], [1.3e154**2, 1.3e154])


def test_different_kinds_or_shapes_do_not_merge():
    a = SufficientStatistics.zeros("full", 2, 3)
    for b in (
        SufficientStatistics.zeros("diag", 2, 3),
        SufficientStatistics.zeros("full", 3, 3),
        SufficientStatistics.zeros("full", 2, 2),
    ):
        with pytest.raises(IncompatibleStatisticsError, match="same kind and shape"):
            a.merge(b)


@pytest.mark.parametrize("factor", [-1.0, float("nan"), float("inf")])
def test_scale_factors_are_checked(factor):
    with pytest.raises(InvalidParameterError, match="factor must be finite"):
        SufficientStatistics.zeros("trace", 1, 1).scaled(factor)


def test_unknown_kind_names_the_valid_ones():
    with pytest.raises(InvalidParameterError, match="'full', 'pooled', 'diag', 'trace'"):
        SufficientStatistics.zeros("banded", 1, 1)


@pytest.mark.parametrize("kind", sorted(OUTER))
@pytest.mark.parametrize("first", [True, False])
def test_the_mean_of_an_empty_side_may_be_anything(kind, first):
    """Not even its distance from the other side may overflow: 0 times infinity is not 0."""
    full = statistics_of(np.array([[1.0], [3.0]]), np.ones((2, 1)), kind)
    far = SufficientStatistics(
        kind, np.zeros(1), np.array([[-1.7e308]]), np.zeros(full.scatter.shape), 0.0, 0.0, 0.0, 0
    )
    large = SufficientStatistics(
        kind, full.weight, np.array([[1.7e308]]), full.scatter, 0.0, 0.0, full.total_weight, full.n_rows
    )
    both = large.merge(far) if first else far.merge(large)
    np.testing.assert_array_equal(both.mean, large.mean)
    np.testing.assert_array_equal(both.scatter, large.scatter)


def test_counts_are_not_mixed_up():
    stats = SufficientStatistics.zeros("diag", 2, 5)
    assert (stats.n_components, stats.n_features, stats.n_rows) == (2, 5, 0)
