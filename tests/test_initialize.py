"""Starts: proper ones from every method, and what users give is used as it is."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgmm import GaussianMixture, covariance, errors
from fastgmm.covariance import FAMILIES, family
from fastgmm.data import as_rows
from fastgmm.errors import InvalidDataError, InvalidParameterError, NonFiniteDataError
from fastgmm.initialize import METHODS, check_start, draw_sample, starting_params
from fastgmm.initialize.methods import plus_plus
from fastgmm.initialize.sample import MAX_ROWS
from fastgmm.params import Params

CENTERS = np.array([[0.0, 0.0], [12.0, 0.0], [0.0, 12.0]])


def three_clusters(n=100, seed=0):
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(c, 1.0, (n, 2)) for c in CENTERS])


X = three_clusters()
LABELS = np.repeat([0, 1, 2], 100)


def make(
    data,
    method="kmeans",
    *,
    k=3,
    name="full",
    weight=None,
    seed=0,
    reg_covar=0.0,
    weights=None,
    means=None,
    precisions=None,
):
    rows = as_rows(data, weight)
    rng = np.random.default_rng(seed)
    fam = family(name)
    start = check_start(method, weights, means, precisions, family=fam, n_components=k, n_features=rows.n_features)
    sample = draw_sample(rows, k, rng)
    return starting_params(start, rows, sample, rng, reg_covar=reg_covar, data=data)


def reference(data, resp, name):
    """Weighted moments the plain way."""
    n = resp.sum(axis=0)
    means = (resp.T @ data) / n[:, None]
    full = np.array([((data - m) * r[:, None]).T @ (data - m) for m, r in zip(means, resp.T, strict=True)])
    if name == "tied":
        return n / n.sum(), means, full.sum(axis=0) / n.sum()
    full /= n[:, None, None]
    diag = np.diagonal(full, axis1=1, axis2=2)
    return n / n.sum(), means, {"full": full, "diag": diag, "spherical": diag.mean(axis=1)}[name]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_starts_are_proper(method, name, dtype):
    params = make(X.astype(dtype), method, name=name)
    assert params.covariance_type == name
    assert params.weights.min() > 0.0
    assert abs(params.weights.sum() - 1.0) < 1e-12
    covariance.density(params)  # factorises
    spread = np.linalg.eigvalsh(family(name).dense(params.covariances, 3, 2))
    total = np.linalg.eigvalsh(np.cov(X.T)).max()
    assert spread.max() <= total * 3.0
    assert spread.min() > 1e-3
    low, high = X.min(axis=0) - 1e-4, X.max(axis=0) + 1e-4
    assert ((params.means >= low) & (params.means <= high)).all()


def test_kmeans_finds_the_clusters():
    params = make(X, "kmeans")
    order = np.argsort(params.means @ [1.0, 2.0])
    weights, means, covariances = reference(X, np.eye(3)[LABELS], "full")
    np.testing.assert_allclose(params.weights[order], weights, rtol=1e-12)
    np.testing.assert_allclose(params.means[order], means, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(params.covariances[order], covariances, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", ["k-means++", "random_from_data"])
def test_means_are_rows_of_the_data(method):
    params = make(X, method, k=5)
    for mean in params.means:
        assert np.abs(X - mean).max(axis=1).min() < 1e-13
    assert len(np.unique(params.means, axis=0)) == 5


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_translation_and_scale(method, name):
    plain = make(X, method, name=name)
    for factor, shift in ((2.0**40, 0.0), (2.0**-490, 0.0), (2.0**490, 0.0), (1.0, 2.0**27)):
        moved = make(X * factor + shift, method, name=name)
        np.testing.assert_allclose(moved.weights, plain.weights, rtol=1e-6)
        # 2^27 leaves 2^-26 of the last place of the data.
        np.testing.assert_allclose((moved.means - shift) / factor, plain.means, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(moved.covariances / factor / factor, plain.covariances, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_rows_of_weight_zero_do_not_matter(method):
    junk = np.concatenate([np.full((40, 2), 1e200), X, np.full((7, 2), np.nan)])
    weight = np.concatenate([np.zeros(40), np.ones(300), np.zeros(7)])
    with_junk, without = make(junk, method, weight=weight), make(X, method, weight=np.ones(300))
    for name in ("weights", "means", "covariances"):
        np.testing.assert_array_equal(getattr(with_junk, name), getattr(without, name))


@pytest.mark.parametrize("method", ["kmeans", "k-means++"])
@pytest.mark.parametrize("seed", range(5))
def test_weight_two_is_a_row_twice(method, seed):
    weight = np.random.default_rng(seed).integers(1, 4, 300)
    weighted = make(X, method, weight=weight, seed=seed, k=4)
    repeated = make(np.repeat(X, weight, axis=0), method, seed=seed, k=4)
    for name in ("weights", "means", "covariances"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(repeated, name), rtol=1e-7, atol=1e-9)


@given(st.integers(0, 2**32 - 1))
def test_seeds_are_different_places(seed):
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 3, (30, 2)).astype(float)
    k = len(np.unique(data, axis=0))
    weight = rng.integers(0, 3, 30) + (np.arange(30) == 0)
    kept = len(np.unique(data[weight > 0], axis=0))
    for w, distinct in ((None, k), (weight, kept)):
        sample = draw_sample(as_rows(data, w), distinct, rng)
        chosen = plus_plus(sample, distinct, rng)
        assert len(np.unique(sample.z[chosen], axis=0)) == distinct


def test_more_components_than_distinct_rows():
    data = np.repeat([[0.0, 1.0], [3.0, 4.0]], 20, axis=0)
    params = make(data, "kmeans", k=4, reg_covar=1e-6)
    assert abs(params.weights.sum() - 1.0) < 1e-12
    assert np.count_nonzero(params.weights) == 2
    assert np.isfinite(params.means).all()
    covariance.density(params)


def test_small_clusters_borrow_their_covariance():
    data = np.concatenate([X, [[500.0, 500.0], [-500.0, 500.0]]])
    params = make(data, "kmeans", k=5)
    covariance.density(params)  # no singleton with a covariance of zero
    smallest = np.argsort(params.weights)[:2]
    assert np.linalg.eigvalsh(params.covariances[smallest]).min() > 0.1


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("layout", [np.asarray, np.asfortranarray, lambda x: x.astype(np.float32)])
def test_labels_and_responsibilities_are_exact_moments(name, layout):
    data = layout(X + 1e3)
    rng = np.random.default_rng(1)
    resp = rng.dirichlet(np.ones(3), 300)
    for given_start, r in ((LABELS, np.eye(3)[LABELS]), (resp, resp), (resp * 7.0, resp)):
        params = make(data, given_start, name=name)
        weights, means, covariances = reference(np.asarray(data, dtype=np.float64), r, name)
        rtol = 1e-9 if data.dtype == np.float64 else 1e-4
        np.testing.assert_allclose(params.weights, weights, rtol=rtol)
        np.testing.assert_allclose(params.means, means, rtol=rtol)
        np.testing.assert_allclose(params.covariances, covariances, rtol=rtol, atol=rtol)


def test_labels_with_weights_and_left_out_rows():
    weight = np.arange(300) % 3
    params = make(X, LABELS, weight=weight)
    weights, means, covariances = reference(X, np.eye(3)[LABELS] * weight[:, None], "full")
    np.testing.assert_allclose(params.weights, weights, rtol=1e-12)
    np.testing.assert_allclose(params.means, means, rtol=1e-9)
    np.testing.assert_allclose(params.covariances, covariances, rtol=1e-9, atol=1e-12)


def test_callable_may_return_labels_responsibilities_or_params():
    seen = []

    def method(data, k, rng):
        seen.append((data is X, k, isinstance(rng, np.random.Generator)))
        return LABELS

    by_labels = make(X, method)
    assert seen == [(True, 3, True)]
    np.testing.assert_array_equal(by_labels.means, make(X, LABELS).means)
    np.testing.assert_allclose(make(X, lambda *_: np.eye(3)[LABELS]).means, by_labels.means, rtol=1e-12)
    by_params = make(X, lambda *_: by_labels)
    np.testing.assert_array_equal(by_params.covariances, by_labels.covariances)
    with pytest.raises(InvalidParameterError, match="must return Params"):
        make(X, lambda *_: Params(np.ones(1), np.zeros((1, 2)), np.eye(2)[None], "full"))
    with pytest.raises(InvalidParameterError, match="a function must return labels"):
        make(X, lambda *_: "nonsense")


@pytest.mark.parametrize("name", FAMILIES)
def test_given_parameters_are_used_as_they_are(name):
    fam = family(name)
    base = make(X, LABELS, name=name)
    precisions = fam.precisions(base.covariances)
    whole = make(X, weights=base.weights, means=base.means, precisions=precisions, name=name)
    np.testing.assert_array_equal(whole.weights, base.weights)
    np.testing.assert_array_equal(whole.means, base.means)
    np.testing.assert_allclose(whole.covariances, base.covariances, rtol=1e-10)

    # Given means decide what belongs to them, so the rest is that of their clusters, in their order.
    for order in ([0, 1, 2], [2, 0, 1]):
        for extra in ({}, {"precisions": precisions if name == "tied" else precisions[order]}):
            partly = make(X, means=CENTERS[order], name=name, **extra)
            np.testing.assert_array_equal(partly.means, CENTERS[order])
            np.testing.assert_allclose(partly.weights, 1 / 3, rtol=1e-12)
            expected = base.covariances if name == "tied" else base.covariances[order]
            np.testing.assert_allclose(partly.covariances, expected, rtol=1e-9)

    only_weights = make(X, weights=[0.2, 0.3, 0.5], name=name)
    np.testing.assert_allclose(only_weights.weights, [0.2, 0.3, 0.5])
    only_precisions = make(X, precisions=precisions, name=name)
    np.testing.assert_allclose(only_precisions.covariances, base.covariances, rtol=1e-10)


def test_a_given_mean_far_from_all_rows_keeps_a_little_weight():
    params = make(X, means=np.concatenate([CENTERS[:2], [[1e6, 1e6]]]))
    assert 0.0 < params.weights[2] < 0.01
    covariance.density(params)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"method": "nonsense"}, ["init_params", "'kmeans'", "'random'", "nonsense"]),
        ({"method": None}, ["init_params", "'kmeans'"]),
        ({"method": 3.5}, ["init_params"]),
        ({"method": ["a"] * 300}, ["init_params"]),
        ({"method": LABELS[:10]}, ["labels", "300"]),
        ({"method": LABELS + 1}, ["labels", "1 to 3", "= 2"]),
        ({"method": LABELS - 1}, ["labels", "-1 to 1"]),
        ({"method": LABELS + 0.5}, ["labels", "integers"]),
        ({"method": LABELS * 0}, ["component 1", "has none"]),
        ({"method": np.ones((300, 2))}, ["responsibilities", "(300, 2)"]),
        ({"method": np.ones((10, 3))}, ["responsibilities", "300"]),
        ({"method": np.full((300, 3), np.nan)}, ["responsibilities", "finite"]),
        ({"method": np.zeros((300, 3))}, ["responsibilities", "positive sum"]),
        ({"weights": [0.5, 0.5]}, ["weights", "(3,)", "(2,)"]),
        ({"weights": [0.5, 0.6, -0.1]}, ["weights", "[0, 1]", "-0.1"]),
        ({"weights": [0.5, 0.6, 0.1]}, ["weights", "normalized", "1.2"]),
        ({"weights": ["a", "b", "c"]}, ["weights"]),
        ({"means": np.zeros((3, 4))}, ["means", "(3, 2)", "(3, 4)"]),
        ({"means": np.full((3, 2), np.nan)}, ["means", "finite"]),
        ({"precisions": np.zeros((3, 2))}, ["precisions", "(3, 2, 2)", "(3, 2)"]),
        ({"precisions": -np.ones((3, 2)), "name": "diag"}, ["precisions"]),
        ({"precisions": np.zeros((3, 2, 2))}, ["precisions"]),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises(InvalidParameterError) as caught:
        make(X, **arguments)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_large_data_are_sampled_in_proportion_to_their_weights():
    n = 4 * MAX_ROWS
    data = np.arange(n, dtype=float)[:, None]
    rng = np.random.default_rng(0)
    sample = draw_sample(as_rows(data), 2, rng)
    assert not sample.complete
    assert sample.z.shape[0] == MAX_ROWS
    drawn = sample.origin + sample.unit * sample.z
    # One row of every stretch, so quantiles are nearly exact.
    assert abs(np.mean(drawn) - n / 2) < n * 1e-3
    assert np.diff(drawn[:, 0]).max() < 10

    weight = np.where(np.arange(n) < n // 2, 3.0, 1.0)
    weight[::5] = 0.0
    for layout in (np.asarray, np.asfortranarray):
        wide = np.repeat(layout(data), 2, axis=1)
        sample = draw_sample(as_rows(layout(wide), weight), 2, rng)
        total = np.ones(len(sample.z)) if sample.weight is None else sample.weight
        place = (sample.origin + sample.unit * sample.z)[:, 0]
        assert abs(total[place < n // 2].sum() / total.sum() - 0.75) < 1e-3
        assert not np.isin(np.round(place).astype(int) % 5, 0).any()


def test_many_components_get_enough_rows():
    data = np.random.default_rng(0).normal(size=(MAX_ROWS * 2, 1))
    assert draw_sample(as_rows(data), 3000, np.random.default_rng(0)).z.shape[0] == 96000


def test_sample_moments():
    sample = draw_sample(as_rows(X + 1e8), 3, np.random.default_rng(0))
    np.testing.assert_allclose(sample.variance, (X + 1e8).var(axis=0), rtol=1e-7)
    constant = np.full((30, 2), [1e9 + 0.1, 0.1])
    assert (draw_sample(as_rows(constant), 1, np.random.default_rng(0)).variance == 0.0).all()


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_given_precisions_are_neither_changed_nor_kept(kind):
    """They are not copied where they are what is asked for already."""
    fam = family(kind)
    precisions = {"full": np.tile(4.0 * np.eye(3), (2, 1, 1)), "tied": 4.0 * np.eye(3), "diag": np.full((2, 3), 4.0)}
    theirs = precisions.get(kind, np.full(2, 4.0))
    before = theirs.copy()
    start = check_start("kmeans", None, None, theirs, family=fam, n_components=2, n_features=3)
    np.testing.assert_array_equal(theirs, before)
    assert theirs.flags.writeable
    assert not np.shares_memory(theirs, start.covariances)


@pytest.mark.parametrize("n_features", [2, 20])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("first", [0.0, 30.0, 1e6, 1e12])
def test_a_sample_is_as_exact_wherever_its_first_row_lies(n_features, weighted, first):
    """Rows are taken about the first one on the way to their mean; few features go by columns."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((80_000 // n_features, n_features))
    x[0] += first
    weight = rng.uniform(0.5, 2.0, len(x)) if weighted else None
    sample = draw_sample(as_rows(x, weight), 2, rng)
    assert sample.complete
    mean = np.average(x, axis=0, weights=weight)
    variance = np.average((x - mean) ** 2, axis=0, weights=weight)
    np.testing.assert_allclose(sample.variance, variance, rtol=1e-12)
    assert (np.abs(sample.origin - mean) <= 2e-12 * np.sqrt(variance)).all()
    assert sample.z.flags.c_contiguous
    from_origin = x - sample.origin
    error = np.abs(sample.unit * sample.z - from_origin)
    assert (error <= 64.0 * np.finfo(float).eps * (1.0 + np.abs(from_origin))).all()


def test_values_no_start_can_be_made_from():
    rng = np.random.default_rng(0)
    with pytest.raises(NonFiniteDataError, match="row 3, column 1 is NaN"):
        draw_sample(as_rows(np.where(np.arange(20).reshape(10, 2) == 7, np.nan, 1.0)), 1, rng)
    with pytest.raises(InvalidDataError, match=r"too large.*Multiply X"):
        draw_sample(as_rows(X * 1e200), 1, rng)
    with pytest.raises(InvalidDataError, match=r"too close together.*Multiply X"):
        draw_sample(as_rows(X * 1e-200), 1, rng)


def test_squares_of_distances_that_overflow_are_an_error_of_ours_alone():
    """A row of next to no weight whose distance from the others can be held, but not squared."""
    x, weight = np.array([[1e150], [0.0]]), np.array([5e-324, 1.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.simplefilter("ignore", errors.FastgmmWarning)
        with pytest.raises(InvalidDataError, match="distance from the components can be squared"):
            GaussianMixture(1, random_state=0, max_iter=0).fit(x, sample_weight=weight)
