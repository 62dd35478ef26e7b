"""scikit-learn's own checks, its meta-estimators, its signatures and its numbers."""

import inspect
import os
import pickle
import subprocess
import sys
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn.exceptions
import sklearn.mixture
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator
from sklearn.utils.validation import check_is_fitted

import fastgmm
from fastgmm import GaussianMixture

KEEPS_FLOAT32 = tuple(map(int, sklearn.__version__.split(".")[:2])) >= (1, 7)
TYPES = ("full", "tied", "diag", "spherical")
CENTERS = np.array([[0.0, 0.0, 0.0], [6.0, 0.0, 1.0], [0.0, 5.0, -3.0]])


def overlapping(n=400, seed=0):
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(c, 1.0 + i, (n, 3)) for i, c in enumerate(CENTERS)])


X = overlapping()

# The checks fit data with fewer rows than features, and scikit-learn minds that the class does not inherit.
IGNORED = [
    "ignore::fastgmm.errors.DegenerateDataWarning",
    "ignore::fastgmm.errors.DegenerateComponentWarning",
    "ignore:.*does not inherit from.*:UserWarning",
    "ignore::sklearn.exceptions.SkipTestWarning",
]
quiet = [pytest.mark.filterwarnings(text) for text in IGNORED]


def all_checks():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in TYPES:
            model = GaussianMixture(covariance_type=name)
            yield from estimator_checks_generator(model, legacy=True)


class TestChecks:
    pytestmark = quiet

    # parametrize_with_checks itself cannot be used with filterwarnings=error: it warns while tests are collected.
    @pytest.mark.parametrize(
        ("estimator", "check"),
        list(all_checks()),
        ids=lambda x: getattr(x, "func", x).__name__ if callable(x) else repr(x),
    )
    def test_each(self, estimator, check):
        check(estimator)

    @pytest.mark.parametrize("arguments", [{}, {"init_params": "random"}, {"warm_start": True}])
    def test_check_estimator_has_nothing_to_excuse(self, arguments):
        results = check_estimator(GaussianMixture(**arguments), on_fail="raise")
        assert len(results) > 40
        assert {r["status"] for r in results} <= {"passed", "skipped"}
        assert [r["check_name"] for r in results if r["status"] == "skipped"] in ([], ["check_array_api_input"])

    def test_array_api_check(self):
        code = (
            "from sklearn.utils.estimator_checks import check_estimator\n"
            "from fastgmm import GaussianMixture\n"
            "r = check_estimator(GaussianMixture(), on_fail='raise')\n"
            "print({x['status'] for x in r})"
        )
        env = {**os.environ, "SCIPY_ARRAY_API": "1", "PYTHONWARNINGS": "ignore"}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "{'passed'}"


def test_constructor_is_scikit_learns_with_more_at_the_end():
    theirs = inspect.signature(sklearn.mixture.GaussianMixture.__init__).parameters
    ours = inspect.signature(GaussianMixture.__init__).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    for name, parameter in theirs.items():
        assert ours[name].kind == parameter.kind
        assert ours[name].default == parameter.default
    more = ["degenerate", "reg_scale", "learning_decay", "learning_offset", "first_passes"]
    assert list(ours)[len(theirs) :] == more


@pytest.mark.parametrize(
    "method", ["fit", "fit_predict", "predict", "predict_proba", "score", "score_samples", "sample", "aic", "bic"]
)
def test_methods_take_what_scikit_learns_take(method):
    theirs = inspect.signature(getattr(sklearn.mixture.GaussianMixture, method)).parameters
    ours = inspect.signature(getattr(GaussianMixture, method)).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    for name, parameter in theirs.items():
        assert ours[name].default == parameter.default
    assert all(p.default is not inspect.Parameter.empty for p in list(ours.values())[len(theirs) :])


def test_public_names_are_a_superset():
    fitted = sklearn.mixture.GaussianMixture(2, random_state=0).fit(X)
    mine = GaussianMixture(2, random_state=0).fit(X)
    # set_..._request is there for methods with metadata only, as in scikit-learn.
    missing = {name for name in dir(fitted) if not name.startswith("_")} - set(dir(mine))
    assert missing == set()


def start_of(name, k=3, dtype=np.float64):
    """A start that is no fixed point, for both libraries."""
    rng = np.random.default_rng(5)
    weights = np.array([0.2, 0.5, 0.3])
    means = CENTERS + rng.normal(0.0, 1.0, CENTERS.shape)
    precision = {
        "full": np.tile(np.eye(3), (k, 1, 1)),
        "tied": np.eye(3),
        "diag": np.ones((k, 3)),
        "spherical": np.ones(k),
    }
    return {
        "weights_init": weights.astype(dtype),
        "means_init": means.astype(dtype),
        "precisions_init": (0.5 * precision[name]).astype(dtype),
    }


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", TYPES)
def test_twenty_iterations_give_scikit_learns_numbers(name, dtype):
    data = X.astype(dtype)
    settings = dict(n_components=3, covariance_type=name, max_iter=20, tol=0.0, **start_of(name, dtype=dtype))
    theirs = sklearn.mixture.GaussianMixture(**settings).fit(data)
    ours = GaussianMixture(**settings).fit(data)
    rtol = 1e-9 if dtype == np.float64 else 1e-4
    assert ours.n_iter_ == theirs.n_iter_ == 20
    for attribute in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        a, b = getattr(ours, attribute), getattr(theirs, attribute)
        assert a.dtype == dtype
        assert b.dtype == dtype or not KEEPS_FLOAT32
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())
    np.testing.assert_allclose(ours.score_samples(data), theirs.score_samples(data), rtol=rtol * 10)
    assert ours.score(data) == pytest.approx(theirs.score(data), rel=rtol)
    assert ours.bic(data) == pytest.approx(theirs.bic(data), rel=rtol)
    assert ours.aic(data) == pytest.approx(theirs.aic(data), rel=rtol)
    assert ours._n_parameters() == theirs._n_parameters()
    np.testing.assert_allclose(ours.predict_proba(data), theirs.predict_proba(data), atol=rtol * 100)
    np.testing.assert_array_equal(ours.predict(data), theirs.predict(data))
    if hasattr(theirs, "lower_bounds_"):  # since 1.9; theirs are of one iteration before
        np.testing.assert_allclose(ours.lower_bounds_[:-1], theirs.lower_bounds_[1:], rtol=rtol)
    assert ours.lower_bound_ == pytest.approx(theirs.score(data), rel=rtol)


@pytest.mark.parametrize("name", TYPES)
def test_it_stops_in_the_same_iteration(name):
    settings = dict(n_components=3, covariance_type=name, max_iter=500, tol=1e-4, **start_of(name))
    theirs = sklearn.mixture.GaussianMixture(**settings).fit(X)
    ours = GaussianMixture(**settings).fit(X)
    assert ours.n_iter_ == theirs.n_iter_
    assert ours.converged_
    np.testing.assert_allclose(ours.means_, theirs.means_, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", TYPES)
def test_there_and_back(name, dtype):
    data = pd.DataFrame(X.astype(dtype), columns=list("abc"))
    ours = GaussianMixture(3, covariance_type=name, random_state=0, degenerate="raise").fit(data)
    theirs = ours.to_sklearn()
    check_is_fitted(theirs)
    assert theirs.get_params()["covariance_type"] == name
    np.testing.assert_allclose(
        theirs.score_samples(data), ours.score_samples(data), rtol=1e-3 if dtype == np.float32 else 1e-9
    )
    back = GaussianMixture.from_sklearn(theirs)
    np.testing.assert_array_equal(back.predict(data), ours.predict(data))
    assert back.lower_bound_ == ours.lower_bound_
    assert list(back.feature_names_in_) == list("abc")
    assert back.means_.dtype == dtype
    for attribute in ("weights_", "means_", "covariances_"):
        np.testing.assert_allclose(getattr(back, attribute), getattr(ours, attribute), rtol=1e-6)


def test_from_sklearn_refuses_what_is_not_fitted():
    with pytest.raises(ValueError, match="fitted"):
        GaussianMixture.from_sklearn(sklearn.mixture.GaussianMixture())
    with pytest.raises(ValueError, match="fitted"):
        GaussianMixture.from_sklearn(StandardScaler().fit(X))
    with pytest.raises(ValueError, match="from_parameters"):
        GaussianMixture.from_sklearn(sklearn.mixture.BayesianGaussianMixture(random_state=0).fit(X))


def test_to_sklearn_with_arguments_that_are_ours_alone():
    model = GaussianMixture(
        2, init_params=np.arange(len(X)) % 2, covariance_type="VVI", random_state=np.random.default_rng(0)
    ).fit(X)
    theirs = model.to_sklearn()
    assert theirs.init_params == "kmeans"
    assert theirs.covariance_type == "diag"
    clone(theirs).fit(X)


def test_pipeline_and_names():
    frame = pd.DataFrame(X, columns=["length", "width", "depth"])
    scaler = StandardScaler().set_output(transform="pandas")
    pipeline = Pipeline([("scale", scaler), ("mixture", GaussianMixture(3, random_state=0))])
    labels = pipeline.fit_predict(frame)
    assert list(pipeline[-1].feature_names_in_) == ["length", "width", "depth"]
    np.testing.assert_array_equal(pipeline.predict(frame), labels)
    assert pipeline.predict_proba(frame).shape == (len(X), 3)
    pipeline.fit(frame, mixture__sample_weight=np.ones(len(X)))
    assert np.isfinite(pipeline.score(frame))


def test_grid_search_and_cross_validation():
    rng = np.random.default_rng(0)
    data = rng.permutation(X)
    search = GridSearchCV(
        GaussianMixture(random_state=0), {"n_components": [1, 3], "covariance_type": ["spherical", "full"]}, cv=3
    ).fit(data)
    assert search.best_params_["n_components"] == 3
    assert search.predict(data).shape == (len(X),)
    by_bic = GridSearchCV(
        GaussianMixture(random_state=0), {"n_components": [1, 3]}, scoring=lambda m, x, *_: -m.bic(x), cv=2
    ).fit(data)
    assert by_bic.best_params_ == {"n_components": 3}
    assert len(cross_val_score(GaussianMixture(2, random_state=0), data, cv=4)) == 4


def test_metadata_routing():
    weight = np.random.default_rng(0).integers(0, 3, len(X)).astype(float)
    with sklearn.config_context(enable_metadata_routing=True):
        model = GaussianMixture(2, random_state=0).set_fit_request(sample_weight=True)
        pipeline = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), model)
        pipeline.fit(X, sample_weight=weight)
        scaled = pipeline[0].transform(X)
        direct = GaussianMixture(2, random_state=0).fit(scaled, sample_weight=weight)
        np.testing.assert_array_equal(pipeline[-1].means_, direct.means_)

        search = GridSearchCV(clone(model).set_score_request(sample_weight=False), {"n_components": [1, 2]}, cv=2).fit(
            X, sample_weight=weight
        )
        assert search.best_estimator_.n_components in (1, 2)
        with pytest.raises(ValueError, match="sample_weight"):
            GridSearchCV(GaussianMixture(), {"n_components": [1]}, cv=2).fit(X, sample_weight=weight)


def test_weights_are_routed_through_cross_validation():
    weight = np.random.default_rng(1).integers(1, 4, len(X)).astype(float)
    with sklearn.config_context(enable_metadata_routing=True):
        model = GaussianMixture(2, random_state=0).set_fit_request(sample_weight=True)
        model.set_score_request(sample_weight=True)
        found = cross_validate(model, X, params={"sample_weight": weight}, cv=3, return_estimator=True)
    parts = np.array_split(np.arange(len(X)), 3)
    for test, fitted, score in zip(parts, found["estimator"], found["test_score"], strict=True):
        train = np.setdiff1d(np.arange(len(X)), test)
        direct = GaussianMixture(2, random_state=0).fit(X[train], sample_weight=weight[train])
        np.testing.assert_array_equal(fitted.means_, direct.means_)
        assert score == direct.score(X[test], sample_weight=weight[test])


def test_without_scikit_learn():
    """Every import of it fails; all works but what hands an object of theirs over."""
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import numpy as np, fastgmm, warnings\n"
        "x = np.random.default_rng(0).normal(size=(200, 2))\n"
        "m = fastgmm.GaussianMixture(2, random_state=0, max_iter=200).fit(x)\n"
        "m.predict(x); m.predict_proba(x); m.score(x); m.bic(x); m.sample(3); repr(m); m.get_params()\n"
        "try: fastgmm.GaussianMixture().predict(x)\n"
        "except fastgmm.NotFittedError: print('not fitted')\n"
        "for act in (m.to_sklearn, m.__sklearn_tags__):\n"
        "    try: act()\n"
        "    except ImportError as error: print('scikit-learn' in str(error) or 'sklearn' in str(error))\n"
    )
    env = {**os.environ, "PYTHONWARNINGS": "error"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.split("\n")[:-1] == ["not fitted", "True", "True"], done.stderr


def test_clone_keeps_arguments_and_drops_the_fit():
    model = GaussianMixture(
        3, means_init=CENTERS, init_params=lambda x, k, rng: rng.integers(0, k, len(x)), random_state=3
    ).fit(X)
    copy = clone(model)
    assert copy.get_params().keys() == model.get_params().keys()
    assert copy.random_state == 3
    with pytest.raises(sklearn.exceptions.NotFittedError):
        copy.predict(X)


def test_pickle_and_joblib(tmp_path):
    model = GaussianMixture(3, random_state=0).fit(X)
    joblib.dump(model, tmp_path / "m")
    for copy in (pickle.loads(pickle.dumps(model)), joblib.load(tmp_path / "m")):
        np.testing.assert_array_equal(copy.predict_proba(X), model.predict_proba(X))
        np.testing.assert_array_equal(copy.means_, model.means_)
        assert copy.result_.status is model.result_.status
        assert copy.lower_bounds_ == model.lower_bounds_


def test_errors_and_warnings_are_of_both_libraries():
    for error in (sklearn.exceptions.NotFittedError, fastgmm.NotFittedError, ValueError, AttributeError):
        with pytest.raises(error, match="not fitted yet"):
            GaussianMixture().predict(X)
    for warning in (sklearn.exceptions.ConvergenceWarning, fastgmm.ConvergenceWarning):
        with pytest.warns(warning, match="Best performing initialization did not converge"):
            GaussianMixture(3, max_iter=1, random_state=0).fit(X)


def test_scikit_learn_is_not_imported():
    code = (
        "import sys, warnings, numpy as np, fastgmm\n"
        "x = np.random.default_rng(0).normal(size=(100, 2))\n"
        "m = fastgmm.GaussianMixture(2, random_state=0).fit(x)\n"
        "m.predict(x); m.bic(x); m.sample(3); repr(m); m.get_params()\n"
        "try: fastgmm.GaussianMixture().predict(x)\n"
        "except fastgmm.NotFittedError as e: pass\n"
        "with warnings.catch_warnings(record=True) as w:\n"
        "    warnings.simplefilter('always')\n"
        "    fastgmm.GaussianMixture(2, max_iter=1, tol=0).fit(x)\n"
        "assert w[0].category is fastgmm.ConvergenceWarning, w[0]\n"
        "assert w[0].filename == '<string>', w[0].filename\n"
        "print(any(name.startswith('sklearn') for name in sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_feature_names_are_checked_as_scikit_learn_does():
    frame = pd.DataFrame(X, columns=list("abc"))
    model = GaussianMixture(random_state=0).fit(frame)
    with pytest.warns(UserWarning, match="X does not have valid feature names, but GaussianMixture was fitted"):
        model.predict(X)
    with pytest.raises(
        ValueError, match=r"unseen at fit time:\n- d\nFeature names seen at fit time, yet now missing:\n- c"
    ):
        model.predict(frame.rename(columns={"c": "d"}))
    with pytest.raises(ValueError, match="must be in the same order"):
        model.predict(frame[["b", "a", "c"]])
    model.fit(X)
    assert not hasattr(model, "feature_names_in_")
    with pytest.warns(UserWarning, match="X has feature names, but GaussianMixture was fitted without"):
        model.predict(frame)
