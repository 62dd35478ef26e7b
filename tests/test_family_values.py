"""Numbers of the covariance families at their edges: scales, floors, shares of components, noise of float32."""

import numpy as np
import pytest

from fastgmm import covariance
from fastgmm.constants import LOG_2PI, PIVOT_TOLERANCE_FLOAT32
from fastgmm.covariance import _triangular, base, make_params
from fastgmm.errors import InvalidParameterError, SingularCovarianceError
from fastgmm.params import Params


def mixture(weights=(0.5, 0.3, 0.2)):
    c = np.array([np.eye(2), 3.0 * np.eye(2), 8.0 * np.eye(2)])
    return Params(np.array(weights), np.arange(6.0).reshape(3, 2), c, "full")


def test_a_constant_feature_takes_the_scale_of_the_others():
    np.testing.assert_allclose(base.feature_scales(np.array([0.25, 0.0, 0.01, np.inf]), 4), [0.25, 0.05, 0.01, 0.05])
    np.testing.assert_array_equal(base.feature_scales(0.0, 2), [1.0, 1.0])
    np.testing.assert_array_equal(base.feature_scales(0.5, 2), [0.5, 0.5])


def test_the_first_variance_that_is_none_is_named():
    with pytest.raises(InvalidParameterError, match=r"must be positive; entry \(1, 0\) is -2\.0"):
        base.check_positive("diag", "covariances", np.array([[0.5, 0.1], [-2.0, 0.0]]))


def test_a_variance_that_is_not_finite_becomes_the_level_alone():
    bad = np.array([True, True, False])
    lifted = base.lift_variances(np.array([np.inf, 2.0, 0.125]), bad, np.float64(0.25))
    np.testing.assert_array_equal(lifted, [0.25, 2.25, 0.125])


def test_what_is_left_after_a_drop_sums_to_one():
    left = covariance.take(mixture(), [2, 0])
    np.testing.assert_allclose(left.weights, [2.0 / 7.0, 5.0 / 7.0], rtol=1e-15)
    np.testing.assert_array_equal(left.means, [[4.0, 5.0], [0.0, 1.0]])
    np.testing.assert_array_equal(left.covariances[0], 8.0 * np.eye(2))
    np.testing.assert_array_equal(covariance.take(mixture((1.0, 0.0, 0.0)), [1, 2]).weights, [0.5, 0.5])


def test_components_put_elsewhere_have_a_fair_share_and_the_average_covariance():
    means = np.array([[50.0, 60.0]])
    found = covariance.place(mixture(), [1], means, [0, 2])
    np.testing.assert_allclose(found.weights, [5.0 / 7.0 * 2.0 / 3.0, 1.0 / 3.0, 2.0 / 7.0 * 2.0 / 3.0], rtol=1e-15)
    np.testing.assert_array_equal(found.means, [[0.0, 1.0], [50.0, 60.0], [4.0, 5.0]])
    np.testing.assert_allclose(found.covariances[1], (5.0 * 1.0 + 2.0 * 8.0) / 7.0 * np.eye(2), rtol=1e-15)
    np.testing.assert_array_equal(found.covariances[[0, 2]], mixture().covariances[[0, 2]])
    alone = covariance.place(mixture((0.0, 1.0, 0.0)), [1], means, [1])
    np.testing.assert_array_equal(alone.weights, [0.0, 1.0, 0.0])
    tied = Params(np.full(3, 1.0 / 3.0), mixture().means, np.eye(2), "tied")
    np.testing.assert_array_equal(covariance.place(tied, [1], means, [0, 2]).covariances, np.eye(2))


def test_eigenvalues_are_compared_without_being_computed():
    q = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    matrix = (q * [1.0, 2.0, 3.0, 0.5]) @ q.T
    before = matrix.copy()
    assert _triangular.exceeds(matrix, 0.49)
    assert not _triangular.exceeds(matrix, 0.51)
    assert not _triangular.exceeds(-np.eye(2), 0.0)
    assert _triangular.exceeds(-np.eye(2), -1.5)
    np.testing.assert_array_equal(matrix, before)


@pytest.mark.parametrize("component", [0, 1])
def test_noise_of_float32_is_refused_for_rows_of_float32_only(component):
    correlation = np.sqrt(1.0 - 0.5 * PIVOT_TOLERANCE_FLOAT32)
    c = np.array([4.0 * np.eye(2)] * 2)
    c[component] = 9.0 * np.array([[1.0, correlation], [correlation, 1.0]])
    params = Params(np.full(2, 0.5), np.zeros((2, 2)), c, "full")
    assert np.isfinite(covariance.density(params).factor).all()
    with pytest.raises(SingularCovarianceError) as caught:
        covariance.density(params, dtype=np.float32)
    assert caught.value.component == component
    assert caught.value.min_eig == pytest.approx(9.0 * (1.0 - correlation), rel=1e-6)
    wide = np.sqrt(1.0 - 2.0 * PIVOT_TOLERANCE_FLOAT32)
    c = c.copy()
    c[component] = 1e-6 * np.array([[1.0, wide], [wide, 1.0]])
    params = Params(np.full(2, 0.5), np.zeros((2, 2)), c, "full")
    assert np.isfinite(covariance.density(params, dtype=np.float32).factor).all()


@pytest.mark.parametrize("name", ["tied", "diag", "spherical"])
def test_other_families_are_not_asked_for_pivots(name):
    c = {"tied": 1e-9 * np.eye(2), "diag": np.full((1, 2), 1e-9), "spherical": np.array([1e-9])}[name]
    params = Params(np.ones(1), np.zeros((1, 2)), c, name)
    found = covariance.density(params, dtype=np.float32)
    np.testing.assert_allclose(found.log_norm, -np.log(1e-9) - LOG_2PI, rtol=1e-12)


def test_a_component_without_weight_has_no_density_and_no_warning():
    found = covariance.density(mixture((1.0, 0.0, 0.0)))
    np.testing.assert_array_equal(found.log_weights, [0.0, -np.inf, -np.inf])
    assert np.isneginf(found.log_norm[1:]).all()


def test_only_one_family_shares():
    assert [name for name in covariance.FAMILIES if covariance.is_shared(name)] == ["tied"]


def test_given_parameters_are_named_and_copied():
    with pytest.raises(InvalidParameterError, match=r"^means must be"):
        make_params([1.0], "text", [[[1.0]]])
    with pytest.raises(InvalidParameterError, match=r"^weights must be"):
        make_params("text", [[0.0]], [[[1.0]]])
    with pytest.raises(InvalidParameterError, match=r"^covariances must be"):
        make_params([1.0], [[0.0]], "text")
    with pytest.raises(InvalidParameterError, match=r"means must have shape .* neither of them 0; got \(0, 2\)"):
        make_params([1.0], np.zeros((0, 2)), [[[1.0]]])
    weights, means, covariances = np.array([0.5000001, 0.5, 0.0]), np.zeros((2, 3)).T.copy(order="F"), np.ones(3)
    params = make_params(weights, means, covariances, "spherical")
    assert params.weights.sum() == pytest.approx(1.0, abs=1e-15)
    assert params.means.flags.c_contiguous
    for array, own in ((weights, params.weights), (means, params.means), (covariances, params.covariances)):
        assert not np.shares_memory(array, own)
    assert make_params([1.0], [[0.0]], [[[2.0]]]).covariance_type == "full"


@pytest.mark.parametrize("name", ["diag", "spherical"])
def test_a_floor_near_the_end_of_float64_is_reached_without_a_warning(name):
    """The level after the one that does is beyond the range, and not needed."""
    variances = np.array([[-1.0, 1.0]]) if name == "diag" else np.array([-1.0])
    with np.errstate(all="raise"):
        lifted = base.lift_variances(variances, variances < 0.0, np.float64(5e307))
    assert lifted.ravel()[0] == 5e307
