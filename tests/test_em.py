"""The EM loop, with NumPy passes: its sequence, its reports, and its policy for degenerate components."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgmm import covariance
from fastgmm.em import FitStatus, fit_em
from fastgmm.errors import InvalidParameterError, SingularCovarianceError
from fastgmm.params import Params
from fastgmm.stats import SufficientStatistics
from tests import reference, strategies
from tests.doubles import NumpyPass, as_reference, start

types = pytest.mark.parametrize("covariance_type", reference.TYPES)


def blobs(seed=0, n=150, d=2, k=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) + 4.0 * rng.normal(size=(k, d))[rng.integers(k, size=n)]


def fit(x, covariance_type="full", k=3, weight=None, seed=0, **options):
    options = {"reference_variance": np.var(x, axis=0), "reg_covar": 0.0, "tol": 1e-6} | options
    return fit_em(NumpyPass(x, covariance_type, weight), start(x, k, covariance_type, seed), **options)


def kinds(result):
    return [event.kind for event in result.events]


@types
@pytest.mark.parametrize("reg_covar", [0.0, 1e-2])
def test_the_sequence_is_the_oracles(covariance_type, reg_covar):
    x = blobs()
    w = np.random.default_rng(1).uniform(0.2, 2.0, len(x))
    first = start(x, 3, covariance_type)
    result = fit_em(
        NumpyPass(x, covariance_type, w), first, reference_variance=1.0, reg_covar=reg_covar, tol=0.0, max_iter=20
    )
    expected, trace = reference.em(x, as_reference(first), 20, reg_covar, w)
    np.testing.assert_allclose(result.params.weights, expected.weights, rtol=1e-9)
    np.testing.assert_allclose(result.params.means, expected.means, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(result.params.covariances, expected.covariances, rtol=1e-9, atol=1e-9)
    assert result.initial_log_likelihood == pytest.approx(trace[0], rel=1e-12)
    np.testing.assert_allclose([r.log_likelihood for r in result.history], trace[1:], rtol=1e-10)
    assert result.total_weight == pytest.approx(w.sum())


@types
def test_every_number_belongs_to_the_returned_parameters(covariance_type):
    x = blobs(1)
    for options in ({"max_iter": 0}, {"max_iter": 1}, {"max_iter": 7, "tol": 0.0}, {"tol": 1e-4}):
        result = fit(x, covariance_type, **options)
        e = reference.e_step(x, as_reference(result.params))
        assert result.log_likelihood == pytest.approx(e.log_likelihood, rel=1e-12)
        assert result.log_map == pytest.approx(e.log_map, rel=1e-9)
        assert result.lower_bound == pytest.approx(e.log_likelihood / len(x), rel=1e-12)
        assert len(result.history) == result.n_iter
        if result.history:
            assert result.history[-1].log_likelihood == result.log_likelihood
            assert all(record.seconds >= 0.0 for record in result.history)


def test_it_stops_where_scikit_learn_stops():
    """After the M-step of the first iteration whose E-step moved the mean log-likelihood by less than tol."""
    x = blobs(2)
    _, trace = reference.em(x, as_reference(start(x, 3, "full")), 60)
    means = np.array(trace) / len(x)
    tol = 1e-4
    expected = next(t for t in range(2, 60) if abs(means[t - 1] - means[t - 2]) < tol)
    result = fit(x, tol=tol)
    assert result.status is FitStatus.CONVERGED
    assert result.converged
    assert result.n_iter == expected


def test_passes_are_as_few_as_possible():
    x = blobs()
    run = NumpyPass(x, "full")
    result = fit_em(run, start(x, 3, "full"), reference_variance=1.0, tol=1e-4)
    assert run.calls == [True] * result.n_iter + [False]
    run = NumpyPass(x, "full")
    fit_em(run, start(x, 3, "full"), reference_variance=1.0, tol=0.0, max_iter=0)
    assert run.calls == [False]


def test_status_tells_how_a_fit_ended():
    x = blobs()
    assert fit(x, max_iter=2, tol=0.0).status is FitStatus.MAX_ITER
    assert not fit(x, max_iter=2, tol=0.0).converged
    assert fit(x, max_iter=0).status is FitStatus.MAX_ITER
    for status in FitStatus:
        assert status.value.endswith(".")


def test_callback_sees_every_iteration_and_may_stop():
    x, seen = blobs(), []

    def callback(info):
        seen.append(info)
        return info.iteration == 4

    run = NumpyPass(x, "full")
    result = fit_em(run, start(x, 3, "full"), reference_variance=1.0, tol=0.0, callback=callback)
    assert result.status is FitStatus.CALLBACK_STOPPED
    assert [info.iteration for info in seen] == [1, 2, 3, 4]
    assert len(run.calls) == 5  # the likelihood of what is returned was known: no pass more
    assert seen[-1].params is result.params
    for info, record in zip(seen, result.history, strict=True):
        assert info.log_likelihood == record.log_likelihood
        assert info.log_likelihood == pytest.approx(reference.e_step(x, as_reference(info.params)).log_likelihood)
    bounds = [result.initial_log_likelihood / len(x), *(info.lower_bound for info in seen)]
    np.testing.assert_allclose([info.change for info in seen], np.diff(bounds), atol=1e-12)


def test_exceptions_of_the_callback_pass_through():
    def callback(_info):
        msg = "enough"
        raise KeyboardInterrupt(msg)

    with pytest.raises(KeyboardInterrupt, match="enough"):
        fit(blobs(), callback=callback)


@given(mixture=strategies.mixtures(), seed=strategies.seeds)
def test_the_log_likelihood_never_falls(mixture, seed):
    rng = np.random.default_rng(seed)
    k, d = mixture.means.shape
    z = rng.integers(k, size=60)
    noise = rng.normal(size=(60, d))
    x = mixture.means[z] + np.einsum("nij,nj->ni", np.linalg.cholesky(reference.dense(mixture))[z], noise)
    result = fit(x, mixture.covariance_type, k, seed=seed, max_iter=15, tol=0.0)
    if not result.events:
        trace = np.array([result.initial_log_likelihood, *(r.log_likelihood for r in result.history)])
        assert (np.diff(trace) >= -1e-9 * (np.abs(trace[1:]) + 60)).all()
    assert "decrease" not in kinds(result)


@types
@settings(max_examples=15)
@given(seed=strategies.seeds, reg_covar=st.sampled_from([1e-3, 0.1, 3.0]))
def test_a_fall_that_reg_covar_explains_is_no_event(covariance_type, seed, reg_covar):
    result = fit(blobs(seed, n=40), covariance_type, 3, seed=seed, reg_covar=reg_covar, tol=0.0, max_iter=20)
    assert "decrease" not in kinds(result)


def test_a_fall_that_nothing_explains_is_an_event():
    x = blobs()
    truth = NumpyPass(x, "full")
    falling = iter(range(100))

    def accumulate(params, *, moments=True):
        stats = truth(params, moments=moments)
        object.__setattr__(stats, "log_likelihood", stats.log_likelihood - 50.0 * next(falling))
        return stats

    result = fit_em(accumulate, start(x, 3, "full"), reference_variance=1.0, reg_covar=1e-6, tol=0.0, max_iter=5)
    assert "decrease" in kinds(result)
    event = result.events[-1]
    assert event.component is None
    assert "fell by" in event.detail


@types
def test_equivariance_under_permutation_and_units(covariance_type):
    x = blobs(3)
    first = start(x, 3, covariance_type)
    order, unit, shift = [2, 0, 1], 2.0**10, 2.0**20
    c = first.covariances * unit**2
    moved = Params(
        first.weights[order],
        (first.means * unit + shift)[order],
        c if covariance_type == "tied" else c[order],
        covariance_type,
    )
    options = {"reg_covar": 0.0, "tol": 0.0, "max_iter": 10}
    a = fit_em(NumpyPass(x, covariance_type), first, reference_variance=1.0, **options)
    b = fit_em(NumpyPass(x * unit + shift, covariance_type), moved, reference_variance=unit**2, **options)
    np.testing.assert_allclose(b.params.weights, a.params.weights[order], rtol=1e-8)
    np.testing.assert_allclose((b.params.means - shift) / unit, a.params.means[order], atol=1e-8)
    expected = a.params.covariances if covariance_type == "tied" else a.params.covariances[order]
    np.testing.assert_allclose(b.params.covariances / unit**2, expected, rtol=1e-7, atol=1e-9)
    log_det = len(x) * x.shape[1] * np.log(unit)
    assert b.log_likelihood == pytest.approx(a.log_likelihood - log_det, rel=1e-10)


@types
def test_weight_two_is_a_row_twice_and_weight_zero_no_row(covariance_type):
    x = blobs(4)
    w = np.random.default_rng(0).integers(0, 3, len(x)).astype(float)
    first = start(x, 3, covariance_type)
    options = {"reference_variance": 1.0, "tol": 0.0, "max_iter": 10}
    a = fit_em(NumpyPass(x, covariance_type, w), first, **options)
    b = fit_em(NumpyPass(np.repeat(x, w.astype(int), axis=0), covariance_type), first, **options)
    np.testing.assert_allclose(a.params.means, b.params.means, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(a.params.covariances, b.params.covariances, rtol=1e-9, atol=1e-9)
    assert a.lower_bound == pytest.approx(b.lower_bound, rel=1e-10)


@types
@pytest.mark.parametrize("scale", [1e-150, 1.0, 1e150])
def test_any_scale_gives_the_same_fit(covariance_type, scale):
    x = blobs(5)
    here = fit(x, covariance_type, tol=0.0, max_iter=8)
    there = fit(x * scale, covariance_type, tol=0.0, max_iter=8)
    np.testing.assert_allclose(there.params.means / scale, here.params.means, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(there.params.covariances / scale / scale, here.params.covariances, rtol=1e-7, atol=1e-9)
    assert there.events == ()


def test_one_component_is_the_sample_mean_and_covariance():
    x = blobs(6)
    result = fit(x, "full", 1)
    np.testing.assert_allclose(result.params.means[0], x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(result.params.covariances[0], np.cov(x.T, bias=True), rtol=1e-12)
    assert result.converged


# -- degenerate components ---------------------------------------------------------------------------------------------


def with_point_mass(n=60, copies=15, d=2, seed=0):
    """Rows around the origin and one row repeated, far away."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(size=(n, d)), np.full((copies, d), 7.5)])


def point_start(covariance_type):
    """Starts with a narrow component on the repeated row."""
    c = {
        "full": np.array([np.eye(2), 0.01 * np.eye(2)]),
        "diag": np.array([[1.0, 1.0], [0.01, 0.01]]),
        "spherical": np.array([1.0, 0.01]),
    }[covariance_type]
    return Params(np.array([0.5, 0.5]), np.array([[0.0, 0.0], [7.4, 7.4]]), c, covariance_type)


@pytest.mark.parametrize("covariance_type", ["full", "diag", "spherical"])
@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_a_component_on_copies_of_one_row_gets_the_floor_and_the_others_are_right(covariance_type, offset):
    x = with_point_mass() + offset
    first = point_start(covariance_type)
    first = Params(first.weights, first.means + offset, first.covariances, covariance_type)
    variance = x.var(axis=0)
    result = fit_em(
        NumpyPass(x, covariance_type), first, reference_variance=variance, reg_covar=0.0, tol=1e-6, max_iter=30
    )
    assert result.converged
    assert kinds(result) == ["collapsed"]
    assert result.events[0].component == 1
    assert result.collapsed == (1,)
    assert result.empty == ()
    family = covariance.FAMILIES[covariance_type]
    spread = np.broadcast_to(family.variances(result.params.covariances, 2, 2), (2, 2))
    np.testing.assert_allclose(spread[1], 1e-6 * np.mean(variance), rtol=0.2)
    np.testing.assert_allclose(result.params.means[0] - offset, x[:60].mean(axis=0) - offset, atol=1e-6)
    np.testing.assert_allclose(result.params.weights, [0.8, 0.2], atol=1e-9)
    covariance.density(result.params)


def test_policy_raise_says_which_component_and_what_to_do():
    x = with_point_mass()
    for offset in (0.0, 1e8):
        first = point_start("full")
        first = Params(first.weights, first.means + offset, first.covariances, "full")
        with pytest.raises(SingularCovarianceError, match=r"component 1.*use fewer components|Use fewer") as caught:
            fit_em(NumpyPass(x + offset, "full"), first, reference_variance=1.0, reg_covar=0.0, degenerate="raise")
        assert caught.value.component == 1


@types
def test_a_component_without_rows_keeps_its_parameters(covariance_type):
    x = blobs(7, k=1, n=80)
    first = start(x, 2, covariance_type)
    means = np.array([x.mean(axis=0), x.mean(axis=0) + 1e4])
    first = Params(first.weights, means, first.covariances, covariance_type)
    result = fit_em(NumpyPass(x, covariance_type), first, reference_variance=1.0, reg_covar=0.0, tol=1e-8)
    assert result.converged
    assert kinds(result) == ["empty"]
    assert result.empty == (1,)
    np.testing.assert_array_equal(result.params.means[1], means[1])
    np.testing.assert_array_equal(result.params.weights, [1.0, 0.0])


@types
def test_identical_rows(covariance_type):
    x = np.full((20, 3), 1.0 / 3.0)
    first = Params(
        np.array([0.5, 0.5]),
        np.array([x[0], x[0] + 1.0]),
        {"full": np.array([np.eye(3)] * 2), "tied": np.eye(3), "diag": np.ones((2, 3)), "spherical": np.ones(2)}[
            covariance_type
        ],
        covariance_type,
    )
    result = fit_em(NumpyPass(x, covariance_type), first, reference_variance=0.0, reg_covar=0.0, max_iter=20)
    assert "collapsed" in kinds(result)
    assert np.isfinite(result.log_likelihood)
    np.testing.assert_allclose(result.params.weights @ result.params.means, x[0], atol=1e-6)


@types
def test_a_constant_column_without_reg_covar(covariance_type):
    x = np.column_stack([blobs(8, n=90), np.full(90, 1e3)])
    result = fit(x, covariance_type, 2, max_iter=20)
    assert np.isfinite(result.log_likelihood)
    np.testing.assert_allclose(result.params.means[:, 2], 1e3, rtol=1e-12)
    if covariance_type != "spherical":
        assert set(result.collapsed) == {0, 1}
        assert kinds(result).count("collapsed") == 2
    covariance.density(result.params)


def test_one_row():
    x = np.array([[2.0, -1.0]])
    first = Params(np.ones(1), np.zeros((1, 2)), np.eye(2)[None], "full")
    result = fit_em(NumpyPass(x, "full"), first, reference_variance=np.zeros(2), reg_covar=0.0, max_iter=5)
    np.testing.assert_allclose(result.params.means, x, rtol=1e-12)
    assert result.collapsed == (0,)
    result = fit_em(NumpyPass(x, "full"), first, reference_variance=np.zeros(2), reg_covar=1e-6, max_iter=5)
    assert result.events == ()
    np.testing.assert_allclose(result.params.covariances[0], 1e-6 * np.eye(2), atol=1e-12)


@types
@given(x=strategies.awkward_rows(), reg_covar=st.sampled_from([0.0, 1e-6]), seed=strategies.seeds)
def test_awkward_data_never_break_a_fit(covariance_type, x, reg_covar, seed):
    k = min(3, len(x))
    variance = x.var(axis=0)
    first = start(x, k, covariance_type, seed)
    first, _ = covariance.repair(first, variance)
    result = fit_em(NumpyPass(x, covariance_type), first, reference_variance=variance, reg_covar=reg_covar, max_iter=15)
    p = result.params
    for array in (p.weights, p.means, p.covariances):
        assert np.isfinite(array).all()
    assert p.weights.min() >= 0.0
    assert p.weights.sum() == pytest.approx(1.0, abs=1e-12)
    assert np.isfinite(result.log_likelihood)
    assert np.isfinite(covariance.density(p).factor).all()
    assert all(k in range(p.n_components) for k in (*result.empty, *result.collapsed))


def test_memory_is_three_covariance_arrays():
    """During a pass: covariances, factors and the scatter being gathered; nothing of the iteration before."""
    k, d = 20, 200
    a = np.random.default_rng(0).normal(size=(d + 50, d))
    moments_about_zero = np.array([a.T @ a] * k)

    def accumulate(params, *, moments=True):  # noqa: ARG001  (the driver's signature)
        covariance.density(params)
        return SufficientStatistics.from_moments(
            "full",
            params.means,
            np.full(k, d + 50.0),
            np.zeros((k, d)),
            moments_about_zero.copy(),
            log_likelihood=-1.0,
            log_map=0.0,
            total_weight=k * (d + 50.0),
            n_rows=k * (d + 50),
        )

    first = Params(np.full(k, 1.0 / k), np.zeros((k, d)), np.array([np.eye(d)] * k), "full")
    tracemalloc.start()
    fit_em(accumulate, first, reference_variance=1.0, tol=0.0, max_iter=4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3.3 * 8 * k * d * d


def test_unknown_policy_names_the_valid_ones():
    with pytest.raises(InvalidParameterError, match="'floor', 'reseed', 'drop', 'raise'"):
        fit(blobs(), degenerate="ignore")
