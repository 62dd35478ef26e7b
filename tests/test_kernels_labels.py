"""The micro-kernels that turn log-densities into labels, and labels into hard responsibilities."""

import numpy as np

from fastgmm.kernels import tile, tile_twins
from tests.test_kernels import TILE, compare, components, dtypes, log_densities, random_weights, rng_for, width


@dtypes
@components
def test_labels(k, dtype):
    rng = rng_for(k)
    joint = log_densities(rng, k, dtype)
    joint[:, 10:20] = np.round(joint[:, 10:20] / 4.0)  # ties
    labels = np.zeros(TILE, np.int64)
    compare(tile.largest, tile_twins.largest, joint, TILE, k, TILE, labels, exact=True)
    tile_twins.largest(joint, TILE, k, TILE, labels)
    assert set(labels[5:7]) == {-1}
    assert labels[7] == 0
    finite = np.where(np.isfinite(joint), joint, -1e4).astype(dtype)
    weight, scale, sums = random_weights(rng), np.zeros(TILE, dtype), rng.normal(size=4)
    compare(tile.one_hot, tile_twins.one_hot, finite, labels, weight, scale, TILE, k, TILE, sums)


@dtypes
@components
def test_labels_of_some_panels(k, dtype):
    """One panel to a whole tile, with equal densities, NaN and no density wherever they may be; other rows are left."""
    panel = width(dtype)
    for panels in range(1, TILE // panel + 1):
        rng, count = rng_for(k, panels), panels * panel
        joint = rng.integers(-2, 3, (k, TILE)).astype(dtype)  # few values: most rows have equal ones
        joint[rng.random((k, TILE)) < 0.2] = np.nan
        joint[rng.random((k, TILE)) < 0.2] = -np.inf
        joint[:, 0], joint[:, count - 1] = np.nan, -np.inf
        joint[:, 1], joint[:, count - 2] = -np.inf, 7.0
        joint[0, 1] = joint[-1, 2] = np.nan
        joint[-1, 3] = 9.0
        labels = np.full(TILE, 99)
        compare(tile.largest, tile_twins.largest, joint, count, k, TILE, labels, exact=True)
        tile_twins.largest(joint, count, k, TILE, labels)
        assert labels[[0, 1, count - 1]].tolist() == [-1] * 3
        assert labels[[3, count - 2]].tolist() == [k - 1, 0]
        assert (labels[count:] == 99).all()


@dtypes
def test_the_first_of_equal_densities_counts(dtype):
    """Whichever components they are, in every lane; zeros of either sign are equal."""
    k = 5
    for first in range(k):
        for second in range(first + 1, k):
            joint = np.full((k, TILE), -1.0, dtype)
            joint[first], joint[second] = (-0.0, 0.0) if second % 2 else (0.0, -0.0)
            joint[:first] = np.nan
            labels = np.zeros(TILE, np.int64)
            compare(tile.largest, tile_twins.largest, joint, TILE, k, TILE, labels, exact=True)
            tile_twins.largest(joint, TILE, k, TILE, labels)
            assert set(labels.tolist()) == {first}
