"""Hard assignment: k-means in one launch, and the statistics of clusters in one pass."""

import time

import numpy as np
import pytest

from fastgmm import clusters, passes
from fastgmm.covariance import FAMILIES
from fastgmm.data import ArrayRows
from fastgmm.errors import InvalidDataError
from fastgmm.initialize.moments import by_label, collect
from fastgmm.kernels.lloyd import is_short, lloyd_program
from fastgmm.typing import RowBlock


def rows_and_centers(n, d, k, dtype=np.float64, *, weighted=False, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(0.0, 2.0, (k, d))
    x = truth[rng.integers(k, size=n)] + rng.normal(size=(n, d)) * 0.4
    x = (x - x.mean(axis=0)).astype(dtype)
    weight = rng.uniform(0.1, 2.0, n) if weighted else None
    return ArrayRows(x, weight), x[rng.choice(n, k, replace=False)].astype(np.float64)


def in_one_launch(rows, centers, rounds):
    program, _ = lloyd_program(clusters.spheres(centers), rows.dtype, 0.0, rounds)
    return is_short(program, rows.n_rows)


def plain_lloyd(x, weight, centers, tol, rounds):
    """K-means in NumPy, float64."""
    x = x.astype(np.float64)
    weight = np.ones(len(x)) if weight is None else weight
    for _ in range(rounds):
        labels = np.square(x[:, None] - centers).sum(axis=2).argmin(axis=1)
        means = centers.copy()
        for k in np.unique(labels):
            means[k] = np.average(x[labels == k], axis=0, weights=weight[labels == k])
        moved = np.square(means - centers).sum()
        centers = means
        if moved <= tol:
            break
    return centers


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("n", "d", "k"), [(300, 2, 3), (193, 5, 15), (40, 1, 8), (700, 9, 2)])
def test_kmeans_in_one_launch(n, d, k, weighted, dtype):
    rows, centers = rows_and_centers(n, d, k, dtype, weighted=weighted)
    assert in_one_launch(rows, centers, 30)
    _, x, weight = next(rows.blocks(1))
    before = centers.copy()
    for rounds in (1, 4, 30):
        found = clusters.lloyd(rows, centers, 1e-8, rounds)
        bound = 1e-12 if dtype == np.float64 else 1e-5
        np.testing.assert_allclose(found, plain_lloyd(x, weight, before, 1e-8, rounds), rtol=0, atol=bound)
    np.testing.assert_array_equal(centers, before)


def test_many_rows_are_clustered_pass_by_pass():
    rows, centers = rows_and_centers(30_000, 3, 4)
    assert not in_one_launch(rows, centers, 20)
    _, x, _ = next(rows.blocks(1))
    found = clusters.lloyd(rows, centers, 1e-8, 20)
    np.testing.assert_allclose(found, plain_lloyd(x, None, centers, 1e-8, 20), rtol=0, atol=1e-12)


def test_a_center_without_rows_stays():
    x = np.array([[-1.0], [-1.1], [1.0], [1.1]])
    found = clusters.lloyd(ArrayRows(x), np.array([[-1.0], [1.0], [50.0]]), 0.0, 10)
    np.testing.assert_allclose(found, [[-1.05], [1.05], [50.0]])


def test_tolerance_ends_the_rounds():
    rows, centers = rows_and_centers(300, 2, 3)
    one = clusters.lloyd(rows, centers, 0.0, 1)
    np.testing.assert_array_equal(clusters.lloyd(rows, centers, 1e9, 30), one)
    assert np.abs(clusters.lloyd(rows, centers, 0.0, 30) - one).max() > 0.0


@pytest.mark.parametrize("n", [300, 30_000])
def test_no_round_begins_after_the_deadline(n):
    rows, centers = rows_and_centers(n, 3, 4)
    np.testing.assert_array_equal(clusters.lloyd(rows, centers, 0.0, 5, time.perf_counter()), centers)
    later = clusters.lloyd(rows, centers, 0.0, 5, time.perf_counter() + 1e3)
    np.testing.assert_array_equal(later, clusters.lloyd(rows, centers, 0.0, 5))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_that_are_not_finite(bad):
    x = np.arange(12.0).reshape(6, 2)
    x[4, 1] = bad
    with pytest.raises(passes.NonFiniteDataError, match="row 4, column 1"):
        clusters.lloyd(ArrayRows(x), np.zeros((1, 2)), 0.0, 5)
    with pytest.raises(passes.NonFiniteDataError, match="row 4, column 1"):
        clusters.partition(ArrayRows(x), np.zeros((1, 2)))


def test_rows_too_far_out():
    x = np.array([[0.0], [1.0], [1e200]])
    with pytest.raises(InvalidDataError, match="squared"):
        clusters.lloyd(ArrayRows(x), np.array([[0.0]]), 0.0, 5)
    with pytest.raises(InvalidDataError, match="squared"):
        clusters.partition(ArrayRows(x), np.array([[0.0]]))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("n", "d", "k"), [(300, 2, 3), (5000, 4, 7), (20, 1, 3), (1000, 3, 1)])
def test_partition_is_what_labels_give(n, d, k, dtype):
    rows, centers = rows_and_centers(n, d, k, dtype)
    assert clusters.has_partition("full", d)
    _, x, _ = next(rows.blocks(1))
    labels = np.square(x[:, None].astype(np.float64) - centers).sum(axis=2).argmin(axis=1)
    expected = collect(by_label([RowBlock(0, x, None)], labels, k), k, d, FAMILIES["full"])
    found = clusters.partition(rows, centers)
    assert (found.kind, found.n_rows, found.total_weight) == ("full", n, n)
    np.testing.assert_array_equal(found.weight, np.bincount(labels, minlength=k))
    bound = 1e-12 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(found.mean, expected.mean, rtol=bound, atol=bound)
    np.testing.assert_allclose(found.scatter, expected.scatter, rtol=bound, atol=bound * n)


def test_what_has_no_partition():
    assert not clusters.has_partition("full", 5)
    assert not any(clusters.has_partition(kind, 2) for kind in ("pooled", "diag", "trace"))
