"""The EM loop between two iterations: states to go on from, defaults, falls, time, the callback; NumPy passes only."""

import dataclasses

import numpy as np
import pytest

from fastgmm.em import FitStatus, StartRecord, fit_em, loop
from fastgmm.em.packing import pack_result, pack_start, pack_state, unpack_result, unpack_start, unpack_state
from fastgmm.errors import CheckpointError
from tests import monotone, reference
from tests.doubles import NumpyPass, start
from tests.test_em import blobs, kinds, point_start, with_point_mass
from tests.test_monotone import Falling

types = pytest.mark.parametrize("covariance_type", reference.TYPES)
X = blobs(2, n=90)
CLOCK = "fastgmm.em.loop.time.perf_counter"


def run(covariance_type="full", data=X, k=3, accumulate=None, **options):
    accumulate = NumpyPass(data, covariance_type) if accumulate is None else accumulate
    options = {"reference_variance": np.var(data, axis=0), "reg_covar": 0.0, "tol": 1e-6} | options
    return fit_em(accumulate, start(data, k, covariance_type), **options)


def a_row_of(data):
    """Places for components started again: one row, another each time."""
    return lambda params, n, attempt: data[[attempt] * n]  # noqa: ARG005 - the signature of places


def plain(value):
    """A result or a state as values that compare equal when every bit is the same; times are left out."""
    found = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    params = found.pop("params")
    found["history"] = [record.log_likelihood for record in found["history"]]
    found["params"] = [array.tobytes() for array in (params.weights, params.means, params.covariances)]
    return found


# -- going on ----------------------------------------------------------------------------------------------------------


@types
def test_from_any_state_the_rest_of_the_fit_is_the_same(covariance_type):
    states = []
    options = {"tol": 0.0, "max_iter": 7}
    whole = run(covariance_type, watch=states.append, **options)
    assert [state.iteration for state in states] == list(range(8))
    for state in states:
        passes, again = NumpyPass(X, covariance_type), []
        rest = run(covariance_type, accumulate=passes, state=state, watch=again.append, **options)
        assert plain(rest) == plain(whole)
        assert plain(again[0]) == plain(state)  # what is kept before the first iteration is what was read
        assert passes.calls[0] is state.with_moments


def test_a_finished_fit_is_repeated_in_one_pass_and_goes_on_with_moments():
    """The last pass of a fit gathers no moments; a longer fit needs them, and only that one costs a second pass."""
    states = []
    short = run(max_iter=4, tol=0.0, watch=states.append)
    end = states[-1]
    assert end.with_moments is False
    again = NumpyPass(X, "full")
    assert plain(run(accumulate=again, max_iter=4, tol=0.0, state=end)) == plain(short)
    assert again.calls == [False]
    longer = NumpyPass(X, "full")
    result = run(accumulate=longer, max_iter=6, tol=0.0, state=end)
    assert longer.calls == [False, True, True, False]
    assert plain(result) == plain(run(max_iter=6, tol=0.0))


class Twice(NumpyPass):
    """A pass that rounds otherwise where it gathers moments, as a real one may."""

    def __call__(self, params, *, moments=True):
        stats = super().__call__(params, moments=moments)
        if moments:
            object.__setattr__(stats, "log_likelihood", stats.log_likelihood * (1.0 + 1e-13))
        return stats


@pytest.mark.parametrize("first", [0, 1, 2, 3, 5])
def test_a_longer_fit_sees_the_numbers_that_it_would_have_seen(first):
    """History and change are those of the pass with moments, though the shorter fit ended with one without."""
    states, longer = [], []
    run(accumulate=Twice(X, "full"), max_iter=first, tol=0.0, watch=states.append)
    whole = run(accumulate=Twice(X, "full"), max_iter=6, tol=0.0, watch=longer.append)
    again = []
    rest = run(accumulate=Twice(X, "full"), max_iter=6, tol=0.0, state=states[-1], watch=again.append)
    np.testing.assert_array_equal(rest.params.means, whole.params.means)
    assert [r.log_likelihood for r in rest.history] == [r.log_likelihood for r in whole.history]
    assert again[0].change == pytest.approx(longer[first].change, rel=1e-9)
    assert again[0].with_moments is longer[first].with_moments is True


@pytest.mark.parametrize("name", ["log_likelihood", "total_weight"])
def test_other_data_are_refused(name):
    states = []
    run(watch=states.append)
    state = dataclasses.replace(states[2], **{name: np.nextafter(getattr(states[2], name), np.inf)})
    with pytest.raises(
        CheckpointError, match=r"cannot be resumed: under the parameters of iteration 2 .* have changed"
    ):
        run(state=state)


def test_states_count_components_as_the_fit_does():
    """Dropped, reseeded and empty ones: what the policy has seen goes on with the state."""
    data = np.concatenate([X, np.full((20, 2), 40.0)])
    for degenerate in ("floor", "drop", "reseed"):
        states = []
        options = {"degenerate": degenerate, "places": a_row_of(data), "max_iter": 25}
        whole = run(data=data, k=5, watch=states.append, **options)
        for state in states[1::3]:
            rest = run(data=data, k=5, state=state, **options)
            assert plain(rest) == plain(whole)


# -- defaults and limits -----------------------------------------------------------------------------------------------


def test_defaults_are_the_documented_ones():
    first, data = start(X, 3, "diag"), X * np.array([1.0, 1e-3])
    first = start(data, 3, "diag")
    given = {"reg_covar": 1e-6, "tol": 1e-3, "max_iter": 100, "degenerate": "floor"}
    bare = fit_em(NumpyPass(data, "diag"), first, reference_variance=1.0)
    assert plain(bare) == plain(fit_em(NumpyPass(data, "diag"), first, reference_variance=1.0, **given))
    for name, other in (("reg_covar", 1e-5), ("tol", 1e-9)):
        changed = fit_em(NumpyPass(data, "diag"), first, reference_variance=1.0, **{**given, name: other})
        assert plain(bare) != plain(changed)
    assert fit_em(NumpyPass(data, "diag"), first, reference_variance=1.0, tol=0.0).n_iter == 100


def test_a_tolerance_of_zero_never_stops():
    """Not even where an iteration changes nothing at all: one component is at its optimum after the first."""
    result = run(k=1, tol=0.0, max_iter=6)
    bounds = [record.log_likelihood for record in result.history]
    assert bounds[-1] == bounds[-2]
    assert (result.n_iter, result.status) == (6, FitStatus.MAX_ITER)


def test_seconds_are_those_of_each_iteration(monkeypatch):
    ticks = iter(1000.0 + 0.5 * np.arange(100))
    monkeypatch.setattr(CLOCK, lambda: next(ticks))
    told = []
    result = run(max_iter=4, tol=0.0, callback=lambda info: told.append(info.seconds))
    assert [record.seconds for record in result.history] == [0.5] * 4
    assert told == [0.5] * 4


def test_the_first_iteration_that_ends_later_is_the_last(monkeypatch):
    ticks = iter(np.arange(100.0))
    monkeypatch.setattr(CLOCK, lambda: next(ticks))
    result = run(max_iter=50, tol=0.0, deadline=4.0)  # iterations end at 1, 2, 3, 4
    assert (result.n_iter, result.status) == (4, FitStatus.MAX_TIME)
    ticks = iter(np.arange(100.0))
    states = []
    late = run(max_iter=50, tol=0.0, deadline=-1.0, watch=states.append)
    assert (late.n_iter, late.status) == (1, FitStatus.MAX_TIME)
    later = run(max_iter=50, tol=0.0, deadline=-1.0, state=states[-1])
    assert (later.n_iter, later.status) == (2, FitStatus.MAX_TIME)


def test_what_a_callback_is_told():
    told = []
    result = run(callback=told.append, max_iter=5, tol=0.0)
    likelihoods = [result.initial_log_likelihood, *(record.log_likelihood for record in result.history)]
    assert [info.iteration for info in told] == [1, 2, 3, 4, 5]
    assert {info.max_iter for info in told} == {5}
    assert [info.log_likelihood for info in told] == likelihoods[1:]
    np.testing.assert_allclose([info.lower_bound for info in told], np.array(likelihoods[1:]) / len(X), rtol=1e-14)
    np.testing.assert_allclose([info.change for info in told], np.diff(likelihoods) / len(X), rtol=1e-9, atol=1e-14)
    stopped = run(callback=lambda info: info.iteration == 2, max_iter=5, tol=0.0)
    assert (stopped.n_iter, stopped.status) == (2, FitStatus.CALLBACK_STOPPED)


# -- falls -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 2, 5])
def test_a_fall_is_an_event_of_its_iteration(at):
    result = run(accumulate=Falling(X, "full", at=at, by=500.0), max_iter=6, tol=0.0)
    assert [(event.kind, event.iteration) for event in result.events] == [("decrease", at)]


@pytest.mark.parametrize(("share", "told"), [(0.95, []), (1.05, ["decrease"])])
def test_rounding_is_no_fall(share, told):
    """At the optimum the planted fall is the whole of it, judged by the log-likelihood and the rows together."""
    best = run(k=1, max_iter=3, tol=0.0)
    size = 1e-4 * (abs(best.log_likelihood) + len(X))
    accumulate = Falling(X, "full", at=2, by=share * size)
    options = {"reference_variance": 1.0, "reg_covar": 0.0, "tol": 0.0, "max_iter": 3}
    assert kinds(fit_em(accumulate, best.params, monotone_rtol=1e-4, **options)) == told


def test_large_covariances_are_judged_where_reg_covar_costs_nothing(monkeypatch):
    """With reg_covar the old covariances would be needed, and large ones are not kept; without it nothing is."""
    monkeypatch.setattr(loop, "SMALL_COVARIANCES_BYTES", 0)
    monkeypatch.setattr(monotone, "LARGE", 0)
    plants = {"max_iter": 4, "tol": 0.0}
    assert kinds(run(accumulate=Falling(X, "full", at=2, by=500.0), **plants)) == ["decrease"]
    assert kinds(run(accumulate=Falling(X, "full", at=2, by=500.0), reg_covar=1e-9, **plants)) == []


def test_covariances_are_kept_up_to_the_limit(monkeypatch):
    """Three components, two features: 96 bytes."""
    monkeypatch.setattr(loop, "SMALL_COVARIANCES_BYTES", 96)
    accumulate = Falling(X, "full", at=2, by=500.0)
    assert kinds(run(accumulate=accumulate, reg_covar=1e-9, max_iter=4, tol=0.0)) == ["decrease"]


@types
def test_what_reg_covar_explains_is_no_more_than_it_costs(covariance_type):
    """A fall larger than 1/2 sum n_k tr R (Sigma_old^-1 - Sigma_new^-1) is told, with the exact allowance."""
    best = run(covariance_type, max_iter=400, tol=1e-12).params
    reg = 0.3
    first = fit_em(NumpyPass(X, covariance_type), best, reference_variance=1.0, reg_covar=reg, tol=0.0, max_iter=1)

    def cost(params):
        inverse = np.linalg.inv(
            reference.dense(reference.Parameters(params.weights, params.means, params.covariances, covariance_type))
        )
        return reg * np.broadcast_to(inverse, (3, 2, 2)).diagonal(0, 1, 2).sum(axis=1)

    weight = len(X) * reference.e_step(
        X, reference.Parameters(best.weights, best.means, best.covariances, covariance_type)
    ).responsibilities.mean(axis=0)
    allowed = 0.5 * weight @ (cost(best) - cost(first.params))
    fall = first.initial_log_likelihood - first.log_likelihood
    assert 0.0 < fall < allowed
    options = {"reference_variance": 1.0, "reg_covar": reg, "tol": 0.0, "max_iter": 1}
    for extra, told in ((0.98, []), (1.02, ["decrease"])):
        accumulate = Falling(X, covariance_type, at=1, by=extra * allowed - fall)
        result = fit_em(accumulate, best, **options)
        assert kinds(result) == told
        if told:
            assert f"rounding and reg_covar explain {allowed:.3g}" in result.events[0].detail


def test_a_fall_where_reg_covar_costs_nothing_is_told():
    """At the optimum with reg_covar the covariances stay, so that half a nat is not explained."""
    best = run(k=1, reg_covar=0.5, tol=0.0, max_iter=4).params
    options = {"reference_variance": 1.0, "reg_covar": 0.5, "tol": 0.0, "max_iter": 3}
    assert kinds(fit_em(Falling(X, "full", at=2, by=0.5), best, **options)) == ["decrease"]


def test_a_fall_after_a_floor_is_not_judged():
    """The floor changed the objective, so no fall can be told from what it cost."""
    data = with_point_mass()
    options = {"reference_variance": data.var(axis=0), "reg_covar": 0.0, "tol": 0.0, "max_iter": 12}
    result = fit_em(Falling(data, "full", at=10, by=90.0), point_start("full"), **options)
    assert kinds(result) == ["collapsed"]
    assert result.collapsed == (1,)


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degenerate", ["floor", "drop", "reseed"])
def test_packed_and_unpacked_is_the_same(degenerate):
    data = np.concatenate([X, np.full((20, 2), 40.0)])
    states = []
    result = run(
        data=data,
        k=5,
        watch=states.append,
        degenerate=degenerate,
        places=a_row_of(data),
    )
    back = unpack_result(pack_result(result), result.params, result.history)
    assert plain(back) == plain(result)
    for state in states:
        assert plain(unpack_state(pack_state(state), state.params, state.history)) == plain(state)
    for record in (
        StartRecord(result.status, result.lower_bound, result.n_iter, result.history, result.events, ""),
        StartRecord(None, -np.inf, 0, (), (), "it failed"),
    ):
        back = unpack_start(pack_start(record), record.history)
        assert dataclasses.astuple(back) == dataclasses.astuple(record)
