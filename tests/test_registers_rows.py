"""Rows that come in, are gathered and are eliminated: the same bits as written for CPUs with other registers."""

import numpy as np

from fastgmm.kernels import entry, factors, layout, micro, tile
from fastgmm.kernels.simd import VECTOR_BYTES
from tests.test_kernels import TILE, compiled, rng_for, width
from tests.test_registers import assert_same_bits, dtypes, others

FEATURES = (1, 5, 8, 13, 17, 70)  # columns in groups of four vectors and fewer; squares that are cut off


def test_every_mask_of_a_register():
    """Lists from the definition, whatever the table says: 256 masks of eight float32, 16 of four float64."""
    for dtype in (np.float64, np.float32):
        lanes, masks = VECTOR_BYTES // np.dtype(dtype).itemsize, np.arange(256)
        rows = np.resize(np.unpackbits(masks.astype(np.uint8)), (-(-256 * 8 // TILE), TILE))
        for bits in rows:
            resp = (bits * np.arange(1, TILE + 1)).astype(dtype)
            live, values = np.zeros(TILE + lanes, np.int32), np.zeros(TILE + lanes, dtype)
            count, ones = np.zeros(1, np.int64), np.ones(TILE, dtype)
            given = (resp, ones, TILE // width(dtype), np.array([-1]), live, values, count, np.zeros(1))
            compiled(tile.select_live)(given)
            (expected,) = np.nonzero(bits)
            assert count[0] == len(expected)
            np.testing.assert_array_equal(live[: len(expected)], expected)
            np.testing.assert_array_equal(values[: len(expected)], expected + 1)


@dtypes
@others
def test_rows_that_come_in(registers, dtype):
    panel = width(dtype)
    for d in FEATURES:
        rng, padded = rng_for(d), layout.padded_width(d, np.dtype(dtype).itemsize)
        centre = layout.split(rng.normal(size=d) + 3.0, dtype, padded)
        for count in (1, panel + 1):
            source, total = rng.normal(size=(count, d)).astype(dtype), -(-count // panel) * panel
            rows, panels = np.full((total, padded), 5.0, dtype), np.zeros((total // panel, d, panel), dtype)
            for centred in (0, 1):
                given = (source, d, padded, count, total, centred, centre)
                assert_same_bits(entry.enter_rows, registers, *given, rows, panels)
                assert_same_bits(entry.enter_panels, registers, *given, panels)


@dtypes
@others
def test_gathered_rows(registers, dtype):
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    for d in FEATURES:
        rng, padded = rng_for(d), layout.padded_width(d, np.dtype(dtype).itemsize)
        mean = layout.split(rng.normal(size=d) + 3.0, dtype, padded)
        rows = rng.normal(size=(TILE, padded)).astype(dtype)
        live, weights = np.sort(rng.choice(TILE, 23, replace=False)).astype(np.int32), rng.random(23).astype(dtype)
        given, sums = (rows, live, weights, 23, padded, mean), rng.normal(size=(2, padded))
        z = np.zeros((23, padded + lanes), dtype)
        assert_same_bits(micro.gather, registers, *given, z, padded + lanes, sums[0])
        assert_same_bits(micro.diagonal_moments, registers, *given, *sums)


@others
def test_eliminated_rows(registers):
    rng = rng_for(5)
    for triangular in (0, 1):
        for begin, end in ((0, 8), (0, 48), (8, 40)):
            rows, shares, target = rng.normal(size=(48, 48)), rng.normal(size=(48, 8)), rng.normal(size=(8, 48))
            assert_same_bits(factors.add_rows, registers, rows, shares, target, 48, begin, end, 3, 40, triangular)
