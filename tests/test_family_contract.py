"""Every covariance family keeps the same promises; the tests run over the registry, so a new family gets them free."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as sps

from fastgmm import covariance
from fastgmm.constants import LOG_2PI
from fastgmm.covariance import FAMILIES
from fastgmm.density import KINDS
from fastgmm.errors import InvalidParameterError, SingularCovarianceError
from fastgmm.params import Params
from fastgmm.stats import OUTER
from tests import reference, strategies
from tests.doubles import as_reference, statistics_of

SIZES = [(1, 1), (3, 1), (1, 3), (3, 2), (4, 5), (2, 70)]

families = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
sizes = pytest.mark.parametrize(("k", "d"), SIZES)


def random_params(family, k, d, seed=0):
    rng = np.random.default_rng(seed)
    c = strategies.random_covariances(rng, family.name, k, d)
    return Params(rng.dirichlet(np.ones(k)), rng.normal(size=(k, d)), c, family.name)


def dense_w(params):
    """Inverse factors of a density as (K, D, D)."""
    density = covariance.density(params)
    k, d = params.means.shape
    w = density.factor
    return {
        "chol": lambda: w,
        "shared_chol": lambda: np.array([w] * k),
        "diag": lambda: np.array([np.diag(v) for v in w]),
        "scalar": lambda: np.array([v * np.eye(d) for v in w]),
    }[density.kind]()


@families
def test_kinds_are_known(family):
    assert family.factor in KINDS
    assert family.scatter in OUTER


@families
@sizes
def test_shape_and_check(family, k, d):
    params = random_params(family, k, d)
    assert family.shape(k, d) == params.covariances.shape
    family.check(params.covariances, k, d)
    with pytest.raises(InvalidParameterError, match="must have shape"):
        family.check(params.covariances[..., None], k, d)
    for bad in (np.nan, np.inf):
        broken = params.covariances.copy()
        broken.flat[0] = bad
        with pytest.raises(InvalidParameterError, match="finite"):
            family.check(broken, k, d)
    with pytest.raises(InvalidParameterError, match="positive"):
        family.check(-params.covariances, k, d)


@families
@sizes
def test_density_matches_scipy(family, k, d):
    params = random_params(family, k, d)
    density = covariance.density(params)
    x = np.random.default_rng(1).normal(size=(7, d))
    w = dense_w(params)
    for j, sigma in enumerate(reference.dense(as_reference(params))):
        y = (x - params.means[j]) @ w[j].T
        found = density.log_norm[j] - 0.5 * (y**2).sum(axis=1)
        expected = np.log(params.weights[j]) + sps.multivariate_normal(params.means[j], sigma).logpdf(x)
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(density.log_weights, np.log(params.weights))


@families
@sizes
def test_views_agree_with_dense_matrices(family, k, d):
    params = random_params(family, k, d)
    dense = family.dense(params.covariances, k, d)
    np.testing.assert_array_equal(dense, reference.dense(as_reference(params)))
    variances = np.broadcast_to(family.variances(params.covariances, k, d), (k, d))
    np.testing.assert_array_equal(variances, np.diagonal(dense, axis1=1, axis2=2))
    as_type = {"precisions": family.precisions(params.covariances)}
    upper = family.precisions_cholesky(params.covariances)
    precisions = reference.dense(as_reference(params)._replace(covariances=as_type["precisions"]))
    np.testing.assert_allclose(precisions @ dense, np.array([np.eye(d)] * k), atol=1e-10)
    u = reference.dense(as_reference(params)._replace(covariances=upper))
    np.testing.assert_allclose(u @ u.transpose(0, 2, 1), precisions, rtol=1e-10, atol=1e-10)
    np.testing.assert_array_equal(np.tril(u, -1), 0.0)
    np.testing.assert_allclose(family.from_precisions(as_type["precisions"]), params.covariances, rtol=1e-9, atol=1e-10)
    with pytest.raises(InvalidParameterError, match="precisions"):
        family.from_precisions(-as_type["precisions"])


@families
@sizes
def test_log_norm_is_a_sum_of_logs(family, k, d):
    params = random_params(family, k, d)
    _, logdet = np.linalg.slogdet(reference.dense(as_reference(params)))
    expected = np.log(params.weights) - 0.5 * (logdet + d * LOG_2PI)
    np.testing.assert_allclose(covariance.density(params).log_norm, expected, rtol=1e-12, atol=1e-12)


@families
@pytest.mark.parametrize("scale", [1e-150, 1e-30, 1e30, 1e150])
def test_scales_within_float64_are_fine(family, scale):
    params = random_params(family, 3, 4)
    scaled = Params(params.weights, params.means * scale, params.covariances * scale**2, params.covariance_type)
    here, there = covariance.density(params), covariance.density(scaled)
    np.testing.assert_allclose(there.factor * scale, here.factor, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(there.log_norm, here.log_norm - 4 * np.log(scale), rtol=1e-12)


def test_many_features_neither_overflow_nor_underflow():
    for variance in (1e-20, 1e20):
        params = Params(np.ones(1), np.zeros((1, 300)), variance * np.eye(300)[None], "full")
        log_norm = covariance.density(params).log_norm[0]
        assert log_norm == pytest.approx(-150.0 * (LOG_2PI + np.log(variance)), rel=1e-12)


@families
@given(rows=strategies.weighted_rows(), reg_covar=st.sampled_from([0.0, 1e-6, 0.5]))
def test_maximize_equals_the_two_pass_oracle(family, rows, reg_covar):
    x, r, w = rows
    r = 0.5 * r + 0.5 / r.shape[1]  # no empty component: the oracle divides by the weights
    w = w + 0.1
    k, d = r.shape[1], x.shape[1]
    stats = statistics_of(x, r, family.scatter, x[np.arange(k) % len(x)], w)
    previous = random_params(family, k, d)
    found = covariance.maximize(stats, previous, reg_covar)
    expected = reference.m_step(x, r, family.name, reg_covar, w)
    size, spread = np.abs(x).max(), np.ptp(x, axis=0).max()
    np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-12)
    np.testing.assert_allclose(found.means, expected.means, rtol=1e-12, atol=1e-13 * size)
    np.testing.assert_allclose(
        found.covariances, expected.covariances, rtol=1e-9, atol=1e-10 * spread**2 + 1e-26 * size**2
    )
    assert found.weights.sum() == pytest.approx(1.0, abs=1e-15)
    for array in (found.weights, found.means, found.covariances):
        assert not array.flags.writeable
        assert not np.shares_memory(array, stats.scatter)


@families
@given(seed=strategies.seeds)
def test_maximize_maximises_the_expected_log_likelihood(family, seed):
    rng = np.random.default_rng(seed)
    k, d, n = 2, 3, 40
    x, r = rng.normal(size=(n, d)), rng.dirichlet(np.ones(k), size=n)
    best = covariance.maximize(statistics_of(x, r, family.scatter), random_params(family, k, d), 0.0)

    def expected_log_likelihood(params):
        return float((r * reference.log_joint(x, as_reference(params))).sum())

    top = expected_log_likelihood(best)
    for _ in range(5):
        step = 0.05 * rng.normal()
        other = random_params(family, k, d, int(rng.integers(1 << 30)))
        mixed = Params(
            best.weights * (1 - abs(step)) + other.weights * abs(step),
            best.means + step * other.means,
            best.covariances * (1 - abs(step)) + other.covariances * abs(step),
            family.name,
        )
        assert expected_log_likelihood(mixed) <= top + 1e-9 * abs(top)


@given(rows=strategies.weighted_rows())
def test_richer_families_fit_at_least_as_well(rows):
    x, r, w = rows
    r = 0.5 * r + 0.5 / r.shape[1]
    w = w + 0.1
    k, d = r.shape[1], x.shape[1]
    reg = 0.01 * max(x.var(axis=0).max(), 1e-300) + 1e-20 * np.abs(x).max() ** 2

    def expected_log_likelihood(name):
        family = FAMILIES[name]
        stats = statistics_of(x, r, family.scatter, x[np.arange(k) % len(x)], w)
        params = covariance.maximize(stats, random_params(family, k, d), reg)
        dense = reference.dense(as_reference(params))
        s = reference.scatter(x, r * w[:, None], params.means) + reg * stats.weight[:, None, None] * np.eye(d)
        quadratic = sum(np.trace(np.linalg.solve(c, m)) for c, m in zip(dense, s, strict=True))
        return -0.5 * (stats.weight @ np.linalg.slogdet(dense)[1] + quadratic)

    values = [expected_log_likelihood(name) for name in ("spherical", "diag", "full")]
    slack = 1e-8 * (np.abs(values).max() + w.sum())
    assert values[0] <= values[1] + slack
    assert values[1] <= values[2] + slack
    assert expected_log_likelihood("tied") <= values[2] + slack


@families
@sizes
def test_an_empty_component_keeps_mean_and_covariance(family, k, d):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(30 + 2 * d, d))
    r = rng.dirichlet(np.ones(k), size=len(x))
    if k > 1:
        r[:, 0] = 0.0
        r /= r.sum(axis=1, keepdims=True)
    else:
        r[:] = 0.0
    previous = random_params(family, k, d)
    stats = statistics_of(x, r, family.scatter)
    found = covariance.maximize(stats, previous, 0.0)
    np.testing.assert_array_equal(found.means[0], previous.means[0])
    if family.shape(k, d)[0] == k and family.name != "tied":
        np.testing.assert_array_equal(found.covariances[0], previous.covariances[0])
    if k == 1:
        np.testing.assert_array_equal(found.covariances, previous.covariances)
        np.testing.assert_array_equal(found.weights, previous.weights)
    else:
        assert found.weights[0] == 0.0
        density = covariance.density(found)
        assert density.log_norm[0] == -np.inf
        assert np.isfinite(density.factor).all()


def numerical_rank_of_parameters(family, k, d):
    """Degrees of freedom of the covariances: rank of the map from statistics to covariances, by differences."""
    rng = np.random.default_rng(0)
    x, r = rng.normal(size=(200, d)), rng.dirichlet(np.ones(k), size=200)
    previous = random_params(family, k, d)

    def covariances(rows):
        return covariance.maximize(statistics_of(rows, r, family.scatter), previous, 0.0).covariances.ravel()

    base = covariances(x)
    return np.linalg.matrix_rank(
        np.array([covariances(x + 1e-4 * rng.normal(size=x.shape)) - base for _ in range(60)]), tol=1e-7
    )


@families
@pytest.mark.parametrize(("k", "d"), [(1, 1), (2, 3), (3, 2)])
def test_n_parameters_is_the_dimension_of_the_family(family, k, d):
    assert family.n_parameters(k, d) == numerical_rank_of_parameters(family, k, d)
    assert covariance.n_parameters(family.name, k, d) == reference.n_parameters(family.name, k, d)


@families
@sizes
def test_colorize_gives_the_covariance(family, k, d):
    params = random_params(family, k, d)
    for j, sigma in enumerate(reference.dense(as_reference(params))):
        # Draws are linear in z, so the image of the unit vectors shows the covariance exactly.
        a = family.colorize(params.covariances, j, np.eye(d))
        np.testing.assert_allclose(a.T @ a, sigma, rtol=1e-10, atol=1e-12)


@families
def test_marginal_is_the_block_of_the_dense_matrix(family):
    params = random_params(family, 3, 4)
    dims = [2, 0]
    marginal = family.marginal(params.covariances, dims)
    expected = reference.dense(as_reference(params))[:, dims][:, :, dims]
    np.testing.assert_array_equal(family.dense(marginal, 3, 2), expected)


def singular_covariances(family, k, d, what):
    """Covariances that no density has, for the last component (or the only covariance)."""
    c = random_params(family, k, d).covariances.copy()
    last = c[-1:] if family.shape(k, d)[0] == k and family.name != "tied" else c[None]
    if what == "zero":
        last[...] = 0.0
    elif what == "negative":
        last[...] = -1.0 if c.ndim < 2 or family.name == "diag" else -np.eye(d)
    elif what == "nan":
        last[...] = np.nan
    elif what == "inf":
        last[...] = np.inf
    else:
        assert what == "collinear"
        v = np.arange(1.0, d + 1)
        last[...] = np.outer(v, v)
    return c


CASES = [
    (family, what)
    for family in FAMILIES.values()
    for what in ("zero", "negative", "nan", "inf", "collinear")
    if what != "collinear" or family.name in ("full", "tied")
]


@pytest.mark.parametrize(("family", "what"), CASES, ids=lambda v: getattr(v, "name", v))
@pytest.mark.parametrize("d", [3, 70])
def test_singular_covariances_are_named_and_repaired(family, what, d):
    k = 3
    broken = singular_covariances(family, k, d, what)
    with pytest.raises(SingularCovarianceError, match=r"positive definite.*use fewer components") as caught:
        family.factorize(broken, k, d)
    assert caught.value.family == family.name
    assert caught.value.component == (None if family.name == "tied" else k - 1)
    assert not caught.value.min_eig > 1e-10

    before = broken.copy()
    reference_variance = np.linspace(1.0, 2.0, d)
    fixed, repaired = family.floor(broken, reference_variance)
    np.testing.assert_array_equal(broken, before)
    factor, log_det = family.factorize(fixed, k, d)
    assert np.isfinite(factor).all()
    assert np.isfinite(log_det).all()
    if family.name != "tied":
        assert repaired == [k - 1]
        np.testing.assert_array_equal(fixed[:-1], broken[:-1])
    smallest = np.broadcast_to(family.variances(fixed, k, d), (k, d))[-1]
    assert (smallest >= 1e-6).all()


@families
def test_sound_covariances_are_not_touched_by_the_floor(family):
    params = random_params(family, 3, 4)
    fixed, repaired = family.floor(params.covariances, 1.0)
    assert fixed is params.covariances
    assert repaired == []
    assert covariance.repair(params, 1.0) == (params, [])


@families
@pytest.mark.parametrize("variance", [0.0, np.nan, 1e-300, 1e300, np.array([0.0, 0.0]), np.array([1e-200, 1e200])])
def test_the_floor_copes_with_any_reference_variance(family, variance):
    fixed, _ = family.floor(np.zeros(family.shape(2, 2)), variance)
    factor, log_det = family.factorize(fixed, 2, 2)
    assert np.isfinite(factor).all()
    assert np.isfinite(log_det).all()


@families
def test_a_spread_below_the_rounding_of_the_mean_counts_as_collapsed(family):
    params = random_params(family, 3, 2)
    far = Params(params.weights, params.means + 1e8, params.covariances, family.name)
    assert covariance.unresolved(far) is None
    narrow = Params(params.weights, params.means + 1e8, params.covariances * 1e-16, family.name)
    assert covariance.unresolved(narrow).all()
    repaired, which = covariance.repair(narrow, 1.0)
    assert which == [0, 1, 2]
    assert covariance.unresolved(repaired) is None


def test_lookup_takes_mclust_codes_and_lists_the_names_when_it_fails():
    for code, name in {"VVV": "full", "EEE": "tied", "VVI": "diag", "VII": "spherical"}.items():
        assert covariance.family(code) is FAMILIES[name]
    for wrong in ("ful", None, 3, ["full"]):
        with pytest.raises(InvalidParameterError, match="'full', 'tied', 'diag', 'spherical', 'VVV'"):
            covariance.family(wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": [0.5, 0.6]}, "sum to 1"),
        ({"weights": [1.5, -0.5]}, "weights must be >= 0"),
        ({"weights": [1.0]}, r"shape \(2,\)"),
        ({"weights": [np.nan, 1.0]}, "weights must be >= 0"),
        ({"means": [0.0, 1.0]}, "means must have shape"),
        ({"means": [[0.0], [np.inf]]}, "means must be finite"),
        ({"means": [["a"], ["b"]]}, "array of real numbers"),
        ({"covariances": [1.0]}, r"shape \(2,\)"),
        ({"covariances": [1.0, 0.0]}, "positive"),
        ({"covariance_type": "round"}, "covariance_type must be one of"),
    ],
)
def test_given_parameters_are_checked(change, message):
    good = {"weights": [0.5, 0.5], "means": [[0.0], [1.0]], "covariances": [1.0, 2.0], "covariance_type": "spherical"}
    covariance.make_params(**good)
    with pytest.raises(InvalidParameterError, match=message):
        covariance.make_params(**(good | change))


def test_asymmetric_matrices_are_refused_and_tiny_asymmetry_is_not():
    sigma = np.array([[[2.0, 0.5], [0.4, 1.0]]])
    with pytest.raises(InvalidParameterError, match="must be symmetric"):
        FAMILIES["full"].check(sigma, 1, 2)
    FAMILIES["full"].check(np.array([[[2.0, 0.5], [0.5 + 1e-12, 1.0]]]), 1, 2)


def test_a_shared_covariance_has_no_component_in_messages():
    tied = FAMILIES["tied"]
    bad = np.array([[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(
        InvalidParameterError, match=r"^covariances of covariance_type='tied' must be positive definite"
    ):
        tied.check(bad, 3, 2)
    with pytest.raises(SingularCovarianceError, match="the shared covariance") as caught:
        tied.colorize(bad, 2, np.zeros((1, 2)))
    assert caught.value.component is None


def test_the_floor_grows_until_it_suffices_and_keeps_covariances_between_features():
    lifted, _ = FAMILIES["tied"].floor(np.array([[1.0, 3.0], [3.0, 1.0]]), np.ones(2))
    np.testing.assert_allclose(lifted, [[11.0, 3.0], [3.0, 11.0]], rtol=1e-12)  # 1e-6, 1e-5, ... 1, 10
