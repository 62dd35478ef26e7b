"""Matrix units: parts of numbers, micro-kernels against their twins, passes against float64 and for their bits."""

import dataclasses
import functools

import numba
import numpy as np
import pytest

from fastgmm import covariance, passes
from fastgmm.data import as_rows
from fastgmm.kernels import layout, matrix, matrix_twins, matrix_units, programs, twins
from fastgmm.kernels.full import near_full_block
from fastgmm.kernels.matrix_full import WEIGHTED, WORK, matrix_full_block, pack_shifts
from fastgmm.kernels.matrix_twins import split
from fastgmm.kernels.pack import pack_tiles
from tests.test_kernels import TILE, Guarded, compare, random_panels, random_triangles, rng_for

SIDE, TERMS = matrix_units.SIDE, matrix_units.TERMS

with_units = pytest.mark.skipif(not matrix_units.available(), reason="this machine has no matrix units (AMX)")
dimensions = pytest.mark.parametrize("d", [1, 2, 15, 16, 17, 31, 32, 33, 48, 64, 65, 130])
counts = pytest.mark.parametrize("count", [48, 96, 192])


def widths(*exponents):
    return np.float32(2.0) ** np.array(exponents, np.float32)


def test_three_parts_are_the_number():
    rng = rng_for(1)
    x = np.concatenate([rng.normal(size=4000), [0.0, 1.0, -1.0, 1 + 2**-23, 1 - 2**-24, 255 / 256, 257 / 256]])
    x = (x[:, None] * widths(-60, -1, 0, 1, 60)).astype(np.float32)
    high, middle, low = ((part.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(float) for part in split(x))
    np.testing.assert_array_equal(high + middle + low, x.astype(float))
    assert np.all(np.abs(middle + low) <= 2.0**-8 * np.abs(x))
    assert np.all(np.abs(low) <= 2.0**-15 * np.abs(x))
    assert np.abs(low).max() > 0.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so(value):
    every_bit = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001], np.uint32).view(np.float32)
    for x in (np.array([value], np.float32), every_bit):
        with np.errstate(invalid="ignore"):
            total = sum((part.astype(np.uint32) << np.uint32(16)).view(np.float32) for part in split(x))
        assert not np.isfinite(total).any()


@functools.cache
def in_units(kernel):
    """The kernel with the units set up before it and given back after it."""

    def run(arguments):
        matrix.begin_units(arguments[0])
        kernel(*arguments)
        matrix.end_units(arguments[0])

    return numba.njit(run, error_model="numpy")


@with_units
@dimensions
@counts
def test_densities(d, count):
    rng = rng_for(d, count)
    panels = random_panels(rng, count // 48, d, np.float32)
    steps, pairs, k = -(-d // TERMS), -(-count // TERMS), 3
    columns = np.zeros((pairs, steps * matrix.PAIR * matrix_units.STEP_FLOATS), np.float32)
    compare(matrix.split_columns, matrix_twins.split_columns, panels, count, d, columns, exact=True)
    matrix_twins.split_columns(panels, count, d, columns)
    factors, shifts = pack_tiles(random_triangles(rng, k, d) / np.sqrt(d)), pack_shifts(rng.normal(size=(k, d)))
    log_norm = rng.normal(size=k).astype(np.float32)
    for pair in range(pairs):
        given = (columns[pair], shifts, factors, factors.shape[1], d, k, log_norm, np.zeros(WORK, np.float32))
        out = np.zeros((k, TERMS + 5), np.float32)
        compare(
            matrix.matrix_density,
            matrix_twins.matrix_density,
            *(*given, out, TERMS + 5),
            scratch=(7,),
            run=in_units,
        )


@with_units
def test_parts_of_tiny_numbers_stay_apart():
    """Low parts below 2^-126 have bits where the neighbour's are."""
    rng = rng_for(2)
    d, count = 40, 48
    tiny = (rng.normal(size=(1, d, 48)) * 2.0 ** rng.integers(-149, -100, (1, d, 48))).astype(np.float32)
    columns = np.zeros(-(-count // TERMS) * -(-d // TERMS) * matrix.PAIR * matrix_units.STEP_FLOATS, np.float32)
    compare(matrix.split_columns, matrix_twins.split_columns, tiny, count, d, columns, exact=True)
    rows = np.zeros((count, 48), np.float32)
    rows[:, :d] = tiny[0].T
    halves = np.zeros(2 * 3 * matrix_units.STEP_FLOATS, np.float32)
    compare(matrix.split_halves, matrix_twins.split_halves, rows, count, 48, halves, exact=True)


@with_units
@pytest.mark.parametrize("scale", [1e-20, 1e-24, 1e-30, 1e-38, 1e-44])
def test_a_feature_of_tiny_numbers(scale):
    """A variance that is given may be far larger than the data's."""
    x, density = problem(500, 64, 3)
    x[:, 3] *= np.float32(scale)
    assert body_for(density) is matrix_full_block
    each = passes.score_samples(as_rows(x), density)
    np.testing.assert_allclose(each, passes.score_samples(as_rows(x.astype(float)), density), rtol=1e-5, atol=1e-4)
    mine, exact = sums(x, density), sums(x.astype(float), density)
    np.testing.assert_allclose(mine["scatter"], exact["scatter"], rtol=0.0, atol=1e-5 * 500)
    np.testing.assert_allclose(mine["mean"], exact["mean"], rtol=0.0, atol=1e-5)


@with_units
@dimensions
@counts
@pytest.mark.parametrize("k", [1, 2, 5])
def test_moments(d, count, k):
    rng = rng_for(d, count, k)
    padded = layout.padded_width(d, 4)
    rows = np.zeros((count, padded), np.float32)
    rows[:, :d] = rng.normal(size=(count, d))
    halves = np.zeros(-(-count // TERMS) * padded // SIDE * matrix_units.STEP_FLOATS, np.float32)
    compare(matrix.split_halves, matrix_twins.split_halves, rows, count, padded, halves, exact=True)
    matrix_twins.split_halves(rows, count, padded, halves)
    columns = np.zeros((TILE // 48, d + SIDE, 48), np.float32)  # what lies after the last column does not matter
    panels = columns.ravel()[: TILE * (d + SIDE)]
    twins.to_panels(rows[:, :d], panels)
    resp = rng.uniform(size=(k, TILE)).astype(np.float32)
    tiles = padded // SIDE * (padded // SIDE + 1) // 2
    sums = rng.normal(size=(k + k % 2, tiles, SIDE, SIDE)).astype(np.float32)
    weighted, work = np.zeros(WEIGHTED, np.float32), np.zeros(WORK, np.float32)
    for fresh, begin in ((0, 0), (1, 0), (0, 32)):
        if begin >= count:
            continue
        given = (resp, TILE, k, panels, halves, begin, count, d, weighted, work, fresh)
        mine, moments = Guarded(sums), np.zeros((2, k, layout.moment_length(d, 4)))
        in_units(matrix.matrix_moments)((*given, mine.inner))
        mine.check()
        expected = sums.copy()
        matrix_twins.matrix_moments(*given, expected)
        # in moments: rows of tiles beyond the last feature are whatever the kernel makes of them
        for out, tiles in zip(moments, (mine.inner, expected), strict=True):
            matrix_twins.add_sums(tiles, k, d, out, out.shape[1])
        np.testing.assert_allclose(moments[0], moments[1], rtol=0.0, atol=1e-6 * count)


@with_units
@dimensions
@pytest.mark.parametrize("k", [1, 3])
def test_sums_are_added(d, k):
    rng = rng_for(d, k)
    blocks = -(-d // SIDE)
    sums = rng.normal(size=(k, blocks * (blocks + 1) // 2, SIDE, SIDE)).astype(np.float32)
    moments = rng.normal(size=(k, layout.moment_length(d, 4) + 3))
    compare(matrix.add_sums, matrix_twins.add_sums, sums, k, d, moments, moments.shape[1])


# -- passes ------------------------------------------------------------------------------------------------------------


def problem(n=700, d=50, k=3, seed=0, scale=1.0, spread=0.2, opposite=False):
    rng = np.random.default_rng([seed, n, d, k])
    factors = np.eye(d) + 0.1 * rng.normal(size=(k, d, d)) / np.sqrt(d)
    means = rng.normal(size=(k, d)) * spread
    if opposite:
        means[1] = -means[0]
    x = (rng.normal(size=(n, d)) + means[rng.integers(k, size=n)]) * scale
    params = covariance.make_params(
        rng.dirichlet(np.full(k, 9.0)), means * scale, factors @ factors.transpose(0, 2, 1) * scale**2, "full"
    )
    return x.astype(np.float32), covariance.density(params)


def body_for(density, monkeypatch=None, units=None):
    if units is not None:
        monkeypatch.setattr(matrix_units, "available", lambda: units)
    return programs.PROGRAMS["chol"](density, np.dtype(np.float32))[0].body


def test_who_takes_the_units(monkeypatch):
    _, density = problem()
    assert body_for(density, monkeypatch, True) is matrix_full_block
    assert body_for(density, monkeypatch, False) is near_full_block
    assert programs.PROGRAMS["chol"](density, np.dtype(np.float64))[0].body is near_full_block
    for other in (problem(d=48), problem(scale=1e-13), problem(scale=1e13), problem(spread=40.0)):
        assert body_for(other[1], monkeypatch, True) is not matrix_full_block


@pytest.mark.parametrize(
    ("d", "k", "taken"),
    [
        *((30, 40, False), (31, 31, False), (31, 32, True), (32, 33, True), (33, 40, False)),
        *((45, 20, False), (46, 7, False), (46, 8, True), (48, 9, True), (49, 1, True)),
    ],
)
def test_who_fills_the_units(monkeypatch, d, k, taken):
    _, density = problem(d=d, k=k)
    assert body_for(density, monkeypatch, True) is (matrix_full_block if taken else near_full_block)
    assert body_for(density, monkeypatch, False) is near_full_block
    assert programs.PROGRAMS["chol"](density, np.dtype(np.float64))[0].body is near_full_block


def test_the_switch(monkeypatch):
    monkeypatch.setenv(matrix_units.SWITCH, "0")
    assert not matrix_units.available.__wrapped__()


def test_no_permission(monkeypatch):
    monkeypatch.setattr(matrix_units, "_permitted", lambda: False)
    assert not matrix_units.available.__wrapped__()


def test_a_pass_for_units_that_are_not_here(monkeypatch):
    monkeypatch.setattr(matrix_units, "available", lambda: False)
    with pytest.raises(RuntimeError, match=r"no matrix units.*FASTGMM_MATRIX_UNITS=0 where the fit runs"):
        programs.body_of("matrix full", 64)
    assert programs.body_of("near full", 64) is near_full_block


def sums(x, density, **options):
    stats = passes.Accumulator(as_rows(x, **options), "full")(density)
    return {f.name: np.asarray(getattr(stats, f.name)) for f in dataclasses.fields(stats)}


@with_units
@pytest.mark.parametrize(
    ("n", "d", "k"),
    [
        *((700, 50, 3), (1, 64, 2), (193, 49, 1), (400, 128, 5), (5000, 65, 4)),
        *((1500, 31, 33), (1, 32, 32), (400, 46, 9), (900, 48, 8)),  # `UNIT_SHAPES`
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_as_right_as_float64(n, d, k, weighted):
    """The errors of sums over float32 rows are those of float32 arithmetic, with units and without."""
    x, density = problem(n, d, k)
    assert body_for(density) is matrix_full_block
    weight = np.random.default_rng(n).integers(0, 4, n).astype(float) if weighted else None
    exact = sums(x.astype(float), density, sample_weight=weight)
    mine = sums(x, density, sample_weight=weight)
    total = max(float(exact["total_weight"]), 1.0)
    for name, values in exact.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(mine[name], values, rtol=2e-5, atol=3e-6 * d * total, err_msg=name)
    each = passes.score_samples(as_rows(x), density)
    np.testing.assert_allclose(each, passes.score_samples(as_rows(x.astype(float)), density), rtol=1e-5, atol=1e-4)


@with_units
@pytest.mark.parametrize(("d", "k"), [(31, 33), (48, 8), (96, 4)])
def test_no_worse_than_without(monkeypatch, d, k):
    """Largest error of a log-density and of a second moment, beside those of float32 multiply-adds."""
    x, density = problem(20_000, d, k)
    wide = as_rows(x.astype(float))
    exact = passes.score_samples(wide, density), passes.Accumulator(wide, "full")(density).scatter
    errors = []
    for units in (True, False):
        assert (body_for(density, monkeypatch, units) is matrix_full_block) == units
        got = passes.score_samples(as_rows(x), density), passes.Accumulator(as_rows(x), "full")(density).scatter
        errors.append([float(np.abs(a - b).max()) for a, b in zip(got, exact, strict=True)])
    assert np.all(np.array(errors[0]) <= 1.5 * np.array(errors[1]))


@with_units
@pytest.mark.parametrize(
    ("d", "k", "opposite"),
    [(56, 6, False), (56, 2, True), (32, 33, False), (46, 8, False)],  # half of all pairs count where opposite, or most
)
def test_same_bits_for_any_number_of_threads(d, k, opposite):
    x, density = problem(9000, d, k, spread=0.7, opposite=True) if opposite else problem(9000, d, k)
    assert body_for(density) is matrix_full_block
    one = passes.Accumulator(as_rows(x), "full", n_threads=1)(density)
    for threads in (2, 3, 4):
        other = passes.Accumulator(as_rows(x), "full", n_threads=threads)(density)
        for field in dataclasses.fields(one):
            np.testing.assert_array_equal(getattr(other, field.name), getattr(one, field.name), err_msg=field.name)


@with_units
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(("d", "k"), [(50, 3), (48, 8)])
def test_a_value_that_is_not_finite_is_found(value, d, k):
    x, density = problem(600, d, k)
    assert body_for(density) is matrix_full_block
    x[431, 17] = value
    with pytest.raises(passes.NonFiniteDataError, match="row 431"):
        passes.Accumulator(as_rows(x), "full")(density)
