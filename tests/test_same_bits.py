"""The same bits for any number of threads, any launcher, any cut of the rows on the grid, any kind of array.

Numba's own limit on threads is set in subprocesses, because it is read once; four threads on fewer cores are as good a
test as four cores, since what could change a result is the sharing out of the blocks.
"""

import functools
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastgmm import covariance, passes
from fastgmm.covariance import FAMILIES
from fastgmm.data import as_rows
from fastgmm.kernels import _jit, fold, runner, schedule, team
from fastgmm.kernels import arguments as a
from fastgmm.params import Params
from fastgmm.stats import SufficientStatistics
from fastgmm.typing import RowBlock
from tests import strategies
from tests.tools import same_bits

TYPES = tuple(FAMILIES)
types = pytest.mark.parametrize("kind", TYPES)
dtypes = pytest.mark.parametrize("dtype", [np.float64, np.float32])
dimensions = pytest.mark.parametrize("d", [2, 9])


def problem(kind, d, dtype, n=20_000):
    """Rows, weights, and a density under which they are shared out."""
    rng = np.random.default_rng([29, d])
    c = strategies.random_covariances(rng, kind, 3, d)
    params = Params(np.array([0.5, 0.3, 0.2]), rng.normal(size=(3, d)), c, kind)
    x = rng.normal(size=(n, d)).astype(dtype)
    return x, rng.uniform(0.1, 2.0, n), covariance.density(params)


def bits(value):
    """Everything a pass returned, as bytes."""
    if isinstance(value, SufficientStatistics):
        numbers = value.log_likelihood, value.log_map, value.total_weight, value.n_rows
        return b"".join(p.tobytes() for p in (value.weight, value.mean, value.scatter, np.array(numbers)))
    if isinstance(value, tuple):
        return b"".join(np.asarray(v).tobytes() for v in value)
    return value.tobytes()


def all_passes(rows, density, kind, threads=None):
    """Name of a pass -> the bits it gives."""
    scatter = covariance.family(kind).scatter
    found = {
        "fit": passes.Accumulator(rows, scatter, n_threads=threads)(density),
        "evaluate": passes.Accumulator(rows, scatter, n_threads=threads)(density, moments=False),
    }
    if threads is None:
        found["score_samples"] = passes.score_samples(rows, density)
        found["predict"] = passes.predict(rows, density)
        found["predict_proba"] = passes.predict_proba(rows, density)
        found["assign"] = passes.assign(rows, density.means)
    return {name: bits(value) for name, value in found.items()}


# -- threads -----------------------------------------------------------------------------------------------------------


@types
@dtypes
@dimensions
def test_threads_within_a_process(kind, d, dtype):
    x, w, density = problem(kind, d, dtype)
    rows = as_rows(x, w)
    one = all_passes(rows, density, kind, threads=1)
    for threads in (2, 3, 4, 17):
        assert all_passes(rows, density, kind, threads=threads) == one


def test_four_threads_within_a_process():
    """The test above again, where four threads can be had."""
    code = (
        "import numba; from tests import test_same_bits as t; assert numba.get_num_threads() == 4;"
        "[t.test_threads_within_a_process(k, d, dt) for k in t.TYPES for d in (2, 9) for dt in ('float32', 'float64')]"
    )
    assert run_with(4, code) == ""


@types
@dtypes
def test_the_serial_launcher_gives_the_same(kind, dtype, monkeypatch):
    for d in (2, 9):
        x, w, density = problem(kind, d, dtype)
        usual = all_passes(as_rows(x, w), density, kind)
        with monkeypatch.context() as patch:
            patch.setattr(_jit, "_serial_only", True)
            assert _jit.n_threads() == 1
            assert all_passes(as_rows(x, w), density, kind) == usual


@pytest.mark.parametrize("slot_bytes", [1 << 10, 1 << 15, 1 << 22])
def test_the_number_of_slots_does_not_matter(slot_bytes, monkeypatch):
    x, w, density = problem("full", 9, np.float64)
    usual = all_passes(as_rows(x, w), density, "full")
    monkeypatch.setattr(schedule, "SLOT_BYTES", slot_bytes)
    monkeypatch.setattr(schedule, "LAUNCH_SECONDS", 1e-6)
    assert all_passes(as_rows(x, w), density, "full") == usual


@types
@dtypes
@dimensions
def test_parts_of_blocks_do_not_matter(kind, d, dtype, monkeypatch):
    """Where a block would hold Ctrl-C up for too long, it is done a few tiles at a time."""
    x, w, density = problem(kind, d, dtype, n=9_001)
    rows = as_rows(x, w)
    usual = all_passes(rows, density, kind)
    launches = []
    real = team.launch

    def counted(*arguments):
        launches.append(arguments)
        real(*arguments)

    monkeypatch.setattr(team, "launch", counted)
    program, _ = passes._build(density, rows.dtype)
    row = schedule.row_seconds(program.n_components, program.slot_length)
    for tiles in (1, 3):
        launches.clear()
        monkeypatch.setattr(schedule, "LAUNCH_SECONDS", row * a.TILE * (tiles + 0.5))
        assert all_passes(rows, density, kind) == usual
        assert len(launches) > 12 * len(usual) / tiles


@types
@dtypes
def test_half_tiles_of_the_largest_models(kind, dtype, monkeypatch):
    """They round differently, but alike for any number of threads and launches."""
    x, w, density = problem(kind, 9, dtype, n=5_001)
    rows = as_rows(x, w)
    usual = passes.Accumulator(rows, covariance.family(kind).scatter)(density)
    monkeypatch.setattr(schedule, "TILE_SECONDS", 0.0)
    monkeypatch.setattr(schedule, "LAUNCH_SECONDS", 0.0)
    half = passes.Accumulator(rows, covariance.family(kind).scatter)(density)
    rtol = 1e-11 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(half.scatter, usual.scatter, rtol=rtol, atol=rtol * np.abs(usual.scatter).max())
    assert half.log_likelihood == pytest.approx(usual.log_likelihood, rel=rtol)
    one = all_passes(rows, density, kind, threads=1)
    for threads in (2, 3):
        assert all_passes(rows, density, kind, threads=threads) == one


def run_with(threads, code):
    env = {**os.environ, "NUMBA_NUM_THREADS": str(threads), "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("threads", "layer"), [(3, "workqueue"), (4, "omp"), (2, "tbb")])
def test_fits_in_processes_of_other_threads_and_layers(threads, layer):
    """The short version of ``python -m tests.tools.same_bits``."""
    one, other = same_bits.process(1, "workqueue", everything=True), same_bits.process(threads, layer)
    if other is None:
        pytest.skip(f"numba has no threading layer {layer} here")
    assert one["count"] == 4 * 8 + 10 * 8
    assert one["wrong"] == []
    assert len(set(one["found"].values())) == 4 * 8
    assert other["found"] == one["found"]


# -- cuts --------------------------------------------------------------------------------------------------------------


class CutRows:
    """A source that hands out its rows in pieces of given numbers of grid blocks, the last piece being the rest."""

    def __init__(self, x, weight, sizes):
        self.x, self.weight, self.sizes = x, weight, sizes
        self.n_rows, self.n_features = x.shape
        self.dtype = x.dtype
        self.weighted = weight is not None
        self.pieces = 0

    def blocks(self, multiple):
        start = 0
        for size in itertools.cycle(self.sizes):
            stop = min(start + size * multiple, self.n_rows)
            weight = None if self.weight is None else self.weight[start:stop].copy()
            self.pieces += 1
            yield RowBlock(start, self.x[start:stop].copy(), weight)
            start = stop
            if start == self.n_rows:
                return


@types
@dtypes
def test_cuts_on_the_grid(kind, dtype):
    rng = np.random.default_rng(1)
    for d in (2, 9):
        x, w, density = problem(kind, d, dtype, n=80_000)
        for weight in (None, w):
            whole = all_passes(as_rows(x, weight), density, kind)
            for sizes in ([1], [2], [1, 3], [16], [17, 1], rng.integers(1, 6, 50).tolist()):
                source = CutRows(x, weight, sizes)
                assert all_passes(source, density, kind) == whole
                assert source.pieces > 6  # of six passes, so it was cut


# -- arrays ------------------------------------------------------------------------------------------------------------


@types
def test_the_kind_of_array_does_not_matter(kind, tmp_path):
    x, w, density = problem(kind, 9, np.float64, n=5000)
    usual = all_passes(as_rows(x, w), density, kind)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    read_only = x.copy()
    read_only.setflags(write=False)
    wide = np.zeros((5000, 20))
    wide[:, 3:12] = x
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float64).reshape(x.shape)
    others = (mapped, read_only, np.asfortranarray(x), wide[:, 3:12], x.astype(">f8"), unaligned, x[::-1][::-1])
    for other in others:
        assert all_passes(as_rows(other, w), density, kind) == usual


@types
def test_rows_of_weight_zero_are_as_good_as_absent(kind):
    x, w, density = problem(kind, 9, np.float64, n=5000)
    usual = all_passes(as_rows(x, w), density, kind)
    gaps = np.sort(np.random.default_rng(2).integers(0, 5000, 700))
    more, weight = np.insert(x, gaps, np.nan, axis=0), np.insert(w, gaps, 0.0)
    assert all_passes(as_rows(more, weight), density, kind)["fit"] == usual["fit"]


@types
@pytest.mark.parametrize("d", [1, 2, 4, 9])
@dtypes
def test_weights_that_are_alike_are_as_good_as_none(kind, d, dtype):
    """Ones give the bits of no weights, rows of weight 0 between them change nothing, fours make sums fourfold."""
    x, _, density = problem(kind, d, dtype, n=5000)
    usual = all_passes(as_rows(x), density, kind)
    assert all_passes(as_rows(x, np.ones(5000)), density, kind) == usual
    gaps = np.sort(np.random.default_rng(3).integers(0, 5000, 300))
    more, weight = np.insert(x, gaps, 7.0, axis=0), np.insert(np.ones(5000), gaps, 0.0)
    assert all_passes(as_rows(more, weight), density, kind)["fit"] == usual["fit"]
    scatter = covariance.family(kind).scatter
    one, four = (passes.Accumulator(as_rows(x, np.full(5000, w)), scatter)(density) for w in (1.0, 4.0))
    for name in ("log_likelihood", "log_map", "total_weight", "weight", "scatter"):
        np.testing.assert_array_equal(4.0 * np.asarray(getattr(one, name)), getattr(four, name))
    np.testing.assert_array_equal(one.mean, four.mean)


@types
@pytest.mark.parametrize("d", [2, 4, 9, 50])
@dtypes
def test_the_values_of_a_row_do_not_depend_on_the_rows_around_it(kind, d, dtype):
    """Whatever tile, panel or vector a row comes to lie in: a table scored in pieces is the table scored at once."""
    x, _, density = problem(kind, d, dtype, n=1000)
    for way in (passes.score_samples, passes.predict, passes.predict_proba):
        whole = way(as_rows(x), density)
        for begin, end in ((1, 1000), (100, 101), (191, 193), (5, 700)):
            np.testing.assert_array_equal(way(as_rows(x[begin:end]), density), whole[begin:end])


# -- the fold ----------------------------------------------------------------------------------------------------------


def fold_of(partials):
    """Plain fold: sixteen neighbours at a time, level by level; then what is left over, from the lowest level up."""
    levels, rest = [list(partials)], []
    while levels[-1]:
        level = levels[-1]
        whole = len(level) // fold.RADIX * fold.RADIX
        groups = [level[i : i + fold.RADIX] for i in range(0, whole, fold.RADIX)]
        levels.append([functools.reduce(np.add, group) for group in groups])
        rest.append(level[whole:])
    total = np.zeros_like(partials[0])
    for left in rest:
        if left:
            total = total + functools.reduce(np.add, left)
    return total


@pytest.mark.parametrize("blocks", [1, 2, 15, 16, 17, 31, 32, 33, 255, 256, 257, 300, 4113])
def test_fold_order(blocks):
    """Partials of sizes that round differently in any other order, pushed in waves of random lengths."""
    rng = np.random.default_rng(blocks)
    length = 24
    partials = rng.normal(size=(blocks, length)) * 10.0 ** rng.integers(-8, 9, (blocks, length))
    wanted = fold_of(list(partials))
    code = _jit.compile_block(fold.fold_block, "float64")
    for segment in (8, 24):
        stack = np.full(length * fold.n_levels(len(partials)), np.nan)
        table = a.table()
        table[a.SLOT_LENGTH], table[a.SEGMENT] = length, segment
        table[a.STACK] = stack.ctypes.data
        done = 0
        while done < blocks:
            count = min(int(rng.integers(1, 40 + blocks // 5)), blocks - done)
            wave = partials[done : done + count].copy()
            table[a.SLOTS], table[a.COUNT], table[a.DEPTH] = wave.ctypes.data, count, done
            _jit.launch(code, table, length // segment, 2)
            done += count
        digits = fold.counter_digits(stack, length, 0, blocks)
        np.testing.assert_array_equal(fold.total(digits), wanted)
    if blocks >= 31:
        assert (wanted != partials.sum(axis=0)).any()  # the order is visible in these numbers


def test_an_aligned_run_of_blocks_can_be_summed_elsewhere():
    rng = np.random.default_rng(5)
    partials = list(rng.normal(size=(512, 8)) * 10.0 ** rng.integers(-8, 9, (512, 8)))
    halves = [fold_of(partials[:256]), fold_of(partials[256:])]
    np.testing.assert_array_equal(fold_of(halves), fold_of(partials))


@dtypes
def test_large_sums_are_folded_by_several_threads_to_the_same_bits(dtype, monkeypatch):
    """Each thread then takes a part of the numbers; small sums are folded by one."""
    x, w, density = problem("full", 9, dtype, n=60_000)
    rows, scatter = as_rows(x, w), covariance.family("full").scatter
    alone, items = bits(passes.Accumulator(rows, scatter, n_threads=2)(density)), []

    def launch(code, table, count, workers):
        items.append((count, workers))
        _jit.launch(code, table, count, workers)

    monkeypatch.setattr(runner, "launch", launch)
    monkeypatch.setattr(schedule, "FOLD_TOGETHER", 0)
    assert bits(passes.Accumulator(rows, scatter, n_threads=2)(density)) == alone
    assert items
    assert all(count == 2 == workers for count, workers in items)
