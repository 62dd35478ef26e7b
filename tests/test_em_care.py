"""The policy for degenerate components, asked directly, and within the loop with passes that fail on cue."""

import numpy as np
import pytest

from fastgmm import covariance
from fastgmm.constants import RESEEDS_PER_COMPONENT
from fastgmm.em import FitStatus, care, fit_em
from fastgmm.em.care import Care
from fastgmm.errors import SingularCovarianceError
from fastgmm.params import Params
from tests.doubles import NumpyPass, start
from tests.test_em import blobs, kinds
from tests.test_em_state import a_row_of

X = blobs(2, n=90)
K, D = 4, 2


def mixture(weights=(0.4, 0.3, 0.2, 0.1)):
    """Four components whose variances are 1, 2, 3 and 4."""
    return Params(
        np.array(weights), 10.0 * np.eye(K)[:, :D], np.array([(k + 1.0) * np.eye(D) for k in range(K)]), "full"
    )


def refusal(component):
    return SingularCovarianceError("refused", component=component, family="full", min_eig=-1.0)


class Places:
    """New means; remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, params, n, attempt):
        self.asked.append((params.n_components, n, attempt))
        return np.full((n, D), 100.0 + attempt)


def policy(degenerate, params=None):
    places = Places()
    return Care(degenerate, 1.0, places, mixture() if params is None else params, None), places


# -- the policy, asked directly ----------------------------------------------------------------------------------------


def test_raise_hands_the_refusal_on():
    error = refusal(2)
    with pytest.raises(SingularCovarianceError) as caught:
        policy("raise")[0].after_failure(mixture(), error, 3, final=False)
    assert caught.value is error


def test_raise_says_that_nothing_is_left_of_the_variance():
    params = mixture()
    narrow = params.covariances.copy()
    narrow[1] = 0.0
    with pytest.raises(SingularCovarianceError, match="component 1 collapsed in iteration 7") as caught:
        policy("raise")[0].before_pass(Params(params.weights, params.means, narrow, "full"), 7, final=False)
    assert (caught.value.component, caught.value.family, caught.value.min_eig) == (1, "full", 0.0)


def test_a_component_started_again_looks_like_the_healthy_ones():
    """Neither the collapsed one's covariance nor that of one without rows is a model for it."""
    params = mixture((0.5, 0.3, 0.2, 0.0))
    own, places = policy("reseed")
    found = own.after_failure(params, refusal(1), 5, final=False)
    repaired, bad = covariance.repair(params, 1.0, refusal(1))
    assert bad == [1]
    expected = covariance.place(repaired, [1], np.full((1, D), 100.0), [0, 2])
    for name in ("weights", "means", "covariances"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert places.asked == [(4, 1, 0)]
    assert own.restarted
    assert (own.reseeds, own.n_reseeds) == ([0, 1, 0, 0], 1)
    assert [(e.iteration, e.component, e.kind) for e in own.events] == [(5, 1, "reseeded")]
    assert own.events[0].detail == (
        f"its covariance became singular; it was started again elsewhere (1 of at most {RESEEDS_PER_COMPONENT})"
    )
    own.after_pass(5)
    assert own.collapsed == []  # it is not on the floor


def test_no_healthy_component_no_model_to_start_from():
    params = mixture((1.0, 0.0, 0.0, 0.0))
    own, places = policy("reseed")
    own.after_failure(params, refusal(0), 5, final=False)
    own.after_pass(5)
    assert places.asked == []
    assert own.collapsed == [0]


def test_a_component_is_started_again_a_few_times_and_then_stays_on_the_floor():
    own, places = policy("reseed")
    for attempt in range(RESEEDS_PER_COMPONENT + 2):
        own.after_failure(mixture(), refusal(1), attempt, final=False)
        own.after_pass(attempt)
    assert [asked[2] for asked in places.asked] == list(range(RESEEDS_PER_COMPONENT))
    assert own.reseeds == [0, RESEEDS_PER_COMPONENT, 0, 0]
    assert own.collapsed == [1]
    assert [event.kind for event in own.events] == ["reseeded"] * RESEEDS_PER_COMPONENT + ["collapsed"]


def test_a_fit_has_so_many_starts_and_no_more(monkeypatch):
    monkeypatch.setattr(care, "RESEEDS_PER_FIT", 2)
    own, places = policy("reseed")
    for k in range(4):
        own.after_failure(mixture(), refusal(k), k, final=False)
    assert [asked[2] for asked in places.asked] == [0, 1]
    own.n_reseeds = 3  # a file of a release that allowed more
    own.after_failure(mixture(), refusal(0), 4, final=False)
    assert len(places.asked) == 2


def test_the_last_iteration_starts_nothing_again():
    own, places = policy("reseed")
    own.after_failure(mixture(), refusal(1), 9, final=True)
    own.after_pass(9)
    assert places.asked == []
    assert not own.restarted
    assert own.collapsed == [1]


def test_a_drop_starts_the_likelihood_anew_and_renumbers():
    own, _ = policy("drop")
    own.collapsed = [0, 3]
    own.reseeds = [1, 2, 3, 4]
    found = own.after_failure(mixture(), refusal(1), 2, final=False)
    assert own.restarted
    assert (own.numbers, own.dropped, own.collapsed, own.reseeds) == ([0, 2, 3], [1], [0, 2], [1, 3, 4])
    np.testing.assert_allclose(found.weights, np.array([0.4, 0.2, 0.1]) / 0.7)
    own.after_failure(found, refusal(1), 3, final=False)
    assert (own.numbers, own.dropped) == ([0, 3], [1, 2])
    assert [(event.component, event.kind) for event in own.events] == [(1, "dropped"), (2, "dropped")]


def test_one_that_sinks_below_its_floor_and_one_that_collapses_are_both_lifted():
    """The first looks sound by itself, but was repaired before; the second is new."""
    params = mixture()
    c = params.covariances.copy()
    c[0], c[1] = 1e-9 * np.eye(D), 0.0
    own, _ = policy("floor", params)
    own.collapsed = [0]
    found = own.before_pass(Params(params.weights, params.means, c, "full"), 4, final=False)
    own.after_pass(4)
    assert own.collapsed == [0, 1]
    assert (found.covariances[:2].diagonal(0, 1, 2) >= 1e-6).all()
    np.testing.assert_array_equal(found.covariances[2:], params.covariances[2:])
    assert [(event.component, event.kind) for event in own.events] == [(1, "collapsed")]


# -- in the loop -------------------------------------------------------------------------------------------------------


class Refusing(NumpyPass):
    """Refuses the parameters in some of its calls."""

    def __init__(self, *args, at, component=1):
        super().__init__(*args)
        self.at, self.component = at, component

    def __call__(self, params, *, moments=True):
        if len(self.calls) in self.at:
            self.calls.append(moments)
            raise refusal(self.component)
        return super().__call__(params, moments=moments)


@pytest.mark.parametrize("degenerate", ["drop", "reseed"])
def test_after_a_restart_the_fit_that_had_converged_goes_on_with_moments(degenerate):
    """The tolerance is met in the second iteration, whose pass gathers no moments, but fails: there is a third then."""
    accumulate, places = Refusing(X, "full", at=[2]), a_row_of(X)
    result = fit_em(
        accumulate, start(X, 3, "full"), reference_variance=1.0, tol=1e9, degenerate=degenerate, places=places
    )
    assert accumulate.calls[:4] == [True, True, False, True]
    assert result.status is FitStatus.CONVERGED
    assert result.n_iter == 4  # an iteration after a restart says nothing about convergence, the next one does
    assert accumulate.calls[4:] == [True, False]
    assert np.isfinite(result.log_likelihood)


def test_a_failure_repaired_by_the_floor_leaves_the_fit_converged():
    accumulate = Refusing(X, "full", at=[2])
    result = fit_em(accumulate, start(X, 3, "full"), reference_variance=1.0, tol=1e9)
    assert accumulate.calls == [True, True, False, False]
    assert (result.n_iter, result.status, result.collapsed) == (2, FitStatus.CONVERGED, (1,))


def test_a_failure_in_the_last_iteration_is_not_followed_by_another():
    accumulate = Refusing(X, "full", at=[2])
    result = fit_em(accumulate, start(X, 3, "full"), reference_variance=1.0, tol=0.0, max_iter=2, degenerate="drop")
    assert accumulate.calls == [True, True, False, False]
    assert result.params.n_components == 2
    assert result.status is FitStatus.MAX_ITER


def test_a_component_that_collapses_in_the_converged_iteration_is_dropped_and_the_rest_is_fitted():
    """As above, but the policy sees it before the pass."""
    x = np.concatenate([X, np.full((15, 2), 60.0)])
    first = start(X, 3, "full")
    narrow = np.concatenate([first.covariances, 400.0 * np.eye(2)[None]])
    means = np.concatenate([first.means, [[60.0, 60.0]]])
    accumulate = NumpyPass(x, "full")
    options = {"reference_variance": 1.0, "reg_covar": 0.0, "tol": 1e9, "degenerate": "drop"}
    result = fit_em(accumulate, Params(np.full(4, 0.25), means, narrow, "full"), **options)
    assert kinds(result) == ["dropped"]
    assert result.events[0].iteration == 2
    assert accumulate.calls[:3] == [True, True, True]  # the last one although the tolerance was met
    assert result.params.n_components == 3


def test_a_pass_that_refuses_everything_is_believed_at_last():
    accumulate = Refusing(X, "full", at=range(1000))
    with pytest.raises(SingularCovarianceError, match="refused"):
        fit_em(accumulate, start(X, 3, "full"), reference_variance=1.0)
    assert len(accumulate.calls) == 2 * 3 + 1


def test_two_components_that_collapse_one_after_the_other_both_stay_on_the_floor():
    x = np.concatenate([np.random.default_rng(0).normal(size=(60, 2)), np.full((15, 2), 9.5), np.full((15, 2), -9.5)])
    means = np.array([[0.0, 0.0], [9.5, 9.5], [-8.0, -8.0]])
    variance = x.var(axis=0)
    for covariance_type, c in (
        ("full", np.array([np.eye(2), 1e-6 * np.eye(2), 4.0 * np.eye(2)])),
        ("diag", np.array([[1.0, 1.0], [1e-6, 1e-6], [4.0, 4.0]])),
    ):
        first = Params(np.full(3, 1.0 / 3.0), means, c, covariance_type)
        result = fit_em(
            NumpyPass(x, covariance_type), first, reference_variance=variance, reg_covar=0.0, tol=0.0, max_iter=30
        )
        told = {event.component: event.iteration for event in result.events}
        assert told[1] < told[2]
        assert kinds(result) == ["collapsed", "collapsed"]
        assert result.collapsed == (1, 2)
        spread = covariance.FAMILIES[covariance_type].variances(result.params.covariances, 3, 2)
        np.testing.assert_allclose(np.broadcast_to(spread, (3, 2))[1:], 1e-6 * np.mean(variance), rtol=0.2)


# -- the weight of all rows --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [0.5, 0.0])
def test_bounds_are_per_unit_of_weight_however_little_there_is(total):
    bounds = []
    result = fit_em(
        NumpyPass(X, "full", np.full(len(X), total / len(X))), start(X, 3, "full"), reference_variance=1.0,
        tol=0.0, max_iter=3, callback=lambda info: bounds.append(info.lower_bound),
    )  # fmt: skip
    if total:
        expected = [record.log_likelihood / result.total_weight for record in result.history]
        np.testing.assert_allclose(bounds, expected, rtol=1e-14)
        assert result.total_weight == pytest.approx(total)
        assert result.lower_bound == pytest.approx(result.log_likelihood / total)
    else:
        assert np.isnan([*bounds, result.lower_bound]).all()
