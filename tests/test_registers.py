"""Blocks of sums in parts: each sum is in one, parts fit the registers, and bits are the same for all registers."""

import contextlib
import functools
from types import SimpleNamespace

import numpy as np
import pytest
from numba.core.registry import cpu_target

from fastgmm.kernels import gram, layout, micro, near, near_twins, pairs, products, softmax, tile
from fastgmm.kernels.registers import COLUMNS, Part, Registers, evenly, for_parts, registers_of
from fastgmm.kernels.simd import DOUBLE, FLOAT, VECTOR_BYTES, Emitter, micro_apart
from tests.test_kernels import (
    TILE,
    Guarded,
    V,
    compiled,
    log_densities,
    random_panels,
    random_triangles,
    random_weights,
    rng_for,
    width,
)

PLAIN, AVX2 = Registers(64, 32), Registers(32, 16)
PICKS = AVX2._replace(picks=True)
HERE = registers_of(cpu_target.target_context.codegen()._tm_features)

dtypes = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def emitter(registers, real):
    return Emitter(None, real, registers)


# -- parts -------------------------------------------------------------------------------------------------------------


class Loops:
    """Stands in for an emitter: keeps what the loops over parts are, and writes nothing."""

    def __init__(self, registers, real):
        e = emitter(registers, real)
        self.lanes, self.narrow, self.registers, self.found = (
            e.lanes,
            SimpleNamespace(lanes=e.narrow.lanes),
            registers,
            [],
        )

    @contextlib.contextmanager
    def steps(self, stop, step):
        self.found.append(range(0, stop, step))
        yield "number"


@pytest.mark.parametrize("real", [DOUBLE, FLOAT], ids=["float64", "float32"])
@pytest.mark.parametrize("columns", [1, 2, COLUMNS])
def test_parts_of_a_block(real, columns):
    """Each sum once, and no more of them than the registers hold beside what is multiplied."""
    for rows in (1, 2, 3, 4, 6, 8):
        for vectors in (1, 2, 3, 4):
            loops, found = Loops(AVX2, real), []
            for_parts(loops, rows, vectors, found.append, columns)
            (part,), (across, down) = found, loops.found
            assert across.stop == vectors * loops.lanes
            assert part.columns == range(0, across.step, loops.narrow.lanes)
            assert across.stop % across.step == 0
            assert len(part.columns) <= columns
            assert (down.stop, down.step) == (rows, part.rows)
            assert rows % part.rows == 0
            assert part.rows * len(part.columns) + len(part.columns) < AVX2.number
            assert (part.row, part.column) == ("number", "number")


@pytest.mark.parametrize("real", [DOUBLE, FLOAT], ids=["float64", "float32"])
@pytest.mark.parametrize("registers", [PLAIN, Registers(permutes=True), Registers(256, 32)])
def test_a_block_is_one_part_where_a_vector_is_a_register(registers, real):
    e = emitter(registers, real)
    assert e.narrow is e
    for columns in (1, 2, COLUMNS):
        found = []
        for_parts(e, 8, V, found.append, columns)
        assert found == [Part(8, range(0, V * e.lanes, e.lanes), 0, 0)]


@pytest.mark.parametrize("things", [range(0), range(1), range(7), range(8), range(3, 20), range(0, 48, 4)])
@pytest.mark.parametrize("most", [1, 2, 3, 4, 6, 8, 100])
def test_evenly(things, most):
    """All in order, in as few pieces as can be, whose lengths differ by one at most."""
    pieces = evenly(things, most)
    assert [thing for piece in pieces for thing in piece] == list(things)
    assert len(pieces) == -(-len(things) // most)
    lengths = {len(piece) for piece in pieces}
    assert not lengths or (max(lengths) <= most and max(lengths) - min(lengths) <= 1)


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ("+sse2,+avx,+avx2,+fma,+avx512f,+avx512vl", Registers(64, 32, permutes=True)),
        ("+sse2,+avx,+avx2,+fma,-avx512f", PICKS),
        ("+sse2,+sse4.2,+avx,-avx2", AVX2),
        ("+neon,+fp-armv8,+crc", AVX2),
        ("", AVX2),
    ],
)
def test_registers_of_a_cpu(features, expected):
    assert registers_of(features) == expected


def test_the_narrow_emitter_writes_whole_registers():
    for real, size in ((DOUBLE, 8), (FLOAT, 4)):
        for registers in (AVX2, PICKS):
            narrow = emitter(registers, real).narrow
            assert narrow.lanes * size == registers.size
            assert narrow.narrow is narrow
            assert narrow.real == real
            assert not narrow.permutes
    doubles = emitter(AVX2, FLOAT).doubles
    assert (doubles.real, doubles.lanes, doubles.registers) == (DOUBLE, 8, AVX2)


# -- bits --------------------------------------------------------------------------------------------------------------

SHAPES = ((3, 2), (8, 8), (13, 13), (23, 17), (33, 9))  # features, components: blocks of every height, groups of 1 to 3

# of another size than this CPU's: kernels for its own would be compiled to the same
others = pytest.mark.parametrize(
    "registers", [r for r in (PLAIN, AVX2) if r.size != HERE.size], ids=lambda r: f"{r.size}"
)
every_other = pytest.mark.parametrize("registers", [r for r in (PLAIN, AVX2, PICKS) if r != HERE])


@functools.cache
def written_for(kernel, registers):
    """A micro-kernel as it is for a CPU with other registers than this one's."""

    def emit(e, *given):
        kernel.emit(Emitter(e.builder, e.real, registers), *given)

    return micro_apart(emit)


def outcome(kernel, given, left=None):
    """The bytes of all arrays after a call, which may neither touch what lies around them nor depend on it.

    `left` holds, for some, the elements that count.
    """
    guards = [Guarded(g) if isinstance(g, np.ndarray) else g for g in given]
    compiled(kernel)(tuple(g.inner if isinstance(g, Guarded) else g for g in guards))
    for guard in guards:
        if isinstance(guard, Guarded):
            guard.check()
    arrays = [(i, g.inner) for i, g in enumerate(guards) if isinstance(g, Guarded)]
    return [array[(left or {}).get(i, slice(None))].tobytes() for i, array in arrays]


def needs_instructions(registers):
    if registers.picks and not (HERE.picks or HERE.permutes):
        pytest.skip("this CPU has no AVX2")


def assert_same_bits(kernel, registers, *given, left=None):
    mine, other = outcome(kernel, given, left), outcome(written_for(kernel, registers), given, left)
    assert other == mine, kernel.__name__


def problem(d, k, dtype):
    """What the kernels below read; three panels of rows."""
    rng, size = rng_for(d, k), np.dtype(dtype).itemsize
    lanes, padded = VECTOR_BYTES // size, layout.padded_width(d, size)
    rows = np.zeros((TILE, padded), dtype)
    rows[:, :d] = rng.normal(size=(TILE, d))
    return SimpleNamespace(
        rng=rng,
        lanes=lanes,
        padded=padded,
        rows=rows,
        count=3,
        panels=random_panels(rng, 3, d, dtype),
        factor=layout.pack_triangles(random_triangles(rng, 1, d), dtype),
        mean=layout.split(rng.normal(size=d) + 3.0, dtype, d),
        means=layout.pack_components(rng.normal(size=(k, d)) + 3.0, dtype),
        scales=layout.pack_components(rng.uniform(0.5, 2.0, (k, d)), dtype)[: k * d],
        one=rng.uniform(0.5, 2.0, k).astype(dtype),
        log_norm=rng.normal(size=k).astype(dtype),
        norms=rng.normal(size=TILE).astype(dtype),
        resp=rng.uniform(size=(k, TILE)).astype(dtype),
        moments=rng.normal(size=layout.moment_length(d, size)),
        out=np.zeros((k, TILE), dtype),
        tops=np.zeros(TILE, dtype),
    )


@dtypes
@others
def test_triangular_densities(registers, dtype):
    for d, k in SHAPES:
        p = problem(d, k, dtype)
        work, white = np.zeros((d, width(dtype)), dtype), np.zeros_like(p.panels)
        triangle = (p.panels, p.count, p.mean, p.factor, work, d)
        assert_same_bits(micro.triangular_density, registers, *triangle, p.log_norm[:1], p.tops)
        assert_same_bits(micro.whiten, registers, *triangle, white)
        for before in (0, 1):
            tops = p.rng.normal(-0.5 * d, 0.5 * d, TILE).astype(dtype)
            given = (p.panels, p.count, p.mean[:d], p.factor, d, p.log_norm[:1], p.norms, tops, before, p.panels, 5)
            assert_same_bits(near.shifted_density, registers, *given)


@dtypes
@others
def test_densities_by_pairs(registers, dtype):
    for d, k in SHAPES:
        p = problem(d, k, dtype)
        head, tail = (p.panels, p.count, p.means), (d, k, p.out, TILE)
        assert_same_bits(pairs.diagonal_density, registers, *head, p.scales, p.log_norm, *tail)
        assert_same_bits(pairs.scalar_density, registers, *head, p.one, p.log_norm, d, k, p.out, p.out, TILE)
        tail = (*tail, p.tops, p.panels)
        assert_same_bits(near.affine_density, registers, *head, p.scales, p.log_norm, *tail)
        assert_same_bits(near.product_density, registers, *head, p.one, p.log_norm, p.norms, *tail)


@dtypes
@others
def test_sums_of_rows(registers, dtype):
    """Also of groups of four vectors, which `weighted_sums` takes."""
    for d, k in (*SHAPES, (32, 11), (64, 11)):
        p = problem(d, k, dtype)
        assert_same_bits(micro.rank_update, registers, p.rows, 23, d, p.padded, p.moments)
        sums = p.rng.normal(size=(k, p.padded))
        assert_same_bits(near.weighted_sums, registers, p.resp, p.rows, 23, k, TILE, p.padded, sums)
        step = (TILE + 1) * p.lanes
        panels, work = np.zeros(p.padded // p.lanes * step, dtype), np.zeros(V * TILE * p.lanes, dtype)
        near_twins.column_panels(p.rows, 24, p.padded, step, panels)
        left = {5: np.empty(0, int), 7: np.unique(layout._moment_places(d, np.dtype(dtype).itemsize))}
        given = p.resp[0], panels, 24, d, step, work, sums[0], p.moments
        assert_same_bits(gram.gram, registers, *given, left=left)


@dtypes
@every_other
def test_exponentials_and_logarithms(registers, dtype):
    needs_instructions(registers)
    for k in (1, 5, 8):
        rng = rng_for(k)
        joint, weight = log_densities(rng, k, dtype), random_weights(rng)
        cut = np.full(k, -40.0, dtype) + np.log(rng.dirichlet(np.ones(k))).astype(dtype)
        tops, totals, logs, sums = np.zeros(TILE, dtype), np.zeros(TILE, dtype), np.zeros(TILE), rng.normal(size=4)
        compiled(softmax.row_tops)((joint, TILE, k, TILE, tops))
        found, groups = np.zeros(1, np.int64), np.zeros(k, np.int64)
        given = (joint, tops, 1, cut, weight, totals, TILE, k, TILE, logs, sums, found, groups)
        assert_same_bits(softmax.softmax, registers, *given)
        assert_same_bits(softmax.softmax_roots, registers, *given)
        assert_same_bits(softmax.exponentials, registers, joint, tops, cut, TILE, k, TILE, totals)
        assert_same_bits(softmax.sum_exponentials, registers, joint, tops, TILE, k, TILE, 54, totals)
        totals = rng.uniform(1.0, k + 1.0, TILE).astype(dtype)
        assert_same_bits(softmax.row_scales, registers, tops, weight, totals, TILE, logs, sums)
        assert_same_bits(softmax.equal_row_scales, registers, tops, weight, totals, TILE, sums)
        assert_same_bits(softmax.row_logs, registers, tops, totals, weight, TILE, 3.25, logs, sums)


@dtypes
@every_other
@pytest.mark.parametrize("kernel", [tile.select_live, tile.select_live_roots], ids=lambda kernel: kernel.__name__)
def test_lists_of_live_rows(kernel, registers, dtype):
    """What is behind their ends is whatever is written at a time."""
    needs_instructions(registers)
    lanes, panels = VECTOR_BYTES // np.dtype(dtype).itemsize, TILE // width(dtype)
    for share in (0.0, 0.03, 0.5, 0.97, 1.0):
        rng = rng_for(100 * share)
        resp = np.where(rng.random(TILE) < share, rng.uniform(0.1, 1.0, TILE), 0.0).astype(dtype)
        scale, groups = rng.uniform(0.1, 1.0, TILE).astype(dtype), rng.integers(0, 256, 1)
        lists = []
        for one in (kernel, written_for(kernel, registers)):
            live, values = Guarded(np.zeros(TILE + lanes, np.int32)), Guarded(np.zeros(TILE + lanes, dtype))
            found, weights = np.zeros(1, np.int64), np.full(1, 0.25)
            compiled(one)((resp, scale, panels, groups, live.inner, values.inner, found, weights))
            live.check()
            values.check()
            n = found.item()
            lists.append((n, live.inner[:n].tolist(), values.inner[:n].tolist(), weights.item()))
        assert lists[0] == lists[1]


@dtypes
@others
def test_sums_of_shared_products(registers, dtype):
    """Also where blocks of components form the products as they go: whole vectors, and four components or more."""
    for d, k in (*SHAPES, (16, 5), (24, 12)):
        p = problem(d, k, dtype)
        count, extent = layout.product_count(d, p.lanes), products.extended_length(d, p.lanes)
        u = np.zeros((24, extent), dtype)
        near_twins.extend_rows(p.rows, p.resp[0], 24, d, p.padded, u, extent)
        out, buffer = p.rng.normal(size=(k, count * p.lanes + 8)), np.zeros((24, V * p.lanes), dtype)
        given = (p.resp, u, layout.product_vectors(d, p.lanes), count, 24, k, TILE, extent, buffer, out)
        assert_same_bits(products.product_moments, registers, *given, out.shape[1])
