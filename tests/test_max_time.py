"""A limit of time: every call does something, none does much more, and what it reached can be used or gone on with."""

import time
import warnings

import numpy as np
import pytest

from fastgmm import GaussianMixture, MiniBatch, minibatch
from fastgmm.em import FitStatus
from fastgmm.errors import InvalidParameterError
from fastgmm.estimators import _fit, _run
from fastgmm.initialize import methods
from tests.test_checkpoint import OPTIONS, X, fit
from tests.tools import kills


def test_max_time():
    with pytest.warns(UserWarning, match="max_time before it converged.*resume=True"):
        model = GaussianMixture(3, **OPTIONS).fit(X, max_time=0)
    assert model.result_.status is FitStatus.MAX_TIME
    assert model.n_iter_ == 1
    assert np.isfinite(model.score(X))
    np.testing.assert_allclose(model.lower_bound_, model.score(X), rtol=1e-12)
    limit = fit(max_time=1e-9, n_init=5, tol=1e-2)
    assert len(limit.starts_) == 1
    assert fit(max_time=3600.0).n_iter_ == 12
    for wrong in (-1.0, np.nan, "1", True):
        with pytest.raises(InvalidParameterError, match="max_time"):
            fit(max_time=wrong)


@pytest.mark.parametrize("options", [{}, {"n_init": 3}, {"first_passes": MiniBatch(batch_size=60)}])
def test_calls_without_any_time_come_to_an_end(tmp_path, options):
    """Each does one iteration, and the last one has the bits of a fit that had all the time."""
    options = {"max_iter": 5, "init_params": "random"} | options
    n_starts = options.get("n_init", 1)
    for call in range(1, 5 * n_starts + 1):
        model = fit(checkpoint=tmp_path, resume=True, max_time=0.0, **options)
        under_way = call % 5 > 0
        assert len(model.starts_) == (call + 4) // 5
        assert [start.status for start in model.starts_].count(FitStatus.MAX_TIME) == under_way
        assert sum(start.n_iter for start in model.starts_) == call
    assert len(model.starts_) == n_starts
    assert kills.bits(model) == kills.bits(fit(**options))


def test_starts_end_with_the_time(monkeypatch):
    """Of a fit without a checkpoint: one with a checkpoint has to begin where it would have begun."""
    data = np.random.default_rng(0).normal(size=(3000, 2))
    seen, assign = [], methods.passes.assign
    monkeypatch.setattr(methods.passes, "assign", lambda *a: seen.append(1) or assign(*a))
    for init_params in ("kmeans", "k-means++", "random_from_data", "random"):
        model = fit(9, data=data, max_time=0.0, init_params=init_params)
        assert model.n_iter_ == 1
        assert len(np.unique(model.means_, axis=0)) == 9
    assert not seen
    batches, settle = [], minibatch.settle
    monkeypatch.setattr(minibatch, "settle", lambda *a, **k: batches.append(1) or settle(*a, **k))
    assert fit(9, data=data, max_time=0.0, first_passes=MiniBatch(2, 500)).n_iter_ == 1
    assert len(batches) == 1


@pytest.mark.parametrize(
    "where", [(_run, "starting_params"), (_fit, "fit_em")], ids=["in the draw", "in the first pass"]
)
def test_an_interruption_of_the_second_start_before_it_is_evaluated(tmp_path, monkeypatch, where):
    """It is drawn again with the same random numbers."""
    options = {"n_init": 3, "init_params": "random", "max_iter": 6}
    expected = kills.bits(fit(**options))
    module, name = where
    calls, real = [], getattr(module, name)

    def interrupted(*args, **kwargs):
        calls.append(name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(checkpoint=tmp_path, **options)
    assert kills.bits(fit(checkpoint=tmp_path, resume=True, **options)) == expected


LABELS = np.repeat([0, 1, 2], 150)


def best_first(monkeypatch, at, **options):
    """Three starts, of which the first is the best; in iteration `at` of all an hour goes by. Model and warnings."""
    clock, late, calls = time.perf_counter, [], []
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + 3600.0 * len(late))
    made = iter([LABELS, *(np.random.default_rng(seed).permutation(LABELS) for seed in range(5))])
    stop = options.pop("stop", 0)

    def callback(_):
        calls.append(1)
        if len(calls) == at:
            late.append(1)
        return len(calls) == stop

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = GaussianMixture(3, max_iter=3, tol=0.0, n_init=3, init_params=lambda *_: next(made)).fit(
            X, callback=callback, max_time=60.0
        )
    assert model.result_.status is FitStatus.MAX_ITER
    return model, [str(w.message) for w in caught if "max_time" in str(w.message)]


@pytest.mark.parametrize(("at", "starts", "ended"), [(3, 1, 1), (4, 2, 1), (6, 2, 2), (7, 3, 2), (9, 3, 3), (0, 3, 3)])
def test_time_for_some_of_the_starts_is_said(monkeypatch, at, starts, ended):
    model, said = best_first(monkeypatch, at)
    assert len(model.starts_) == starts
    assert len(said) == (ended < 3)
    assert all(f"max_time was over after {ended} of n_init=3 starts" in text for text in said)


def test_a_callback_that_stops_a_later_start_is_no_lack_of_time(monkeypatch):
    model, said = best_first(monkeypatch, 0, stop=5)
    assert [start.status for start in model.starts_] == [FitStatus.MAX_ITER, FitStatus.CALLBACK_STOPPED]
    assert said == []
