"""Softmax, the sums and logarithms of exponentials, and exp and log themselves, in units of the last place."""

import itertools
import math
from decimal import Context, Decimal

import numba
import numpy as np
import pytest

from fastgmm.kernels import simd, softmax, softmax_twins
from tests.test_kernels import (
    TILE,
    compare,
    compiled,
    components,
    dtypes,
    log_densities,
    random_weights,
    rng_for,
    width,
)


@dtypes
@components
@pytest.mark.parametrize("name", ["softmax", "softmax_roots"])
def test_softmax(name, k, dtype):
    rng = rng_for(k)
    for count, known in itertools.product((width(dtype), TILE), (0, 1)):
        joint = log_densities(rng, k, dtype)
        tops = (
            np.fmax.reduce(joint, axis=0, initial=-np.inf).astype(dtype)
            if known
            else rng.normal(size=TILE).astype(dtype)
        )
        compare(
            getattr(softmax, name),
            getattr(softmax_twins, name),
            joint,
            tops,
            known,
            np.full(k, -40.0, dtype) + np.log(rng.dirichlet(np.ones(k))).astype(dtype),
            random_weights(rng),
            np.zeros(TILE, dtype),
            *(count, k, TILE),
            np.zeros(TILE),
            rng.normal(size=4),
            np.zeros(1, np.int64),
            np.full(k, 5, np.int64),
        )


@dtypes
@components
def test_softmax_in_steps(k, dtype):
    """Largest log-densities, exponentials, scales: what `softmax` does in one."""
    rng = rng_for(k, 1)
    cut = np.full(k, -40.0, dtype) + np.log(rng.dirichlet(np.ones(k))).astype(dtype)
    joint, weight = log_densities(rng, k, dtype), random_weights(rng)
    for count in (width(dtype), TILE):
        tops, totals, logs = np.zeros(TILE, dtype), np.zeros(TILE, dtype), np.zeros(TILE)
        compare(softmax.row_tops, softmax_twins.row_tops, joint, count, k, TILE, tops, exact=True)
        compiled(softmax.row_tops)((joint, count, k, TILE, tops))
        compare(softmax.exponentials, softmax_twins.exponentials, joint, tops, cut, count, k, TILE, totals)
        resp = joint.copy()
        compiled(softmax.exponentials)((resp, tops, cut, count, k, TILE, totals))
        assert not np.isnan(resp[:, :count]).any()
        sums = rng.normal(size=4)
        compare(softmax.row_scales, softmax_twins.row_scales, tops, weight, totals, count, logs, sums)
        once, found, groups = joint.copy(), np.zeros(1, np.int64), np.zeros(k, np.int64)
        theirs = np.zeros(TILE, dtype), np.zeros(TILE), sums.copy()
        compiled(softmax.softmax)(
            (once, tops.copy(), 0, cut, weight, theirs[0], count, k, TILE, *theirs[1:], found, groups)
        )
        compiled(softmax.row_scales)((tops, weight, totals, count, logs, sums))
        for mine, other in zip((resp, totals, logs, sums), (once, *theirs), strict=True):
            np.testing.assert_array_equal(mine, other)


@dtypes
def test_one_row_of_a_panel_is_not_passed_over(dtype):
    """Wherever in its panel the only row lies that a component has any part of."""
    panel, k = width(dtype), 2
    cut, weight = np.full(k, -20.0, dtype), np.ones(TILE)
    for place in range(panel):
        joint = np.zeros((k, TILE), dtype)
        joint[1] = -1e4
        joint[1, [place, 2 * panel - 1 - place]] = -3.0
        expected = np.exp(joint.astype(float))
        count = 2 * panel
        for kernel, power in ((softmax.softmax, 1), (softmax.softmax_roots, 2)):
            resp, scale, logs, sums = joint.copy(), np.zeros(TILE, dtype), np.zeros(TILE), np.zeros(4)
            found, groups = np.zeros(1, np.int64), np.zeros(k, np.int64)
            tops = np.zeros(TILE, dtype)
            compiled(kernel)((resp, tops, 0, cut, weight, scale, count, k, TILE, logs, sums, found, groups))
            np.testing.assert_allclose(resp[:, :count].astype(float) ** power, expected[:, :count], rtol=1e-6)
            assert found[0] == count + 2
            np.testing.assert_array_equal(groups, [3, 3])
        resp, tops, totals, others = joint.copy(), np.zeros(TILE, dtype), np.zeros(TILE, dtype), np.zeros(TILE, dtype)
        compiled(softmax.exponentials)((resp, tops, cut, count, k, TILE, totals))
        compiled(softmax.sum_exponentials)((joint, tops, count, k, TILE, 25, others))
        np.testing.assert_allclose(resp[:, :count], expected[:, :count], rtol=1e-6)
        for sums_of in (totals, others):
            np.testing.assert_allclose(sums_of[:count], expected[:, :count].sum(axis=0), rtol=1e-6)
        live = np.zeros(1, np.int64)
        compiled(softmax.live_components)((joint, tops, cut, k, TILE, live))
        assert live[0] == k


@dtypes
@components
def test_log_of_sums(k, dtype):
    """What a log-density needs: sums of exponentials without the smallest, and logarithms with a number more."""
    rng = rng_for(k, 2)
    joint, weight = log_densities(rng, k, dtype), random_weights(rng)
    for count in (width(dtype), TILE):
        tops, totals, logs = np.zeros(TILE, dtype), np.zeros(TILE, dtype), np.zeros(TILE)
        compiled(softmax.row_tops)((joint, count, k, TILE, tops))
        for digits in (54, 5):
            given = joint, tops, count, k, TILE, digits, totals
            compare(softmax.sum_exponentials, softmax_twins.sum_exponentials, *given)
            compiled(softmax.sum_exponentials)(given)
            sums = rng.normal(size=4)
            compare(softmax.row_logs, softmax_twins.row_logs, tops, totals, weight, count, 3.25, logs, sums)


def test_no_row_without_a_density_is_overlooked():
    """Rows of positive weight are counted, others are not; all get minus infinity."""
    tops, totals, logs, sums = np.full(TILE, -np.inf), np.zeros(TILE), np.zeros(TILE), np.zeros(4)
    tops[::3] = 1.0
    totals[::3] = 1.0
    weight = np.arange(TILE) % 2 * 1.0
    compiled(softmax.row_logs)((tops, totals, weight, TILE, 0.5, logs, sums))
    np.testing.assert_array_equal(logs, np.where(np.arange(TILE) % 3 == 0, 1.5, -np.inf))
    np.testing.assert_array_equal(sums, [0.0, 0.0, TILE // 3, 0.0])


# -- elementary functions ----------------------------------------------------------------------------------------------


@simd.micro
def exp_of(e, x, out, count):
    with e.loop(0, count, e.lanes) as i:
        e.store(e.exp(e.load(x, i)), out, i)


@simd.micro
def plain_exp_of(e, x, out, count):
    e.permutes = False
    with e.loop(0, count, e.lanes) as i:
        e.store(e.exp(e.load(x, i)), out, i)


@simd.micro
def sum_with_exp_of(e, x, out, count):
    """0 + exp(x) where x is below 1, in both ways: lanes by permutation, and one by one."""
    with e.loop(0, count, e.lanes) as i:
        given = e.load(x, i)
        for place, permutes in ((i, e.permutes), (e.add(i, count), False)):
            e.permutes = permutes
            e.store(e.add_exp(e.zero(), given, e.compare("<", given, e.constant(1.0))), out, place)


@simd.micro
def log_and_inverse_of(e, x, logs, inverses, count):
    with e.loop(0, count, e.lanes) as i:
        log, inverse = e.log_and_inverse(e.load(x, i))
        e.store(log, logs, i)
        e.store(inverse, inverses, i)


@simd.micro
def plain_log_and_inverse_of(e, x, logs, inverses, count):
    e.permutes = False
    with e.loop(0, count, e.lanes) as i:
        log, inverse = e.log_and_inverse(e.load(x, i))
        e.store(log, logs, i)
        e.store(inverse, inverses, i)


CONTEXT = Context(prec=50)


def ulps(got, x, exact):
    """Largest error in units in the last place of the exact value, found in decimal arithmetic of 50 digits."""
    worst = 0.0
    for g, v in zip(got, x, strict=True):
        e = exact(Decimal(float(v)))
        unit = Decimal(float(np.spacing(np.abs(got.dtype.type(float(e))))))
        worst = max(worst, float(CONTEXT.divide(abs(CONTEXT.subtract(Decimal(float(g)), e)), unit)))
    return worst


@pytest.mark.parametrize(("dtype", "end"), [(np.float64, 700.0), (np.float32, 86.0)])
def test_exp_in_ulps(dtype, end):
    rng = rng_for(3)
    half = 0.5 * math.log(2.0)
    edges = np.concatenate([[half * (2 * n + 1) * (1 + s * 1e-7) for n in range(-20, 20)] for s in (-1, 0, 1)])
    parts = [rng.uniform(-end, end, 4000), rng.uniform(-2.0, 0.0, 2000), -(10.0 ** rng.uniform(-20, 0, 500)), edges]
    x = np.concatenate([*parts, [0.0, -0.0, -end, end]]).astype(dtype)
    x = np.resize(x, -(-len(x) // 16) * 16)
    out = np.empty_like(x)
    compiled(exp_of)((x, out, len(x)))
    assert ulps(out, x, lambda v: v.exp(CONTEXT)) <= 1.5
    plain = np.empty_like(x)
    compiled(plain_exp_of)((x, plain, len(x)))  # as CPUs without permutations of lanes do it
    np.testing.assert_array_equal(plain, out)
    assert (out[x == 0.0] == 1.0).all()


@dtypes
@pytest.mark.parametrize("end", [1.0, 37.0])
def test_a_sum_with_exp_in_ulps(dtype, end):
    rng = rng_for(5)
    small = -(10.0 ** rng.uniform(-20, 0, 500))
    x = np.concatenate([rng.uniform(-end, 0.0, 3000), small, [0.0], rng.uniform(1.0, 9.0, 11)])
    x = np.resize(x, -(-len(x) // 16) * 16).astype(dtype)
    out = np.empty((2, len(x)), dtype)
    compiled(sum_with_exp_of)((x, out, len(x)))
    np.testing.assert_array_equal(out[0], out[1])
    below = x < 1.0
    assert (out[0, ~below] == 0.0).all()
    # beside the error of exp: log 2 as one number
    limit = 1.5 + end / (3.0 if dtype == np.float64 else 19.0)
    assert ulps(out[0, below], x[below], lambda v: v.exp(CONTEXT)) <= limit


def test_log_and_inverse_in_ulps():
    rng = rng_for(4)
    near = np.concatenate([1.0 + s * 10.0 ** rng.uniform(-16, -1, 500) for s in (-1, 1)])
    edges = np.sqrt(0.5) * (1.0 + 1e-15 * np.arange(-8, 9)) * 2.0 ** rng.integers(-1000, 1000, (20, 1))
    wide = 2.0 ** rng.uniform(-1021, 1021, 3000)
    parts = [wide, rng.uniform(0.5, 64.0, 2000), rng.uniform(0.7, 2.0, 4000), near, edges.ravel(), np.arange(1.0, 65.0)]
    x = np.concatenate([*parts, [np.finfo(float).tiny]])
    x = np.resize(x, -(-len(x) // 16) * 16)
    logs, inverses = np.empty_like(x), np.empty_like(x)
    compiled(log_and_inverse_of)((x, logs, inverses, len(x)))
    plain = np.empty_like(x), np.empty_like(x)
    compiled(plain_log_and_inverse_of)((x, *plain, len(x)))
    np.testing.assert_array_equal(plain, (logs, inverses))
    assert (logs[x == 1.0] == 0.0).all()
    some = x != 1.0
    assert ulps(logs[some], x[some], lambda v: v.ln(CONTEXT)) <= 5.0
    assert ulps(inverses, x, lambda v: CONTEXT.divide(1, v)) <= 2.0


def test_kernels_of_one_factory_are_told_apart_in_one_caller():
    """They have one name in Python; compiled as functions of their own, one must not stand for the other."""
    n, k = 192, 3
    joint = np.random.default_rng(8).normal(size=(k, n))

    @numba.njit
    def both(first, second, tops, cut, weight, scale, logs, sums, found, groups):
        softmax.softmax(first, tops, 0, cut, weight, scale, n, k, n, logs, sums, found, groups)
        softmax.softmax_roots(second, tops, 0, cut, weight, scale, n, k, n, logs, sums, found, groups)

    plain, roots = joint.copy(), joint.copy()
    found, groups = np.zeros(1, np.int64), np.zeros(k, np.int64)
    both(plain, roots, np.zeros(n), np.full(k, -40.0), np.ones(n), np.zeros(n), np.zeros(n), np.zeros(4), found, groups)
    np.testing.assert_allclose(roots**2, plain, rtol=1e-14)
    assert not np.array_equal(plain, roots)
