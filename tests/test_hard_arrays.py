"""Right or loud on mixed extremes: a few examples of what `python -m tests.tools.hard_arrays` runs by the thousand."""

import numpy as np
import pytest
from hypothesis import given, settings

from fastgmm import GaussianMixture
from tests.tools import hard_arrays
from tests.tools.hard_arrays import Example

PLAIN = {"n_components": 2, "covariance_type": "full", "reg_covar": 1e-6, "init_params": "kmeans", "max_iter": 20}
THREE = np.array([[0.4], [-0.4], [1.9]], dtype=np.float32)

FOUND = {
    # what went wrong once
    "squares of the rounding of 1e300 overflow": Example(np.full((2, 1), 1e300), None, PLAIN | {"n_components": 1}),
    "float32 rows, weights that float32 cannot hold": Example(THREE, np.full(3, 2e-99), PLAIN),
    "float32 rows, weights far below the largest": Example(THREE, np.array([1.0, 2e-99, 2e-99]), PLAIN),
    "weights above the range of float32": Example(THREE, np.full(3, 1e50), PLAIN),
}


@pytest.mark.parametrize("what", FOUND)
def test_found_once(what):
    hard_arrays.ended(FOUND[what])


@settings(max_examples=150)
@given(hard_arrays.examples())
def test_right_or_loud(example):
    assert hard_arrays.ended(example).startswith("right") or "Error" in hard_arrays.ended(example)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1e-90, 1e-30, 1e30, 1e90])
def test_the_unit_of_the_weights_does_not_matter_in_either_precision(dtype, size):
    x = np.random.default_rng(0).normal(size=(60, 2)).astype(dtype)
    plain = GaussianMixture(2, random_state=0).fit(x, sample_weight=np.ones(60))
    scaled = GaussianMixture(2, random_state=0).fit(x, sample_weight=np.full(60, size))
    np.testing.assert_allclose(scaled.mixture_.means, plain.mixture_.means, rtol=1e-5, atol=1e-6)
    assert scaled.score(x) == pytest.approx(plain.score(x), abs=1e-6)


def test_the_checks_can_fail():
    x = np.random.default_rng(0).normal(size=(30, 2))
    model = GaussianMixture(2, random_state=0).fit(x)
    hard_arrays.check_methods(model, x, None)
    model.predict = lambda _: np.argmin(model.predict_proba(x), axis=1)
    with pytest.raises(AssertionError):
        hard_arrays.check_methods(model, x, None)


def test_a_far_row_of_hardly_any_weight_is_refused_without_a_stray_warning():
    """The start's scatter leaves the range of float64 only when it is brought back to the data's unit."""
    x, weight = np.array([[1e300], [0.0], [0.0]]), np.array([1e-300, 1e-300, 1.0])
    options = {"n_components": 2, "reg_covar": 1e-6, "init_params": "random", "max_iter": 0}
    assert hard_arrays.ended(Example(x, weight, {**options, "covariance_type": "full"})) == "InvalidDataError"
    assert hard_arrays.ended(Example(x, weight, {**options, "covariance_type": "tied"})).startswith("right")
