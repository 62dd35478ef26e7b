"""What becomes of components that empty or collapse, and regularisation relative to the data's scale."""

import warnings

import numpy as np
import pytest

from fastgmm import DegenerateComponentWarning, GaussianMixture, covariance, load, save, select_model
from fastgmm.constants import MONOTONE_RTOL, MONOTONE_RTOL_FLOAT32, RESEEDS_PER_COMPONENT
from fastgmm.data import as_rows
from fastgmm.em import FitStatus, fit_em
from fastgmm.errors import InvalidParameterError, SingularCovarianceError
from fastgmm.initialize import draw_sample, poorly_fitted
from fastgmm.params import Params
from tests import reference
from tests.doubles import NumpyPass

types = pytest.mark.parametrize("covariance_type", reference.TYPES)
apart = pytest.mark.parametrize("covariance_type", ["full", "diag", "spherical"])
RNG = np.random.default_rng(0)
CENTERS = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
X = np.concatenate([RNG.normal(c, 1.0, (120, 2)) for c in CENTERS])
COPIES = np.concatenate([X, np.full((20, 2), 30.0)])


def fit(data=X, k=None, means=None, **options):
    means = None if means is None else np.asarray(means, dtype=float)
    k = len(means) if k is None else k
    options = {"means_init": means, "random_state": 0, "tol": 1e-6, "max_iter": 300, "reg_covar": 0.0} | options
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = GaussianMixture(k, **options).fit(data)
    return model, [str(w.message) for w in caught if issubclass(w.category, DegenerateComponentWarning)]


def check(model, data):
    """A sound mixture whose numbers belong together."""
    result = model.result_
    k, d = model.means_.shape
    assert model.weights_.shape == (k,)
    assert model.covariances_.shape == covariance.FAMILIES[model.covariance_type].shape(k, d)
    assert model.weights_.sum() == pytest.approx(1.0)
    assert np.isfinite(model.score_samples(data)).all()
    assert result.lower_bound == pytest.approx(model.score(data), rel=1e-9)
    assert set(model.predict(data)) <= set(range(k))
    assert len(result.dropped) == model.n_components - k
    for event in result.events:
        assert event.component is None or 0 <= event.component < model.n_components
        assert "decrease" not in event.kind
    # Without an event in an iteration, its log-likelihood does not fall.
    trace = np.array([result.initial_log_likelihood, *(r.log_likelihood for r in result.history)])
    rounding = MONOTONE_RTOL_FLOAT32 if data.dtype == np.float32 else MONOTONE_RTOL
    falls = np.flatnonzero(np.diff(trace) < -rounding * (np.abs(trace[1:]) + len(data))) + 1
    assert set(falls) <= {event.iteration for event in result.events}


@types
def test_an_empty_component_is_started_again(covariance_type):
    """Two components are where the rows are, the third one is far from all; two clusters share a component."""
    far = [CENTERS[0], [5.0, 5.0], [1e6, 1e6]]
    floor, said = fit(means=far, covariance_type=covariance_type)
    assert floor.result_.empty == (2,)
    model, said = fit(means=far, covariance_type=covariance_type, degenerate="reseed")
    check(model, X)
    assert [e.kind for e in model.result_.events] == ["reseeded"]
    assert model.result_.events[0].component == 2
    assert model.result_.reseeded == (2,)
    assert model.result_.empty == model.result_.collapsed == model.result_.dropped == ()
    assert model.lower_bound_ > floor.lower_bound_
    np.testing.assert_allclose(np.sort(model.weights_), np.full(3, 1 / 3), atol=0.01)
    assert len(said) == 1
    assert "components 2 " in said[0]
    assert "fewer components" in said[0]


@types
def test_an_empty_component_is_dropped(covariance_type):
    far = [[1e6, 1e6], *CENTERS]
    model, said = fit(means=far, covariance_type=covariance_type, degenerate="drop")
    check(model, X)
    assert [(e.kind, e.component) for e in model.result_.events] == [("dropped", 0)]
    assert model.result_.dropped == (0,)
    assert model.means_.shape == (3, 2)
    assert model.n_components == 4
    np.testing.assert_allclose(model.means_, CENTERS, atol=0.3)
    assert len(said) == 1
    assert "the fitted mixture has 3 components" in said[0]
    expected, _ = fit(means=CENTERS, covariance_type=covariance_type)
    assert model.lower_bound_ == pytest.approx(expected.lower_bound_, abs=1e-4)


@apart
def test_a_collapsed_component_is_dropped(covariance_type):
    model, said = fit(COPIES, means=[*CENTERS, [30.0, 30.0]], covariance_type=covariance_type, degenerate="drop")
    check(model, COPIES)
    assert model.result_.dropped == (3,)
    assert model.result_.collapsed == ()
    assert len(model.weights_) == 3
    assert "dropped" in said[0]


@apart
def test_a_collapsed_component_is_started_again_and_held_by_the_floor_at_last(covariance_type):
    """The copies attract one component after the other."""
    model, _ = fit(COPIES, means=[*CENTERS, [30.0, 30.0]], covariance_type=covariance_type, degenerate="reseed")
    check(model, COPIES)
    kinds = [(e.kind, e.component) for e in model.result_.events]
    assert ("reseeded", 3) in kinds
    for k in range(4):
        assert kinds.count(("reseeded", k)) <= RESEEDS_PER_COMPONENT
    assert model.result_.status is FitStatus.CONVERGED


@types
def test_every_component_degenerate_at_once(covariance_type):
    """All rows equal: nothing to start from elsewhere, and the last component is not dropped."""
    data = np.full((20, 2), 3.0)
    for degenerate in ("floor", "reseed", "drop"):
        model, said = fit(data, k=3, covariance_type=covariance_type, degenerate=degenerate)
        check(model, data)
        assert said
        np.testing.assert_allclose(model.weights_ @ model.means_, [3.0, 3.0])
    if covariance_type != "tied":
        assert model.weights_.shape == (1,)
        assert model.result_.collapsed == (0,)
        assert len(model.result_.dropped) == 2


def test_a_tied_covariance_collapses_as_a_whole_so_it_gets_the_floor():
    data = np.repeat([[0.0, 0.0], [5.0, 1.0], [9.0, 4.0]], 20, axis=0)
    for degenerate in ("floor", "reseed", "drop"):
        model, _ = fit(data, means=data[[0, 20, 40]], covariance_type="tied", degenerate=degenerate)
        check(model, data)
        assert model.result_.collapsed == (0, 1, 2)
        assert model.weights_.shape == (3,)


@apart
def test_raise(covariance_type):
    with pytest.raises(SingularCovarianceError, match="fewer components"):
        fit(COPIES, means=[*CENTERS, [30.0, 30.0]], covariance_type=covariance_type, degenerate="raise")


@types
@pytest.mark.parametrize("degenerate", ["reseed", "drop"])
def test_sound_fits_do_not_notice_the_policy(covariance_type, degenerate):
    expected, _ = fit(means=CENTERS, covariance_type=covariance_type)
    model, said = fit(means=CENTERS, covariance_type=covariance_type, degenerate=degenerate)
    np.testing.assert_array_equal(model.means_, expected.means_)
    np.testing.assert_array_equal(model.covariances_, expected.covariances_)
    assert not said


@pytest.mark.parametrize("degenerate", ["floor", "reseed", "drop"])
@pytest.mark.parametrize("max_iter", [0, 1, 2])
def test_short_fits(degenerate, max_iter):
    """The last iteration does not start what nobody would fit."""
    model, _ = fit(COPIES, means=[*CENTERS, [30.0, 30.0]], degenerate=degenerate, max_iter=max_iter)
    check(model, COPIES)
    assert all(e.iteration < max_iter for e in model.result_.events if e.kind == "reseeded")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weighted", [False, True])
def test_reseeding_is_deterministic(dtype, weighted):
    weight = RNG.uniform(0.5, 2.0, len(COPIES)) if weighted else None
    fits = []
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = GaussianMixture(6, reg_covar=0.0, degenerate="reseed", random_state=3, max_iter=40)
            fits.append(model.fit(COPIES.astype(dtype), sample_weight=weight))
    assert fits[0].result_.events
    assert fits[0].result_.events == fits[1].result_.events
    np.testing.assert_array_equal(fits[0].means_, fits[1].means_)


def test_places_are_where_the_data_are_poorly_fitted():
    """A fifth of the rows is far from the only component; new components go there, and not to the one outlier."""
    data = np.concatenate([RNG.normal(0.0, 1.0, (400, 2)), RNG.normal(20.0, 1.0, (100, 2)), [[900.0, 900.0]]])
    rng = np.random.default_rng(1)
    before = rng.bit_generator.state
    places = poorly_fitted(draw_sample(as_rows(data), 1, rng), rng)
    params = Params(np.ones(1), np.zeros((1, 2)), np.ones(1), "spherical")
    at = np.concatenate([places(params, 1, attempt) for attempt in range(20)])
    assert (at > 10.0).all()
    assert (at < 100.0).all(axis=1).sum() >= 15
    assert len(np.unique(at, axis=0)) > 3
    assert rng.bit_generator.state == before
    np.testing.assert_array_equal(places(params, 1, 7), places(params, 1, 7))
    several = places(params, 3, 0)
    assert len(np.unique(several, axis=0)) == 3
    assert all(np.isclose(data, place, rtol=1e-12).all(axis=1).any() for place in several)


def test_reseed_needs_places():
    start = Params(np.ones(1), np.zeros((1, 2)), np.ones(1), "spherical")
    with pytest.raises(InvalidParameterError, match="needs places"):
        fit_em(NumpyPass(X, "spherical"), start, reference_variance=1.0, degenerate="reseed")


def test_dropped_models_are_whole(tmp_path):
    """Fewer components than n_components: files, warm starts, criteria and partial_fit take it."""
    model, _ = fit(means=[[1e6, 1e6], *CENTERS], degenerate="drop", warm_start=True, max_iter=20)
    save(model, tmp_path / "m.npz")
    loaded = load(tmp_path / "m.npz")
    assert loaded.result_.dropped == (0,)
    assert loaded.result_.events == model.result_.events
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert model.fit(X).means_.shape == (3, 2)
        assert np.isfinite(model.bic(X))
        assert model.mixture_.n_parameters == 17
        theirs = model.to_sklearn()
        assert theirs.n_components == 3
        np.testing.assert_allclose(theirs.score_samples(X), model.score_samples(X), rtol=1e-9)
        assert model.partial_fit(X[:100]).means_.shape == (3, 2)


def test_a_search_takes_the_policies():
    result = select_model(COPIES, [4, 5], ["full"], random_state=0, reg_covar=0.0, degenerate="drop")
    assert all(not c.error and np.isfinite(c.bic) for c in result.candidates)


def test_files_keep_reseeds_and_max_time(tmp_path):
    model, _ = fit(means=[CENTERS[0], [5.0, 5.0], [1e6, 1e6]], degenerate="reseed", reg_scale="relative")
    save(model, tmp_path / "m.npz")
    loaded = load(tmp_path / "m.npz")
    assert loaded.result_.reseeded == (2,)
    assert loaded.reg_scale == "relative"
    assert loaded.degenerate == "reseed"
    with pytest.warns(UserWarning, match="max_time"):
        model = GaussianMixture(2, random_state=0).fit(X, max_time=0.0)
    save(model, tmp_path / "m.npz")
    assert load(tmp_path / "m.npz").result_.status is FitStatus.MAX_TIME


# -- regularisation ----------------------------------------------------------------------------------------------------


def relative(data, covariance_type, **options):
    options = {"reg_covar": 1e-2, "reg_scale": "relative", "max_iter": 15, "tol": 0.0, "random_state": 0} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return GaussianMixture(3, covariance_type=covariance_type, **options).fit(data)


@types
@pytest.mark.parametrize("power", [-300, -20, 13, 300])
def test_relative_regularisation_scales_with_the_data(covariance_type, power):
    here, scale = relative(X, covariance_type), 2.0**power
    there = relative(X * scale, covariance_type)
    np.testing.assert_allclose(there.means_ / scale, here.means_, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(there.covariances_ / scale / scale, here.covariances_, rtol=1e-11, atol=1e-12)
    assert there.lower_bound_ == pytest.approx(here.lower_bound_ - 2 * power * np.log(2.0), rel=1e-12)
    assert there.result_.events == ()


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_relative_regularisation_scales_with_each_feature(covariance_type):
    labels = np.repeat([0, 1, 2], 120)
    scale = np.array([2.0**-60, 2.0**40])
    here = relative(X, covariance_type, init_params=labels)
    there = relative(X * scale, covariance_type, init_params=labels)
    square = np.multiply.outer(scale, scale) if covariance_type == "full" else scale * scale
    np.testing.assert_allclose(there.means_ / scale, here.means_, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(there.covariances_ / square, here.covariances_, rtol=1e-11, atol=1e-12)


@types
def test_what_is_added(covariance_type):
    """K = 1: the sample covariance plus the given fraction of the variances."""
    data = X * [1.0, 1e3]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = GaussianMixture(1, covariance_type=covariance_type, reg_covar=0.25, reg_scale="relative").fit(data)
    whole, variance = np.cov(data.T, bias=True), data.var(axis=0)
    expected = {
        "full": [whole + np.diag(0.25 * variance)],
        "tied": whole + np.diag(0.25 * variance),
        "diag": [1.25 * variance],
        "spherical": [1.25 * variance.mean()],
    }[covariance_type]
    np.testing.assert_allclose(model.covariances_, expected, rtol=1e-11)


@types
def test_absolute_is_the_default_and_scikit_learns(covariance_type):
    assert GaussianMixture().reg_scale == "absolute"
    model = GaussianMixture(1, covariance_type=covariance_type, reg_covar=0.5).fit(X)
    free = GaussianMixture(1, covariance_type=covariance_type, reg_covar=0.0).fit(X)
    family = covariance.FAMILIES[covariance_type]
    added = family.variances(model.covariances_, 1, 2) - family.variances(free.covariances_, 1, 2)
    np.testing.assert_allclose(added, 0.5, rtol=1e-12)


def test_relative_regularisation_of_flat_data():
    """What it holds up is named in units of the features: a narrow feature is none, a collinear one is."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GaussianMixture(2, random_state=0, reg_scale="relative").fit(X * [1.0, 1e-9])
    collinear = np.column_stack([X, 1e-6 * X[:, 0]])
    with pytest.warns(DegenerateComponentWarning, match=r"columns 0, 2.*collinear"):
        GaussianMixture(2, random_state=0, reg_scale="relative").fit(collinear)
    with pytest.warns(UserWarning, match="constant features: column 2"):
        model = GaussianMixture(2, random_state=0, reg_scale="relative").fit(np.column_stack([X, np.full(len(X), 7.0)]))
    assert np.isfinite(model.lower_bound_)


def test_reg_scale_is_checked():
    with pytest.raises(InvalidParameterError, match="reg_scale must be one of 'absolute', 'relative'"):
        GaussianMixture(reg_scale="both").fit(X)
