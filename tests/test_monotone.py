"""The watch over all fits of the suite (tests/monotone.py) notices what it is there for."""

import numpy as np
import pytest

from fastgmm.constants import MONOTONE_RTOL
from fastgmm.em import fit_em, loop
from tests import monotone
from tests.doubles import NumpyPass, start

RNG = np.random.default_rng(0)
X = np.concatenate([RNG.normal(m, 1.0, (40, 2)) for m in (0.0, 3.0)])


class Falling(NumpyPass):
    """Reports a smaller log-likelihood than it should, in one pass."""

    def __init__(self, *args, at, by):
        super().__init__(*args)
        self.at, self.by = at, by

    def __call__(self, params, *, moments=True):
        stats = super().__call__(params, moments=moments)
        if len(self.calls) - 1 == self.at:
            object.__setattr__(stats, "log_likelihood", stats.log_likelihood - self.by)
        return stats


def fit(run, **options):
    options = {"reg_covar": 0.0, "tol": 0.0, "max_iter": 6} | options
    return fit_em(run, start(X, 2, "full"), reference_variance=X.var(axis=0), **options)


def silence(monkeypatch):
    """A loop that has lost its own check."""
    monkeypatch.setattr(loop._Loop, "note_fall", lambda *_: None)


def test_every_fit_is_watched(monkeypatch):
    silence(monkeypatch)
    with pytest.raises(AssertionError, match=r"fell by .* in iteration 3 .* no event says so"):
        fit(Falling(X, "full", at=3, by=100.0))


def test_a_fall_that_is_told_is_fine():
    assert [event.kind for event in fit(Falling(X, "full", at=3, by=100.0)).events] == ["decrease"]


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_the_limit_is_the_documented_rounding(monkeypatch, share):
    """At the optimum an iteration gains nothing, so that the planted fall is the whole of it."""
    best = fit(NumpyPass(X, "full"), max_iter=300)
    silence(monkeypatch)
    size = abs(best.log_likelihood) + len(X)
    run = Falling(X, "full", at=2, by=share * MONOTONE_RTOL * size)
    options = {"reference_variance": X.var(axis=0), "reg_covar": 0.0, "tol": 0.0, "max_iter": 3}
    if share < 1.0:
        assert fit_em(run, best.params, **options).n_iter == 3
    else:
        with pytest.raises(AssertionError, match="in iteration 2"):
            fit_em(run, best.params, **options)


def test_what_reg_covar_costs_is_granted(monkeypatch):
    """From the optimum without reg_covar, a large one makes the log-likelihood fall; that is no defect."""
    best = fit(NumpyPass(X, "full"), max_iter=300).params
    options = {"reference_variance": X.var(axis=0), "reg_covar": 0.5, "tol": 0.0, "max_iter": 3}
    result = fit_em(NumpyPass(X, "full"), best, **options)
    assert result.log_likelihood < result.initial_log_likelihood - 1.0
    silence(monkeypatch)
    assert fit_em(NumpyPass(X, "full"), best, **options).n_iter == 3
    with pytest.raises(AssertionError, match="in iteration 1"):
        fit_em(Falling(X, "full", at=1, by=100.0), best, **options)
    monkeypatch.setattr(monotone.Watch, "cost_of_reg_covar", lambda *_: 0.0)
    with pytest.raises(AssertionError, match="in iteration 1"):
        fit_em(NumpyPass(X, "full"), best, **options)
