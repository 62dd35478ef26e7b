"""GaussianMixture beyond scikit-learn's contract: weights, callbacks, starts on record, reports, representations."""

import sys
import warnings

import numpy as np
import pandas as pd
import pytest

import fastgmm
from fastgmm import FitStatus, GaussianMixture, Mixture, Params
from fastgmm.estimators import _fit
from tests.reference import Parameters, e_step

TYPES = ("full", "tied", "diag", "spherical")


def clusters(n=100, seed=0, d=2):
    rng = np.random.default_rng(seed)
    centers = np.array([[0.0] * d, [9.0] + [0.0] * (d - 1), [0.0] * (d - 1) + [7.0]])
    return np.concatenate([rng.normal(c, 1.0, (n, d)) for c in centers])


X = clusters()


def test_lower_bound_belongs_to_the_parameters():
    for max_iter in (0, 1, 3, 100):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", fastgmm.ConvergenceWarning)
            model = GaussianMixture(3, max_iter=max_iter, random_state=0).fit(X)
        assert model.lower_bound_ == pytest.approx(model.score(X), rel=1e-12)
        assert len(model.lower_bounds_) == model.n_iter_ <= max_iter
        assert model.lower_bounds_ == sorted(model.lower_bounds_)
        if max_iter:
            assert model.lower_bounds_[-1] == model.lower_bound_


@pytest.mark.parametrize("name", TYPES)
def test_scores_are_those_of_the_oracle(name):
    model = GaussianMixture(3, covariance_type=name, random_state=0).fit(X)
    m = model.mixture_
    expected, r, *_ = e_step(X, Parameters(m.weights, m.means, m.covariances, name))
    np.testing.assert_allclose(model.score_samples(X), expected, rtol=1e-11)
    np.testing.assert_allclose(model.predict_proba(X), r, atol=1e-10)
    np.testing.assert_array_equal(model.predict(X), r.argmax(axis=1))
    assert model.score(X) == pytest.approx(expected.mean(), rel=1e-11)
    p, n = m.n_parameters, len(X)
    assert model.aic(X) == pytest.approx(-2 * expected.sum() + 2 * p, rel=1e-11)
    assert model.bic(X) == pytest.approx(-2 * expected.sum() + p * np.log(n), rel=1e-11)
    assert model.icl(X) == pytest.approx(model.bic(X) - 2 * np.log(r.max(axis=1)).sum(), rel=1e-9)


class TestWeights:
    weight = np.random.default_rng(3).integers(0, 4, len(X))
    repeated = np.repeat(X, weight, axis=0)

    @pytest.mark.parametrize("name", TYPES)
    def test_weight_is_repetition(self, name):
        a = GaussianMixture(3, covariance_type=name, random_state=0, tol=1e-8).fit(X, sample_weight=self.weight)
        b = GaussianMixture(3, covariance_type=name, random_state=0, tol=1e-8).fit(self.repeated)
        np.testing.assert_allclose(a.means_, b.means_, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(a.covariances_, b.covariances_, rtol=1e-6, atol=1e-6)
        assert a.score(X, sample_weight=self.weight) == pytest.approx(b.score(self.repeated), rel=1e-9)
        for criterion in ("aic", "bic", "icl"):
            ours = getattr(a, criterion)(X, sample_weight=self.weight)
            assert ours == pytest.approx(getattr(a, criterion)(self.repeated), rel=1e-11)

    def test_weight_zero_is_removal_to_the_last_bit(self):
        junk = X.copy()
        junk[self.weight == 0] = np.inf
        kept = self.weight > 0
        a = GaussianMixture(3, random_state=0).fit(junk, sample_weight=self.weight)
        b = GaussianMixture(3, random_state=0).fit(X[kept], sample_weight=self.weight[kept])
        np.testing.assert_array_equal(a.means_, b.means_)
        np.testing.assert_array_equal(a.covariances_, b.covariances_)

    def test_the_unit_of_weights_does_not_matter(self):
        base = GaussianMixture(3, random_state=0).fit(X, sample_weight=self.weight)
        for factor in (1e-300, 2.0**-40, 1e300):
            scaled = GaussianMixture(3, random_state=0).fit(X, sample_weight=self.weight * factor)
            np.testing.assert_allclose(scaled.means_, base.means_, rtol=1e-9, atol=1e-9)
            assert scaled.lower_bound_ == pytest.approx(base.lower_bound_, rel=1e-12)
            score = scaled.score(X, sample_weight=self.weight * factor)
            assert score == pytest.approx(base.lower_bound_, rel=1e-10)

    def test_fit_predict_labels_every_row(self):
        labels = GaussianMixture(3, random_state=0).fit_predict(X, sample_weight=self.weight)
        model = GaussianMixture(3, random_state=0).fit(X, sample_weight=self.weight)
        np.testing.assert_array_equal(labels, model.predict(X))

    def test_weights_are_not_changed(self):
        weight = self.weight.astype(float)
        copy = weight.copy()
        GaussianMixture(3, random_state=0).fit(X, sample_weight=weight)
        np.testing.assert_array_equal(weight, copy)

    @pytest.mark.parametrize(
        ("weight", "words"),
        [
            (-np.ones(300), "negative"),
            (np.full(300, np.nan), "NaN"),
            (np.zeros(300), "zero"),
            (np.ones(3), r"\(300,\)"),
        ],
    )
    def test_bad_weights(self, weight, words):
        model = GaussianMixture(2, random_state=0).fit(X)
        for method in (model.fit, model.fit_predict, model.score, model.bic, model.aic, model.icl):
            with pytest.raises(ValueError, match=words) as caught:
                method(X, sample_weight=weight)
            assert "weight" in str(caught.value)

    def test_too_few_rows_with_weight(self):
        weight = np.zeros(300)
        weight[:2] = 1.0
        with pytest.raises(ValueError, match=r"n_samples = 2 \(rows of sample_weight 0 do not count\)"):
            GaussianMixture(3).fit(X, sample_weight=weight)

    def test_the_score_of_huge_weights_is_finite(self):
        model = GaussianMixture(2, random_state=0).fit(X)
        assert model.score(X, sample_weight=np.full(300, 1.7e308)) == pytest.approx(model.score(X), rel=1e-12)


class TestStarts:
    def test_the_best_of_several_is_kept_and_all_are_recorded(self):
        model = GaussianMixture(4, n_init=8, init_params="random_from_data", random_state=0, tol=1e-4).fit(X)
        assert len(model.starts_) == 8
        bounds = [start.lower_bound for start in model.starts_]
        assert model.lower_bound_ == max(bounds) > min(bounds)
        for start in model.starts_:
            assert start.n_iter == len(start.history)
            assert isinstance(start.status, FitStatus)
            assert all(record.seconds >= 0.0 for record in start.history)
        best = model.starts_[int(np.argmax(bounds))]
        assert [r.log_likelihood / len(X) for r in best.history] == model.lower_bounds_
        assert model.result_.converged == model.converged_

    def test_a_start_without_chance_is_made_once(self):
        assert len(GaussianMixture(3, n_init=5, means_init=X[[0, 100, 200]]).fit(X).starts_) == 1
        assert len(GaussianMixture(3, n_init=5, init_params=np.arange(300) // 100).fit(X).starts_) == 1

    def test_seeds(self):
        a, b, c = (
            GaussianMixture(4, init_params="random_from_data", random_state=s, tol=1e-9, max_iter=500).fit(X)
            for s in (1, 1, 2)
        )
        np.testing.assert_array_equal(a.means_, b.means_)
        assert not np.array_equal(a.means_, c.means_)
        for state in (np.random.RandomState(0), np.random.default_rng(0), np.random.SeedSequence(0), None):
            GaussianMixture(2, random_state=state).fit(X)

    def test_warm_start_goes_on(self):
        model = GaussianMixture(3, warm_start=True, max_iter=2, tol=0.0, init_params="random", random_state=0)
        with pytest.warns(fastgmm.ConvergenceWarning):
            model.fit(X)
        first = model.lower_bound_
        with pytest.warns(fastgmm.ConvergenceWarning):
            model.fit(X)
        assert model.lower_bounds_[0] > first
        with pytest.raises(ValueError, match="warm_start=True needs"):
            model.set_params(n_components=2).fit(X)

    def test_max_iter_zero_returns_the_start(self):
        params = {
            "weights_init": [0.2, 0.3, 0.5],
            "means_init": X[[0, 100, 200]],
            "precisions_init": np.tile(np.eye(2), (3, 1, 1)),
        }
        model = GaussianMixture(3, max_iter=0, **params).fit(X)
        np.testing.assert_array_equal(model.means_, X[[0, 100, 200]])
        np.testing.assert_allclose(model.covariances_, params["precisions_init"], rtol=1e-15)
        assert model.n_iter_ == 0
        assert not model.converged_

    def test_arguments_are_never_changed(self):
        means = [[0, 0], [9, 0], [0, 7]]
        weights = np.array([0.2, 0.3, 0.5])
        labels = np.arange(300) // 100
        model = GaussianMixture(3, means_init=means, weights_init=weights, init_params=labels)
        before = dict(model.get_params())
        model.fit(X)
        assert all(model.get_params()[name] is value for name, value in before.items())
        assert means == [[0, 0], [9, 0], [0, 7]]
        weights[0] = 0.2  # still ours to write to

    def test_a_function_gets_the_users_data(self):
        frame = pd.DataFrame(X, columns=["a", "b"])
        seen = []

        def start(data, k, rng):
            seen.append(data)
            return rng.integers(0, k, len(data))

        GaussianMixture(3, init_params=start, random_state=0).fit(frame)
        assert seen[0] is frame


class TestCallback:
    def test_it_sees_every_iteration(self):
        seen = []
        model = GaussianMixture(3, random_state=0, tol=1e-6).fit(X, callback=seen.append)
        assert [info.iteration for info in seen] == list(range(1, model.n_iter_ + 1))
        assert [info.lower_bound for info in seen] == model.lower_bounds_
        assert isinstance(seen[0].params, Params)

    def test_it_may_stop_the_fit(self):
        model = GaussianMixture(3, random_state=0, tol=0.0, n_init=4)
        model.fit(X, callback=lambda info: info.iteration == 2)  # and no warning: it was asked for
        assert model.n_iter_ == 2
        assert len(model.starts_) == 1
        assert model.result_.status is FitStatus.CALLBACK_STOPPED
        assert not model.converged_
        model.predict(X)

    def test_its_exceptions_pass_and_leave_the_model_as_it_was(self):
        model = GaussianMixture(3, random_state=0).fit(X)
        before = model.means_
        with pytest.raises(ZeroDivisionError):
            model.fit(X + 1.0, callback=lambda _: 1 / 0)
        np.testing.assert_array_equal(model.means_, before)

    def test_it_must_be_a_function(self):
        with pytest.raises(
            fastgmm.InvalidParameterError, match="callback must be a function of one argument, or None; got 3"
        ):
            GaussianMixture(3).fit(X, callback=3)


class FakeTerminal:
    def __init__(self):
        self.text = ""

    def isatty(self):
        return True

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def test_progress_shows_on_a_terminal_only(monkeypatch, capfd):
    GaussianMixture(3, random_state=0, verbose=2, tol=0.0, max_iter=3).fit(X, callback=lambda info: info.iteration == 3)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    monkeypatch.setattr("fastgmm.progress.DELAY", 0.0)
    terminal = FakeTerminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    GaussianMixture(3, random_state=0, verbose=1, verbose_interval=1).fit(X)
    assert "fit:" in terminal.text


def test_sample():
    model = GaussianMixture.from_parameters([0.3, 0.7, 0.0], [[0.0], [50.0], [9.0]], [1.0, 4.0, 1.0], "spherical")
    x, z = model.sample(20000, random_state=1)
    assert x.shape == (20000, 1)
    assert z.dtype == np.int64
    assert (np.diff(z) >= 0).all()  # grouped by component
    assert abs((z == 0).mean() - 0.3) < 0.02
    assert abs(x[z == 1].mean() - 50) < 0.1
    assert abs(x[z == 1].std() - 2) < 0.05
    model.random_state = 5
    np.testing.assert_array_equal(model.sample(5)[0], model.sample(5)[0])
    assert not np.array_equal(model.sample(5, random_state=1)[0], model.sample(5)[0])
    rng = np.random.default_rng(0)
    assert not np.array_equal(model.sample(5, random_state=rng)[0], model.sample(5, random_state=rng)[0])
    for bad in (0, -1, 2.5, "a"):
        with pytest.raises(ValueError, match="n_samples must be an integer >= 1"):
            model.sample(bad)


def test_from_parameters():
    model = GaussianMixture.from_parameters([0.5, 0.5], [[0.0, 0.0], [4.0, 0.0]], np.eye(2), "tied", random_state=3)
    assert model.random_state == 3
    assert model.n_components == 2
    assert model.n_features_in_ == 2
    assert model.result_ is None
    np.testing.assert_array_equal(model.precisions_, np.eye(2))
    np.testing.assert_array_equal(model.predict([[0.1, 0.0], [3.9, 0.0]]), [0, 1])
    assert "given parameters" in model._repr_html_()
    with pytest.raises(ValueError, match="sum to 1"):
        GaussianMixture.from_parameters([0.5, 0.6], [[0.0], [4.0]], [1.0, 1.0], "spherical")


def test_fitted_arrays_cannot_be_half_changed():
    model = GaussianMixture(2, random_state=0).fit(X)
    with pytest.raises(AttributeError, match="from_parameters"):
        model.means_ = X[:2]
    with pytest.raises(ValueError, match="read-only"):
        model.means_[0] = 1.0
    assert not hasattr(GaussianMixture(), "means_")
    assert isinstance(GaussianMixture.means_.__doc__, str)


def test_repr():
    assert repr(GaussianMixture()) == "GaussianMixture()"
    assert repr(GaussianMixture(3, tol=1e-6)) == "GaussianMixture(n_components=3, tol=1e-06)"
    text = repr(GaussianMixture(3, means_init=np.zeros((300, 20)), init_params=len))
    assert text.startswith("GaussianMixture(n_components=3, init_params=<built-in function len>, means_init=array([[0.")
    assert len(text) < 200
    assert repr(GaussianMixture(max_iter=100.0)) == "GaussianMixture(max_iter=100.0)"


def test_html():
    assert "not fitted" in GaussianMixture()._repr_html_()
    text = GaussianMixture(2, random_state=0).fit(X)._repr_html_()
    assert "converged" in text
    assert "mean log-likelihood" in text
    assert "<script" not in GaussianMixture(init_params="<script>")._repr_html_()


def test_the_mixture_is_the_model():
    model = GaussianMixture(3, random_state=0).fit(X)
    assert isinstance(model.mixture_, Mixture)
    np.testing.assert_array_equal(model.mixture_.logpdf(X), model.score_samples(X))
    assert model.mixture_.means is model.means_


def test_mclusts_codes_are_accepted():
    a = GaussianMixture(2, covariance_type="EEE", random_state=0).fit(X)
    assert a.covariances_.shape == (2, 2)
    assert a.covariance_type == "EEE"  # as given


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_components": 0}, ["n_components", ">= 1", "0"]),
        ({"n_components": 2.0}, ["n_components", "integer", "2.0"]),
        ({"n_components": True}, ["n_components", "True"]),
        ({"covariance_type": "ful"}, ["covariance_type", "'full'", "'tied'", "'diag'", "'spherical'", "'ful'"]),
        ({"covariance_type": None}, ["covariance_type", "'full'"]),
        ({"tol": -1e-3}, ["tol", ">= 0", "-0.001"]),
        ({"tol": "small"}, ["tol", "'small'"]),
        ({"tol": np.nan}, ["tol", "nan"]),
        ({"reg_covar": -1}, ["reg_covar", "-1"]),
        ({"reg_covar": np.inf}, ["reg_covar", "inf"]),
        ({"max_iter": -1}, ["max_iter", "-1"]),
        ({"max_iter": 1.5}, ["max_iter", "1.5"]),
        ({"n_init": 0}, ["n_init", ">= 1"]),
        ({"init_params": "k-means"}, ["init_params", "'kmeans'", "'random_from_data'", "'k-means'"]),
        ({"random_state": "zero"}, ["random_state", "'zero'"]),
        ({"random_state": -1}, ["random_state", "-1"]),
        ({"warm_start": 1}, ["warm_start", "True or False"]),
        ({"verbose": -1}, ["verbose"]),
        ({"verbose_interval": 0}, ["verbose_interval", ">= 1"]),
        ({"degenerate": "ignore"}, ["degenerate", "'floor'", "'raise'", "'ignore'"]),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises(fastgmm.InvalidParameterError) as caught:
        GaussianMixture(**arguments).fit(X)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    with pytest.raises(ValueError, match="Invalid parameter"):
        GaussianMixture().set_params(**{f"no_{next(iter(arguments))}": 1})


def test_a_failed_start_does_not_end_the_others(monkeypatch):
    outcomes = iter([True, False, True])
    real = _fit.fit_em

    def sometimes(*args, **kwargs):
        if next(outcomes):
            msg = "component 0 collapsed"
            raise fastgmm.SingularCovarianceError(msg, component=0, family="full", min_eig=0.0)
        return real(*args, **kwargs)

    monkeypatch.setattr(_fit, "fit_em", sometimes)
    model = GaussianMixture(2, n_init=3, random_state=0, degenerate="raise").fit(X)
    assert [start.error for start in model.starts_] == ["component 0 collapsed", "", "component 0 collapsed"]
    assert model.starts_[0].status is None
    assert model.starts_[1].lower_bound == model.lower_bound_


def test_import_is_lazy():
    import subprocess

    code = (
        "import sys, fastgmm; loaded = {'numba', 'scipy', 'sklearn', 'pandas', 'matplotlib'} & set(sys.modules);"
        "assert not loaded, loaded; assert set(fastgmm.__all__) == set(dir(fastgmm));"
        "[getattr(fastgmm, name) for name in fastgmm.__all__]; print('fine')"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "fine"
    with pytest.raises(AttributeError, match="no attribute 'GausianMixture'"):
        _ = fastgmm.GausianMixture


def test_pickles_are_small_and_know_their_version():
    import pickle

    model = GaussianMixture(3, random_state=0).fit(X)
    plain = len(pickle.dumps(model))
    assert model.precisions_.shape == (3, 2, 2)
    model.predict(X)
    assert len(pickle.dumps(model)) == plain
    state = model.__getstate__()
    state["_fastgmm_version"] = "0.0.1"
    with pytest.warns(fastgmm.FastgmmWarning, match=r"pickled by fastgmm 0\.0\.1"):
        GaussianMixture().__setstate__(state)
