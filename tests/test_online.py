"""partial_fit: the laws of online EM, and batches that nobody would choose; its state is in test_online_state."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastgmm
from fastgmm import GaussianMixture, covariance
from fastgmm.errors import (
    DegenerateComponentWarning,
    InvalidParameterError,
    SingularCovarianceError,
)
from fastgmm.online import OnlineState, StepSize, feature_variance, recall
from fastgmm.stats import SufficientStatistics
from tests import reference, strategies
from tests.doubles import as_reference

TYPES = reference.TYPES
CENTERS = np.array([[0.0, 0.0], [6.0, 1.0], [1.0, 7.0]])
WEIGHTS = np.array([0.5, 0.3, 0.2])


def batch(n, seed, offset=0.0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    label = rng.choice(3, n, p=WEIGHTS)
    return (CENTERS[label] + rng.normal(size=(n, 2)) + offset).astype(dtype)


def arrays(model):
    p = model.mixture_.params
    return [p.weights, p.means, p.covariances]


def same_bits(a, b):
    return all(x.tobytes() == y.tobytes() for x, y in zip(arrays(a), arrays(b), strict=True))


def same_state(a: OnlineState, b: OnlineState):
    names = ("kind", "log_likelihood", "log_map", "total_weight", "n_rows")
    return (
        all(getattr(a.stats, n) == getattr(b.stats, n) for n in names)
        and all(getattr(a.stats, n).tobytes() == getattr(b.stats, n).tobytes() for n in ("weight", "mean", "scatter"))
        and all(getattr(a, n) == getattr(b, n) for n in ("total_weight", "n_batches", "step", "empty", "collapsed"))
        and a.score == b.score
    )


# -- the steps ---------------------------------------------------------------------------------------------------------


@given(st.floats(0.501, 1.0), st.floats(0.0, 100.0), st.floats(1e-3, 1e6), st.integers(2, 50))
def test_batches_of_one_size_have_the_steps_of_the_literature(decay, offset, size, t):
    step = StepSize(decay, offset)
    assert step((t - 1) * size, size) == pytest.approx((t + offset) ** -decay)
    assert step(0.0, size) == 1.0


def test_a_row_among_thousands_has_the_step_of_a_row():
    step = StepSize(0.6)
    assert step(1e6, 1.0) < 3e-4 < step(1e6, 1e3)


@pytest.mark.parametrize(
    ("option", "value", "match"),
    [
        ("learning_decay", 0.5, "learning_decay must be a number above 0.5 and at most 1; got 0.5"),
        ("learning_decay", 1.01, "learning_decay"),
        ("learning_decay", "fast", "learning_decay"),
        ("learning_offset", -1.0, "learning_offset must be a finite number >= 0"),
    ],
)
def test_steps_are_checked(option, value, match):
    for method in ("fit", "partial_fit"):
        with pytest.raises(InvalidParameterError, match=match):
            getattr(GaussianMixture(2, **{option: value}), method)(batch(50, 0))


# -- the laws ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", TYPES)
def test_the_first_batch_is_one_iteration_of_fit(name, dtype, weighted):
    x = batch(300, 0, dtype=dtype)
    w = np.random.default_rng(1).uniform(0.0, 3.0, 300) if weighted else None
    options = {"n_components": 3, "covariance_type": name, "random_state": 0}
    online = GaussianMixture(**options).partial_fit(x, sample_weight=w)
    with pytest.warns(fastgmm.ConvergenceWarning):
        whole = GaussianMixture(max_iter=1, tol=0.0, **options).fit(x, sample_weight=w)
    assert same_bits(online, whole)
    assert online.means_.dtype == dtype
    assert (online.n_iter_, online.converged_, online.result_) == (1, False, None)
    assert np.isnan(online.lower_bound_)
    # the score is that of the start, which is what fit calls the initial one
    assert online.online_.score == whole.result_.initial_log_likelihood / whole.result_.total_weight


@pytest.mark.parametrize("decay", [0.6, 1.0])
@pytest.mark.parametrize("name", TYPES)
def test_batches_follow_the_formula(name, decay):
    """The recursion of Cappe and Moulines with raw normalised statistics, as on paper."""
    rng = np.random.default_rng(3)
    sizes = [200, 50, 120, 1, 300]
    xs = [batch(n, i) for i, n in enumerate(sizes)]
    ws = [rng.uniform(0.5, 2.0, n) for n in sizes]
    reg = 1e-3
    model = GaussianMixture(
        3, covariance_type=name, means_init=CENTERS, reg_covar=reg, learning_decay=decay, learning_offset=0.5
    )
    start = GaussianMixture(3, covariance_type=name, means_init=CENTERS, reg_covar=reg, max_iter=0)
    now = as_reference(start.fit(xs[0], sample_weight=ws[0]).mixture_.params)
    s0, s1, s2, seen = np.zeros(3), np.zeros((3, 2)), np.zeros((3, 2, 2)), 0.0
    for x, w in zip(xs, ws, strict=True):
        e = reference.e_step(x, now, w)
        r = e.responsibilities * (w / w.sum())[:, None]
        g = 1.0 if seen == 0.0 else (seen / w.sum() + 1.0 + 0.5) ** -decay
        seen += w.sum()
        s0 = (1.0 - g) * s0 + g * r.sum(axis=0)
        s1 = (1.0 - g) * s1 + g * r.T @ x
        s2 = (1.0 - g) * s2 + g * np.einsum("nk,ni,nj->kij", r, x, x)
        mean = s1 / s0[:, None]
        scatter = s2 - np.einsum("k,ki,kj->kij", s0, mean, mean)
        cov = {
            "full": scatter / s0[:, None, None] + reg * np.eye(2),
            "tied": scatter.sum(axis=0) / s0.sum() + reg * np.eye(2),
            "diag": np.einsum("kii->ki", scatter) / s0[:, None] + reg,
            "spherical": np.einsum("kii->k", scatter) / s0 / 2 + reg,
        }[name]
        now = reference.Parameters(s0 / s0.sum(), mean, cov, name)
        model.partial_fit(x, sample_weight=w)
        np.testing.assert_allclose(model.weights_, now.weights, rtol=1e-9)
        np.testing.assert_allclose(model.means_, now.means, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(model.covariances_, now.covariances, rtol=1e-8, atol=1e-9)
        assert model.online_.score == pytest.approx(e.log_likelihood / w.sum(), rel=1e-10)
        assert model.online_.step == pytest.approx(g)
    assert model.online_.n_batches == len(sizes)
    assert model.online_.n_rows == sum(sizes)
    assert model.online_.total_weight == pytest.approx(seen)


@pytest.mark.parametrize("name", TYPES)
def test_without_forgetting_the_statistics_are_the_sum_over_all_rows(name):
    model = GaussianMixture(3, covariance_type=name, random_state=0, learning_decay=1.0)
    whole = None
    for i, n in enumerate((100, 7, 250)):
        x = batch(n, i)
        model.partial_fit(x)
        if whole is None:
            whole, before = model.online_.stats, model.mixture_
            continue
        part = fastgmm.passes.accumulate(fastgmm.data.as_rows(x), before.density, whole.kind)
        whole, before = whole.merge(part), model.mixture_
        mine = model.online_.stats
        np.testing.assert_allclose(mine.weight, whole.weight, rtol=1e-13)
        np.testing.assert_allclose(mine.mean, whole.mean, rtol=1e-12)
        np.testing.assert_allclose(mine.scatter, whole.scatter, rtol=1e-12)
        assert mine.total_weight == pytest.approx(whole.total_weight, rel=1e-14)


@pytest.mark.parametrize("name", TYPES)
def test_the_order_of_the_components_is_of_no_account(name):
    order = [2, 0, 1]
    models = [
        GaussianMixture(3, covariance_type=name, means_init=CENTERS[o], random_state=0) for o in ([0, 1, 2], order)
    ]
    for i in range(5):
        for model in models:
            model.partial_fit(batch(200, i))
    a, b = models
    np.testing.assert_allclose(b.weights_, a.weights_[order], rtol=1e-10)
    np.testing.assert_allclose(b.means_, a.means_[order], rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(b.mixture_.covariances_dense, a.mixture_.covariances_dense[order], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", TYPES)
def test_an_offset_of_1e8_costs_no_digits_of_the_covariances(name):
    here, there = (GaussianMixture(3, covariance_type=name, random_state=0) for _ in range(2))
    for i in range(8):
        x = np.round(batch(200, i) * 2.0**20) / 2.0**20  # exact after the shift, too
        here.partial_fit(x)
        there.partial_fit(x + 1e8)
    np.testing.assert_allclose(there.means_ - 1e8, here.means_, atol=1e-6)
    np.testing.assert_allclose(there.covariances_, here.covariances_, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", TYPES)
def test_a_stream_leads_to_the_truth(name):
    model = GaussianMixture(3, covariance_type=name, random_state=0)
    for i in range(200):
        model.partial_fit(batch(250, i))
    order = [int(np.argmin(((model.means_ - c) ** 2).sum(axis=1))) for c in CENTERS]
    assert sorted(order) == [0, 1, 2]
    np.testing.assert_allclose(model.weights_[order], WEIGHTS, atol=0.02)
    np.testing.assert_allclose(model.means_[order], CENTERS, atol=0.1)
    np.testing.assert_allclose(model.mixture_.covariances_dense[order], [np.eye(2)] * 3, atol=0.1)
    new = batch(20_000, 1000)
    best = GaussianMixture(3, covariance_type=name, random_state=0, tol=1e-8).fit(new).lower_bound_
    assert best - model.score(new) < 5e-3


@pytest.mark.parametrize("name", TYPES)
def test_the_scale_of_the_weights_is_of_no_account(name):
    a, b = (GaussianMixture(3, covariance_type=name, random_state=0) for _ in range(2))
    for i in range(3):
        x, w = batch(150, i), np.random.default_rng(i).uniform(0.0, 2.0, 150)
        w[::7] = 0.0
        a.partial_fit(x, sample_weight=w)
        b.partial_fit(x[w > 0.0], sample_weight=w[w > 0.0] * 1024.0)
    assert same_bits(a, b)
    assert b.online_.total_weight == a.online_.total_weight * 1024.0


@pytest.mark.parametrize("name", TYPES)
def test_a_component_without_rows_keeps_what_it_has(name):
    model = GaussianMixture(3, covariance_type=name, means_init=CENTERS).partial_fit(batch(600, 0))
    weights, means, covariances = (a.copy() for a in arrays(model))
    x = np.random.default_rng(0).normal(CENTERS[0] - 20.0, 0.1, (50, 2))  # all of component 0, beyond doubt
    model.partial_fit(x)
    np.testing.assert_allclose(model.weights_[1:], weights[1:] * (1.0 - model.online_.step), rtol=1e-9)
    np.testing.assert_allclose(model.means_[1:], means[1:], rtol=1e-9)
    if covariances.shape[0] == 3:
        np.testing.assert_allclose(model.covariances_[1:], covariances[1:], rtol=1e-7)


# -- before and after fit ----------------------------------------------------------------------------------------------


@given(strategies.mixtures(), st.floats(1e-3, 1e6))
def test_what_is_recalled_has_the_model_as_its_m_step(parameters, weight):
    params = fastgmm.Mixture(*parameters).params
    reg = 1e-3 * float(
        np.min(covariance.FAMILIES[params.covariance_type].variances(params.covariances, *params.means.shape))
    )
    stats = recall(params, weight, reg).stats
    again = covariance.maximize(stats, params, reg)
    np.testing.assert_allclose(again.weights, params.weights, rtol=1e-12)
    np.testing.assert_array_equal(again.means, params.means)
    np.testing.assert_allclose(
        again.covariances, params.covariances, rtol=1e-12, atol=1e-15 * np.abs(params.covariances).max()
    )


@pytest.mark.parametrize("name", TYPES)
def test_after_fit_the_past_counts_as_its_rows(name):
    x, new = batch(2000, 0), batch(100, 1)
    model = GaussianMixture(3, covariance_type=name, random_state=0, tol=1e-6).fit(x)
    before = model.mixture_
    model.partial_fit(new)
    step = model.online_.step
    assert step == pytest.approx((2000 / 100 + 1) ** -0.6)
    r = before.responsibilities(new)
    np.testing.assert_allclose(model.weights_, (1.0 - step) * before.weights + step * r.mean(axis=0), rtol=1e-9)
    assert model.result_ is None
    assert model.online_.n_batches == model.n_iter_ == 1


def test_given_parameters_count_as_much_as_the_first_batch():
    model = GaussianMixture.from_parameters(WEIGHTS, CENTERS, np.ones(3), "spherical")
    model.partial_fit(batch(40, 0))
    assert model.online_.step == pytest.approx(2.0**-0.6)
    assert model.online_.total_weight == 80.0


def test_fit_starts_afresh_and_warm_start_does_not():
    x = batch(400, 5)
    model = GaussianMixture(3, random_state=0).partial_fit(batch(300, 0)).partial_fit(batch(300, 1))
    learnt = model.mixture_.params
    model.fit(x)
    assert model.online_ is None
    assert same_bits(model, GaussianMixture(3, random_state=0).fit(x))
    warm = GaussianMixture(3, random_state=0, warm_start=True)
    warm.partial_fit(batch(300, 0)).partial_fit(batch(300, 1))
    assert warm.fit(x).result_.initial_log_likelihood == pytest.approx(
        fastgmm.Mixture.from_params(learnt).logpdf(x).sum(), rel=1e-12
    )


def test_the_score_is_of_rows_the_model_had_not_seen():
    model = GaussianMixture(3, random_state=0).partial_fit(batch(300, 0))
    new = batch(100, 1)
    expected = model.score(new)
    assert model.partial_fit(new).online_.score == pytest.approx(expected, rel=1e-12)


# -- batches that nobody would choose ----------------------------------------------------------------------------------


def sound(model):
    p = model.mixture_.params
    density = covariance.density(p)
    return (
        all(np.isfinite(a).all() for a in arrays(model))
        and np.isfinite(density.factor).all()
        and abs(p.weights.sum() - 1.0) < 1e-12
        and p.weights.min() >= 0.0
        and np.isfinite(model.online_.score)
    )


@settings(max_examples=60)
@given(strategies.covariance_types, st.lists(strategies.awkward_rows(), min_size=1, max_size=4), strategies.seeds)
def test_awkward_batches_leave_a_sound_model(name, parts, seed):
    rng = np.random.default_rng(seed)
    d = parts[0].shape[1]
    model = GaussianMixture(min(3, len(parts[0])), covariance_type=name, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fastgmm.FastgmmWarning)
        for x in parts:
            x = np.resize(x, (len(x), d))
            model.partial_fit(x, sample_weight=rng.uniform(0.1, 2.0, len(x)) if seed % 2 else None)
            assert sound(model)
            model.partial_fit(x[:1])
            assert sound(model)


@pytest.mark.parametrize("name", TYPES)
def test_a_constant_batch_collapses_no_healthy_component(name):
    model = GaussianMixture(3, covariance_type=name, random_state=0).partial_fit(batch(500, 0))
    for _ in range(5):
        model.partial_fit(np.full((20, 2), 3.0))
    assert sound(model)
    assert model.online_.collapsed == ()


@pytest.mark.parametrize("name", ["full", "diag", "spherical"])
def test_a_component_on_one_point_is_held_up_or_refused(name):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(100, 2)), np.full((50, 2), 20.0)])
    options = {"n_components": 2, "covariance_type": name, "means_init": [[0, 0], [20, 20]], "reg_covar": 0.0}
    with pytest.warns(DegenerateComponentWarning, match="components 1 collapsed onto too few distinct rows"):
        model = GaussianMixture(**options).partial_fit(x)
    assert model.online_.collapsed == (1,)
    assert sound(model)
    model.partial_fit(x)  # said once
    assert model.online_.collapsed == (1,)
    with pytest.raises(SingularCovarianceError):
        GaussianMixture(degenerate="raise", **options).partial_fit(x)


def test_what_is_forgotten_is_reported():
    model = GaussianMixture(2, covariance_type="diag", means_init=[[0.0], [100.0]], learning_decay=0.51)
    rng = np.random.default_rng(0)
    model.partial_fit(np.concatenate([rng.normal(size=(50, 1)), rng.normal(100.0, 1.0, (2, 1))]))
    mean = model.means_[1].copy()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(400):
            model.partial_fit(rng.normal(size=(1000, 1)))
    assert [w.category for w in said] == [DegenerateComponentWarning]
    assert "components 1 have no rows any more" in str(said[0].message)
    assert model.online_.empty == (1,)
    np.testing.assert_array_equal(model.means_[1], mean)
    model.partial_fit(rng.normal(size=(10, 1)))
    assert sound(model)


def test_huge_weights_stay_numbers():
    model = GaussianMixture(2, random_state=0)
    for i in range(3):
        model.partial_fit(batch(100, i), sample_weight=np.full(100, 1e305))
    assert sound(model)
    assert np.isfinite(model.online_.step)


@pytest.mark.parametrize("kind", ["full", "pooled", "diag", "trace"])
def test_feature_variance(kind):
    rng = np.random.default_rng(0)
    x, r = rng.normal(size=(80, 3)) * [1.0, 2.0, 3.0] + 1e6, rng.dirichlet(np.ones(2), 80)
    from tests.doubles import statistics_of

    found = feature_variance(statistics_of(x, r, kind, np.full((2, 3), 1e6)))
    if kind == "trace":
        assert found.sum() == pytest.approx(x.var(axis=0).sum())
    else:
        np.testing.assert_allclose(found, x.var(axis=0), rtol=1e-8)
    assert (feature_variance(SufficientStatistics.zeros(kind, 2, 3)) == 0.0).all()
