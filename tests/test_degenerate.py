"""Degenerate input: a right answer, or one clear sentence. Never NaN, never a traceback from deep inside."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastgmm
from fastgmm import (
    DegenerateComponentWarning,
    DegenerateDataWarning,
    FastgmmError,
    GaussianMixture,
    InvalidDataError,
    NonFiniteDataError,
    SingularCovarianceError,
)
from fastgmm.estimators import _report

TYPES = ("full", "tied", "diag", "spherical")
CENTERS = np.array([[0.0, 0.0, 0.0], [8.0, 0.0, 0.0], [0.0, 8.0, 0.0]])
RNG = np.random.default_rng(0)
X = np.concatenate([RNG.normal(c, 1.0, (100, 3)) for c in CENTERS])


def fit(data, name="full", *, k=3, weight=None, **params):
    """Fit and return the model with the categories of its warnings; everything fitted must be sound."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = GaussianMixture(k, covariance_type=name, random_state=0, **params).fit(data, sample_weight=weight)
    assert model.weights_.sum() == pytest.approx(1.0, abs=1e-6)
    assert model.weights_.min() >= 0.0
    for attribute in ("means_", "covariances_", "precisions_", "precisions_cholesky_"):
        assert np.isfinite(getattr(model, attribute)).all(), attribute
    dense = model.mixture_.covariances_dense
    scale = np.sqrt(np.diagonal(dense, axis1=1, axis2=2))
    assert scale.min() > 0.0
    # Definite in the features' own units; eigenvalues of 1e300 and 1e-300 together are beyond LAPACK.
    correlation = dense / scale[:, :, None] / scale[:, None, :]
    np.testing.assert_allclose(correlation, correlation.transpose(0, 2, 1), atol=1e-12)
    assert np.linalg.eigvalsh(correlation).min() > -1e-12
    assert np.isfinite(model.lower_bound_)
    proba = model.predict_proba(data)
    assert np.isfinite(proba).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, rtol=1e-6)
    return model, {w.category for w in caught}


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("reg_covar", [1e-6, 0.0])
class TestTable:
    def test_all_rows_identical(self, name, reg_covar):
        model, warned = fit(np.full((50, 3), 3.7), name, reg_covar=reg_covar)
        assert warned == {DegenerateDataWarning, DegenerateComponentWarning}
        assert np.count_nonzero(model.weights_) == 1
        np.testing.assert_allclose(model.means_, 3.7)
        assert model.result_.empty == (1, 2) or len(model.result_.empty) == 2

    def test_two_distinct_points(self, name, reg_covar):
        data = np.repeat([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], 20, axis=0)
        model, warned = fit(data, name, reg_covar=reg_covar)
        assert warned == {DegenerateComponentWarning}
        np.testing.assert_allclose(np.sort(model.weights_), [0.0, 0.5, 0.5])
        assert len(np.unique(model.predict(data))) == 2

    def test_constant_column(self, name, reg_covar):
        data = X.copy()
        data[:, 2] = 7.3
        model, warned = fit(data, name, reg_covar=reg_covar)
        assert DegenerateDataWarning in warned
        np.testing.assert_allclose(model.means_[:, 2], 7.3)
        np.testing.assert_allclose(np.sort(model.weights_), 1 / 3, atol=0.02)

    def test_collinear_columns(self, name, reg_covar):
        data = X.copy()
        data[:, 2] = 2.0 * X[:, 0] - X[:, 1]
        model, warned = fit(data, name, reg_covar=reg_covar)
        assert warned == ({DegenerateComponentWarning} if name in ("full", "tied") else set())
        np.testing.assert_allclose(np.sort(model.weights_), 1 / 3, atol=0.02)

    def test_fewer_rows_than_features(self, name, reg_covar):
        _, warned = fit(np.random.default_rng(1).normal(size=(6, 10)), name, reg_covar=reg_covar)
        assert (DegenerateDataWarning in warned) == (name in ("full", "tied"))

    def test_duplicates(self, name, reg_covar):
        data = np.concatenate([X, np.full((30, 3), 30.0)])
        model, warned = fit(data, name, k=4, reg_covar=reg_covar)
        # One component sits on the copies and nowhere else, and the user is told.
        spike = int(model.predict(np.full((1, 3), 30.0))[0])
        assert model.weights_[spike] == pytest.approx(30 / 330)
        if name != "tied":
            assert warned == {DegenerateComponentWarning}
            assert model.result_.collapsed == (() if reg_covar else (spike,))

    @pytest.mark.parametrize("size", [1e6, 1e12])
    def test_outlier(self, name, reg_covar, size):
        model, _ = fit(np.concatenate([X, np.full((1, 3), size)]), name, k=4, reg_covar=reg_covar)
        assert np.isclose(model.weights_, 1 / 301, rtol=1e-3).any()

    @pytest.mark.parametrize("factor", [1e-150, 1e-8, 1.0, 1e8, 1e150])
    def test_scale(self, name, reg_covar, factor):
        model, warned = fit(X * factor, name, reg_covar=reg_covar, tol=1e-6)
        base, _ = fit(X, name, reg_covar=0.0, tol=1e-6)
        # reg_covar=1e-6 exceeds the smallest data's variance: taken relative to it, and said.
        assert warned == ({DegenerateDataWarning} if reg_covar and factor < 1e-4 else set())
        order, expected = np.argsort(model.means_ @ [1, 2, 0]), np.argsort(base.means_ @ [1, 2, 0])
        np.testing.assert_allclose(model.means_[order] / factor, base.means_[expected], rtol=1e-4, atol=1e-4)
        a, b = model.mixture_.covariances_dense[order] / factor / factor, base.mixture_.covariances_dense[expected]
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("shift", [1e7, 1e8])
    def test_offset(self, name, reg_covar, shift):
        exact = np.round(X * 2**20) / 2**20  # so that the shifted data hold the same digits
        base, _ = fit(exact, name, reg_covar=reg_covar)
        moved, warned = fit(exact + shift, name, reg_covar=reg_covar)
        assert warned == set()
        np.testing.assert_allclose(moved.covariances_, base.covariances_, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(moved.score_samples(exact + shift), base.score_samples(exact), atol=1e-6)

    def test_float32_with_an_offset(self, name, reg_covar):
        data = (X + 1e3).astype(np.float32)
        model, warned = fit(data, name, reg_covar=reg_covar)
        exact, _ = fit(data.astype(np.float64), name, reg_covar=reg_covar)
        assert warned == set()
        np.testing.assert_allclose(model.score_samples(data), exact.score_samples(data), atol=2e-3)

    def test_one_component_is_the_sample_mean_and_covariance(self, name, reg_covar):
        for data in (X, X[:, :1], X + 1e8):
            model, _ = fit(data, name, k=1, reg_covar=reg_covar)
            d = data.shape[1]
            np.testing.assert_allclose(model.means_[0], data.mean(axis=0), rtol=1e-12, atol=1e-12)
            expected = np.cov(data.T, bias=True).reshape(d, d) + reg_covar * np.eye(d)
            if name == "diag":
                expected = np.diag(np.diag(expected))
            if name == "spherical":
                expected = np.diag(expected).mean() * np.eye(d)
            np.testing.assert_allclose(model.mixture_.covariances_dense[0], expected, rtol=1e-7, atol=1e-9)

    def test_weights_of_any_size(self, name, reg_covar):
        base, _ = fit(X, name, reg_covar=reg_covar)
        for size in (1e-300, 1e300):
            model, _ = fit(X, name, weight=np.full(300, size), reg_covar=reg_covar)
            np.testing.assert_allclose(model.means_, base.means_, rtol=1e-9, atol=1e-9)
        heavy = np.ones(300)
        heavy[7] = 1e15
        model, _ = fit(X, name, weight=heavy, reg_covar=reg_covar)
        assert model.weights_.max() > 1 - 1e-10


@pytest.mark.parametrize("name", TYPES)
def test_rows_without_reach(name):
    model, _ = fit(X, name)
    far = np.array([[1e200, 0.0, 0.0], [-1e200, 1e200, 1e200], [1e160, -1e160, 3.0], [1e100, 1e100, -1e100]])
    proba = model.predict_proba(far)
    assert np.isfinite(proba).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1.0)
    np.testing.assert_array_equal(model.predict(far), proba.argmax(axis=1))
    assert not np.isnan(model.score_samples(far)).any()


@pytest.mark.parametrize(
    ("data", "k", "words"),
    [
        (X[:2], 3, ["n_samples >= n_components", "n_components = 3", "n_samples = 2", "Use fewer components"]),
        (X[:1], 1, ["1 sample", "minimum of 2", "add rows"]),
        (X[:0], 1, ["0 sample"]),
        (X[:, :0], 1, ["0 feature"]),
        (X[0], 1, ["Reshape your data"]),
        (X * 1e200, 3, ["too large", "Multiply X"]),
        (X * 1e-200, 3, ["too close together", "Multiply X"]),
    ],
)
def test_refused(data, k, words):
    for name in TYPES:
        with pytest.raises(InvalidDataError) as caught:
            GaussianMixture(k, covariance_type=name).fit(data)
        assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("method", ["fit", "fit_predict", "predict", "predict_proba", "score_samples", "score", "bic"])
def test_values_that_are_not_finite(value, method):
    bad = X.copy()
    bad[123, 1] = value
    model = GaussianMixture(3, random_state=0).fit(X)
    for data, column in ((bad, "column 1"), (pd.DataFrame(bad, columns=["a", "b", "c"]), "column 'b'")):
        if column != "column 1":
            model.fit(pd.DataFrame(X, columns=["a", "b", "c"]))
        with pytest.raises(NonFiniteDataError, match="X must hold finite numbers only") as caught:
            getattr(model, method)(data)
        assert "row 123, " + column in str(caught.value)
        assert (caught.value.row, caught.value.column) == (123, 1)


def test_a_bad_value_deep_in_large_data_is_found_by_the_pass():
    big = np.random.default_rng(0).normal(size=(400_000, 2))
    big[399_999, 1] = np.nan
    for init_params in ("kmeans", np.arange(400_000) % 2):
        for data in (big, np.asfortranarray(big)):
            with pytest.raises(NonFiniteDataError, match="row 399999, column 1 is NaN"):
                GaussianMixture(2, random_state=0, init_params=init_params).fit(data)


def test_constant_and_collinear_columns_are_named():
    frame = pd.DataFrame(X, columns=["length", "width", "depth"])
    with pytest.warns(DegenerateDataWarning, match="constant features: column 'width'"):
        GaussianMixture(2, random_state=0).fit(frame.assign(width=1.5))
    collinear = frame.assign(depth=frame["length"] * 3.0)
    with pytest.warns(DegenerateComponentWarning, match=r"columns 'length', 'depth'.*collinear") as caught:
        GaussianMixture(2, random_state=0).fit(collinear)
    assert "'width'" not in str(caught[0].message)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("name", TYPES)
def test_what_makes_a_component_flat_is_told_from_what_does_not(name):
    small = X * [1.0, 1e-4, 1.0]
    few = np.repeat(X[:6], 50, axis=0)
    for data, k, words in (
        (small, 3, r"\(column 1\).*no larger there than reg_covar=1e-06\. Rescale"),
        (few, 6, "too few distinct rows.*Use fewer components"),
        (few.astype(np.float32), 6, "too few distinct rows.*Use fewer components"),
    ):
        if name == "spherical" and data is small:
            continue  # its one variance is that of the other features
        with pytest.warns(DegenerateComponentWarning) as caught:
            GaussianMixture(k, covariance_type=name, random_state=0).fit(data)
        assert re.search(words, str(caught[0].message)), caught[0].message
        assert "collinear" not in str(caught[0].message)


def test_a_weight_of_zero_is_a_remedy_only_where_there_are_weights():
    bad = np.full((2, 3), np.nan)
    model = GaussianMixture(2, random_state=0).fit(X)
    for call in (model.fit, model.score, model.bic):
        with pytest.raises(NonFiniteDataError, match="sample_weight 0"):
            call(bad)
    for call in (model.predict, model.predict_proba, model.score_samples):
        with pytest.raises(NonFiniteDataError, match=r"Remove or impute such rows$"):
            call(bad)


def test_degenerate_raise_names_the_component():
    data = np.concatenate([X, np.full((30, 3), 30.0)])
    with pytest.raises(SingularCovarianceError, match="component") as caught:
        GaussianMixture(4, reg_covar=0.0, degenerate="raise", random_state=0, n_init=2).fit(data)
    assert caught.value.component in range(4)
    assert caught.value.family == "full"


def test_a_component_far_from_all_rows_dies_or_comes_back_but_does_not_break():
    for name in TYPES:
        means = np.concatenate([CENTERS[:2], [[1e5, 1e5, 1e5]]])
        model, warned = fit(X, name, means_init=means, max_iter=50)
        assert (DegenerateComponentWarning in warned) == bool(model.result_.empty or model.result_.collapsed)


HARD = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 1e-150, 1e150, -1e150, 1e8, 1e8 + 1.0, 1e-8]),
    st.floats(-1e6, 1e6, allow_nan=False),
)


def complaint(*args, **kwargs):
    """The message of an error of ours, or None for a sound model; any other exception passes."""
    try:
        fit(*args, **kwargs)
    except FastgmmError as error:
        return str(error)
    return None


@given(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 12), st.integers(1, 4)), elements=HARD),
    st.integers(1, 4),
    st.sampled_from(TYPES),
    st.sampled_from([1e-6, 0.0]),
    st.sampled_from(["kmeans", "k-means++", "random", "random_from_data"]),
)
def test_right_or_loud(data, k, name, reg_covar, init_params):
    """Finite input never gives anything but a sound model or an error of ours."""
    message = complaint(data, name, k=k, reg_covar=reg_covar, init_params=init_params)
    assert message is None or len(message) > 20


@given(
    hnp.arrays(np.float64, 12, elements=st.one_of(st.just(0.0), st.floats(0.0, 1e300))),
    st.sampled_from(TYPES),
)
def test_right_or_loud_with_weights(weight, name):
    message = complaint(X[::25], name, k=2, weight=weight)
    assert message is None or len(message) > 20


HARD32 = st.one_of(
    # Python's floats of float32's values: what is drawn must not change when it is stored.
    st.sampled_from(np.float32([0.0, 1.0, -1.0, 1e-30, 1e30, -1e30, 1e8, 1e-8, 3e38, 1e-45]).tolist()),
    st.floats(-1e6, 1e6, width=32),
)


@example(
    np.array([[0.0, 781696.75], [1e-8, 1e8], [0.0, 0.0], [0.0, 1e8], [3e38, 312972.9375]], dtype=np.float32),
    1,
    "tied",
    0.0,
    "random_from_data",
)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(1, 4)), elements=HARD32),
    st.integers(1, 4),
    st.sampled_from(TYPES),
    st.sampled_from([1e-6, 0.0]),
    st.sampled_from(["kmeans", "k-means++", "random", "random_from_data"]),
)
def test_right_or_loud_in_float32(data, k, name, reg_covar, init_params):
    message = complaint(data, name, k=k, reg_covar=reg_covar, init_params=init_params)
    assert message is None or len(message) > 20


def test_everything_is_exported():
    assert {"DegenerateComponentWarning", "DegenerateDataWarning"} <= set(fastgmm.__all__)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("max_iter", [2, 3, 4, 7])
def test_a_collapsed_component_stays_reported(dtype, max_iter):
    """The rounding of float32 must not make copies of one row look like a cluster in every other iteration."""
    rows = np.random.default_rng(0).normal(size=(300, 2)) + 50.0
    data = np.concatenate([rows, np.tile([[70.3, 20.7]], (60, 1))]).astype(dtype)
    model = GaussianMixture(2, covariance_type="spherical", random_state=0, reg_covar=0.0, tol=0.0, max_iter=max_iter)
    with pytest.warns(UserWarning, match="collapsed|converge"):
        model.fit(data)
    assert model.result_.collapsed == (int(np.argmin(model.mixture_.covariances)),)
    assert model.mixture_.covariances.min() > 1e-6 * data.var(axis=0).min() * 0.5


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("size", [1e9, 1e12])
def test_an_outlier_costs_float32_rows_nothing_that_float64_rows_keep(name, size):
    """It moves the mean of the data so far that float32 could not tell the other rows apart about that mean."""
    data = np.concatenate([X, np.full((1, 3), size)])
    options = {"k": 4, "tol": 1e-5, "max_iter": 200}
    (single, _), (double, _) = fit(data.astype(np.float32), name, **options), fit(data, name, **options)
    np.testing.assert_allclose(np.sort(single.weights_), np.sort(double.weights_), atol=1e-4)
    np.testing.assert_array_equal(single.predict(data.astype(np.float32)), single.predict(data))
    found = single.score_samples(data.astype(np.float32))
    np.testing.assert_allclose(found[:-1], single.score_samples(data.astype(np.float32).astype(float))[:-1], atol=2e-3)


@pytest.mark.parametrize("factor", [1.0, 30.0])
def test_collinear_columns_are_held_up_alike_in_both_precisions(factor):
    """The pooled scatter is a difference: in float32 its noise would exceed reg_covar."""
    data = X * factor
    data[:, 2] = 2.0 * data[:, 0] - data[:, 1]
    for dtype in (np.float32, np.float64):
        model, warned = fit(data.astype(dtype), "tied")
        assert warned == {DegenerateComponentWarning}
        assert model.result_.collapsed == ()
        assert np.linalg.eigvalsh(model.mixture_.covariances)[0] == pytest.approx(1e-6, rel=0.05)


def test_collinear_float32_rows_without_reg_covar_are_told_of_every_component():
    """Moments summed in float32 give a flat direction a variance that is noise, of either sign and as good as any."""
    data = X.copy()
    data[:, 2] = 2.0 * X[:, 0] - X[:, 1]
    for dtype in (np.float32, np.float64):
        model, warned = fit(data.astype(dtype), "full", reg_covar=0.0)
        assert DegenerateComponentWarning in warned
        assert model.result_.collapsed == (0, 1, 2)
        assert np.linalg.eigvalsh(model.mixture_.covariances)[:, 0].min() > 1e-6
    with pytest.raises(SingularCovarianceError):
        GaussianMixture(3, reg_covar=0.0, degenerate="raise", random_state=0).fit(data.astype(np.float32))


@pytest.mark.parametrize("reg_scale", ["absolute", "relative"])
@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_flat_components_are_those_of_small_eigenvalues(covariance_type, reg_scale, monkeypatch):
    """Whichever way is quick: a factorisation in the place of eigenvalues, and power iteration for their direction."""
    rng = np.random.default_rng(3)
    x = np.concatenate([rng.normal(c, 1.0, (60, 5)) for c in (0.0, 20.0, 40.0)])
    x[60:120, 4] = x[60:120, 0] + x[60:120, 1]  # the second component is flat, unless covariances are shared
    x[120:, 2] = 7.0  # and the third
    found = []
    for many in (128, 2):
        monkeypatch.setattr(_report, "MANY_FEATURES", many)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = GaussianMixture(
                3,
                covariance_type=covariance_type,
                random_state=0,
                reg_scale=reg_scale,
                init_params=np.repeat([0, 1, 2], 60),
            ).fit(x)
        found.append((model._flat, [str(w.message) for w in caught]))
    assert found[0] == found[1]
    unit = x.std(axis=0) if reg_scale == "relative" and covariance_type != "spherical" else np.ones(5)
    dense = model.mixture_.covariances_dense / unit / unit[:, None]
    flat = tuple(np.flatnonzero(np.linalg.eigvalsh(dense)[:, 0] <= 2e-6 * (1.0 + 1e-9)))
    assert model._flat == flat == {"full": (1, 2), "diag": (2,)}.get(covariance_type, ())


def test_tied_rows_near_the_end_of_float64_leak_no_warning_of_numpys():
    """The total scatter is representable here; a hundred times it is not."""
    x = np.array([[4.278e149, -5.708e149], [1.2654e151, 8.3915e150], [6.617e149, -1.434e149]])
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.simplefilter("ignore", fastgmm.FastgmmWarning)
        model = GaussianMixture(1, covariance_type="tied", max_iter=1, random_state=0)
        model.fit(x, sample_weight=[13903.0, 89003.0, 1.0])
    assert np.isfinite(model.covariances_).all()
