"""A pass in pieces: any cut of the grid, merged in any order, gives the bits of the pass in one piece; and nothing else
is ever added up."""

import itertools
import pickle
import pickletools

import numpy as np
import pytest

from fastgmm import partials, passes
from fastgmm.data.arrays import ArrayRows
from fastgmm.density import Density
from fastgmm.errors import IncompatibleStatisticsError, InvalidParameterError
from fastgmm.kernels import arguments as a
from fastgmm.kernels import fold
from fastgmm.partials import Work, merge, run_partial

PAIRS = [*passes.MOMENTS, ("shared_chol", "pooled")]


def make_density(kind, k, d, *, spread=3.0, width=1.0):
    rng = np.random.default_rng(1)
    means = rng.normal(size=(k, d)) * spread
    shapes = {"chol": (k, d, d), "shared_chol": (d, d), "diag": (k, d), "scalar": (k,)}
    factor = np.tril(rng.normal(size=shapes[kind]) * 0.1 + np.eye(d)) if "chol" in kind else np.ones(shapes[kind])
    log_weights = np.log(np.full(k, 1.0 / k))
    return Density(kind, means, factor / width, log_weights - 0.5 * d * np.log(2 * np.pi), log_weights)


def make_rows(n, d, *, dtype=np.float64, weighted=False, seed=0, spread=3.0):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(n, d)) * spread).astype(dtype)
    return ArrayRows(x, rng.uniform(0.1, 3.0, n) if weighted else None)


def cut(rows, edges, work):
    """Parts of a pass over the blocks between the edges."""
    block = work.block_rows
    found = []
    for begin, end in itertools.pairwise(edges):
        piece = slice(begin * block, end * block)
        weight = None if rows._weight is None else rows._weight[piece]
        found.append(run_partial(work, ArrayRows(rows._x[piece], weight), int(begin)))
    return found


def random_edges(rng, n_blocks, pieces):
    inner = rng.choice(np.arange(1, n_blocks), min(pieces - 1, n_blocks - 1), replace=False)
    return [0, *sorted(int(i) for i in inner), n_blocks]


class Cutting(partials.PartialRunner):
    """A runner that cuts every pass at random and merges the pieces in a random tree."""

    def __init__(self, rows, seed):
        self.rng = np.random.default_rng(seed)
        self.rows = rows
        self.passes = 0
        super().__init__(self.pieces)

    def pieces(self, work):
        self.passes += 1
        work = pickle.loads(pickle.dumps(work))
        parts = cut(self.rows, random_edges(self.rng, work.n_blocks, int(self.rng.integers(1, 9))), work)
        while len(parts) > 1 and self.rng.random() < 0.8:  # merge a random run of neighbours
            begin = int(self.rng.integers(0, len(parts) - 1))
            end = int(self.rng.integers(begin + 1, len(parts))) + 1
            group = [parts[int(i)] for i in self.rng.permutation(np.arange(begin, end))]
            parts[begin:end] = [pickle.loads(pickle.dumps(merge(group)))]
        return [parts[int(i)] for i in self.rng.permutation(len(parts))]


def as_bytes(stats):
    arrays = (stats.weight, stats.mean, stats.scatter)
    numbers = (stats.log_likelihood, stats.log_map, stats.total_weight, stats.n_rows)
    return b"".join(array.tobytes() for array in arrays), numbers


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("kind", "scatter"), PAIRS)
def test_any_cut_gives_the_bits_of_the_whole(kind, scatter, dtype, weighted):
    for n, d, k in ((1, 3, 2), (70_000, 2, 3), (60_011, 9, 5)):
        rows = make_rows(n, d, dtype=dtype, weighted=weighted)
        density = make_density(kind, k, d)
        wanted = passes.Accumulator(rows, scatter)
        for seed in range(3):
            accumulator = passes.Accumulator(rows, scatter, runner=Cutting(rows, seed))
            for moments in (True, False):
                got = as_bytes(accumulator(density, moments=moments))
                assert got == as_bytes(wanted(density, moments=moments)), (n, seed, moments)


def test_the_ways_around_cancellation_are_cut_too():
    """Narrow components far apart: the pooled scatter is summed within them, the scalar moments about each mean."""
    d, k = 4, 3
    for kind, scatter, width in (("shared_chol", "pooled", 1e-7), ("scalar", "trace", 1e-9)):
        density = make_density(kind, k, d, spread=1.0, width=width)
        x = density.means[np.arange(30_000) % k] + np.random.default_rng(3).normal(size=(30_000, d)) * width
        rows = ArrayRows(x)
        runner = Cutting(rows, 5)
        got = passes.Accumulator(rows, scatter, runner=runner)(density)
        assert as_bytes(got) == as_bytes(passes.Accumulator(rows, scatter)(density))
        if scatter == "pooled":
            assert runner.passes >= 3  # scatter of the whole, the usual pass, the one within


def test_a_step_of_kmeans_in_pieces():
    rows = make_rows(50_000, 6, weighted=True)
    centers = make_density("scalar", 7, 6).means
    for got, wanted in zip(
        passes.assign(rows, centers, runner=Cutting(rows, 2)), passes.assign(rows, centers), strict=True
    ):
        assert np.array_equal(got, wanted)


def make_work(n=40_000, seed=None):
    rows = make_rows(n, 3)
    density = make_density("diag", 4, 3)
    if seed is not None:
        density.means[seed % 4] += 1e-12
    return rows, Work.of(passes._build(density, rows.dtype)[0], a.FIT, rows.n_rows)


def test_lost_and_doubled_pieces_are_found():
    rows, work = make_work()
    parts = cut(rows, [0, 2, 3, 5, work.n_blocks], work)
    assert len(parts) == 4
    for lost in range(4):
        rest = [part for i, part in enumerate(parts) if i != lost]
        with pytest.raises(IncompatibleStatisticsError, match=r"gap|need all"):
            merge(rest).total()
    for twice in range(4):
        with pytest.raises(IncompatibleStatisticsError, match="overlap"):
            merge([*parts, parts[twice]])
    with pytest.raises(IncompatibleStatisticsError, match="overlap"):
        merge([merge(parts[:3]), merge(parts[2:])])
    with pytest.raises(InvalidParameterError, match="at least one"):
        merge([])


def test_pieces_of_other_passes_are_refused():
    rows, work = make_work()
    half = work.n_blocks // 2
    left, right = cut(rows, [0, half, work.n_blocks], work)
    _, moved = make_work(seed=1)  # a parameter differs in its last digits
    assert moved.key != work.key
    with pytest.raises(IncompatibleStatisticsError, match="different parameters"):
        merge([left, cut(rows, [0, half, work.n_blocks], moved)[1]])
    scored = Work.of(work.program(), a.EVALUATE, rows.n_rows)
    with pytest.raises(IncompatibleStatisticsError, match="different parameters"):
        merge([left, cut(rows, [0, half, work.n_blocks], scored)[1]])
    assert np.array_equal(merge([right, left]).total(), passes.Runner().run(work.program(), rows, a.FIT))


def test_rows_must_be_those_of_whole_blocks():
    rows, work = make_work()
    block = work.block_rows
    for begin, n in ((0, block + 1), (1, 2 * block - 1), (work.n_blocks - 1, block), (work.n_blocks, block)):
        with pytest.raises(InvalidParameterError, match="whole blocks"):
            run_partial(work, ArrayRows(rows._x[:n]), begin)
    single = np.dtype(np.float32)
    narrow = Work.of(passes._build(make_density("diag", 4, 3), single)[0], a.FIT, rows.n_rows)
    with pytest.raises(InvalidParameterError, match="float32"):
        run_partial(narrow, rows, 0)
    with pytest.raises(InvalidParameterError, match="3 features"):
        run_partial(work, ArrayRows(np.ones((block, 2))), 0)


def test_a_piece_is_small():
    """A run of 16^j blocks that begins at a multiple of it is one digit; any run is few."""
    rows, work = make_work(300 * 3840)
    whole = cut(rows, [0, work.n_blocks], work)[0]
    assert work.n_blocks == 300
    assert [place[0] for place in whole.places] == [2, 1, 0]
    assert cut(rows, [0, 16], work)[0].places == ((1, 0, 1),)
    assert cut(rows, [256, 300], work)[0].places == ((1, 256, 2), (0, 288, 12))
    assert len(cut(rows, [1, 299], work)[0].places) <= 2 * 15 + 2
    for block in range(1, 600):
        assert fold.unit_blocks(block) == max(16**j for j in range(4) if block % 16**j == 0)


def test_a_piece_is_data_only():
    """What travels names no code but the classes of values: numbers, text, arrays."""
    rows, work = make_work()
    for value in (work, cut(rows, [0, work.n_blocks], work)[0]):
        names = [arg for op, arg, _ in pickletools.genops(pickle.dumps(value, 2)) if op.name == "GLOBAL"]
        assert {name.split()[0].split(".")[0] for name in names} <= {
            "fastgmm",
            "numpy",
            "copy_reg",
            "_codecs",
            "__builtin__",
        }
        assert not [name for name in names if name.startswith("fastgmm.kernels")]


def test_out_is_refused():
    rows, work = make_work()
    with pytest.raises(InvalidParameterError, match="out must be None"):
        Cutting(rows, 0).run(work.program(), rows, a.SCORE, np.empty(rows.n_rows))
