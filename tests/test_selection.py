"""Model search: the table, the choice, and what happens to models that cannot be fitted."""

import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn.mixture

import fastgmm
from fastgmm import GaussianMixture, select_model
from fastgmm.datasets import load_faithful
from fastgmm.selection import CRITERIA

RNG = np.random.default_rng(0)
X = np.concatenate([RNG.normal(c, 1.0, (150, 2)) for c in ([0.0, 0.0], [9.0, 0.0], [0.0, 9.0])])


def test_it_finds_the_truth():
    result = select_model(X, range(1, 6), random_state=0, tol=1e-5)
    assert (result.best.n_components, result.best.covariance_type) == (3, "spherical")
    assert len(result.candidates) == 20
    assert result.best_model.n_components == 3
    assert result.best.bic == min(c.bic for c in result.candidates if not c.degenerate)
    assert result.ranked()[0] is result.best


@pytest.mark.parametrize("criterion", CRITERIA)
def test_criteria_are_those_of_the_models(criterion):
    result = select_model(X, [2, 3], ["tied", "full"], criterion, random_state=0)
    for c in result.candidates:
        model = GaussianMixture(c.n_components, covariance_type=c.covariance_type, random_state=0).fit(X)
        assert c.bic == pytest.approx(model.bic(X), rel=1e-12)
        assert c.aic == pytest.approx(model.aic(X), rel=1e-12)
        assert c.icl == pytest.approx(model.icl(X), rel=1e-12)
        assert c.n_parameters == model._n_parameters()
    assert getattr(result.best, criterion) == min(getattr(c, criterion) for c in result.candidates)
    theirs = sklearn.mixture.GaussianMixture(3, covariance_type="full", random_state=0, tol=1e-6).fit(X)
    ours = select_model(X, 3, "full", random_state=0, tol=1e-6).best
    assert ours.bic == pytest.approx(theirs.bic(X), rel=1e-6)


def test_old_faithful():
    result = select_model(load_faithful(), range(1, 6), random_state=0, n_init=3, tol=1e-6, max_iter=500)
    # mclust chooses EEE (tied) with three components; 2*loglik - df*log(n) = -2314.316 there.
    assert (result.best.n_components, result.best.covariance_type) == (3, "tied")
    assert result.best.bic == pytest.approx(2314.316, abs=0.1)


def test_weights_count_as_repetitions():
    weight = np.random.default_rng(1).integers(0, 3, len(X))
    weighted = select_model(X, [1, 3], ["full"], sample_weight=weight, random_state=0, tol=1e-8)
    repeated = select_model(np.repeat(X, weight, axis=0), [1, 3], ["full"], random_state=0, tol=1e-8)
    for a, b in zip(weighted.candidates, repeated.candidates, strict=True):
        assert a.bic == pytest.approx(b.bic, rel=1e-7)
        assert a.icl == pytest.approx(b.icl, rel=1e-5)


def test_models_that_cannot_be_fitted_are_listed():
    few = X[:4]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fastgmm.DegenerateDataWarning)
        result = select_model(few, [1, 2, 9], ["spherical"], random_state=0)
    failed = result.candidates[-1]
    assert "more components than the 4 rows" in failed.error
    assert np.isnan(failed.bic)
    assert result.ranked()[-1] is failed
    assert "failed" in repr(result)
    with pytest.raises(ValueError, match="no model could be fitted"):
        select_model(few, [9], ["spherical"])


def test_spikes_do_not_win():
    data = np.concatenate([X, np.full((5, 2), 20.0)])
    result = select_model(data, range(1, 7), ["full", "spherical"], random_state=0)
    assert any(c.degenerate for c in result.candidates)
    assert not result.best.degenerate
    spike = min(c.bic for c in result.candidates if c.degenerate)
    assert spike < result.best.bic  # it would have won
    assert "degenerate" in repr(result)


def test_the_data_are_complained_about_once():
    data = X.copy()
    data[:, 1] = 3.0
    with pytest.warns(fastgmm.DegenerateDataWarning, match="constant") as caught:
        select_model(data, [1, 2, 3], random_state=0)
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_callback_and_names():
    seen = []
    frame = pd.DataFrame(X, columns=["a", "b"])
    result = select_model(
        frame, [1, 2], ["full"], random_state=0, callback=lambda c, done, total: seen.append((c, done, total))
    )
    assert [(done, total) for _, done, total in seen] == [(1, 2), (2, 2)]
    assert seen[0][0] is result.candidates[0]
    assert list(result.best_model.feature_names_in_) == ["a", "b"]
    early = select_model(X, [1, 2, 3], ["full"], random_state=0, callback=lambda *_: True)
    assert len(early.candidates) == 1


def test_table():
    result = select_model(X, [1, 3], ["VVV", "full", "diag"], random_state=0)
    assert [c.covariance_type for c in result.candidates] == ["full", "full", "diag", "diag"]
    table = pd.DataFrame(result.as_rows())
    assert list(table["n_components"]) == [1, 3, 1, 3]
    text = repr(result)
    assert "smaller is better" in text
    assert text.count("\n") == 5
    assert text.splitlines()[2].lstrip().startswith("*")
    assert result._repr_html_().count("<tr>") == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_components": []}, ["n_components"]),
        ({"n_components": [0]}, ["n_components", ">= 1"]),
        ({"n_components": 2.5}, ["n_components", "2.5"]),
        ({"covariance_types": []}, ["covariance_types"]),
        ({"covariance_types": ["VVV", "XXX"]}, ["covariance_type", "'full'", "'XXX'"]),
        ({"criterion": "BIC"}, ["criterion", "'bic'", "'aic'", "'icl'"]),
        ({"tol": -1}, ["tol"]),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises(fastgmm.InvalidParameterError) as caught:
        select_model(X, **arguments)
    assert all(word in str(caught.value) for word in words)


def test_weights_of_float32_rows_that_are_read_again_as_float64():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(400, 2)) * 1e-15).astype(np.float32)
    x[:200] += np.float32(1e-14)
    weight = np.where(np.arange(400) < 200, 5.0, 1.0)
    found = fastgmm.select_model(x, [2], ["full"], sample_weight=weight, random_state=0, reg_covar=0.0)
    np.testing.assert_allclose(np.sort(found.best_model.weights_), [1 / 6, 5 / 6], rtol=1e-6)
