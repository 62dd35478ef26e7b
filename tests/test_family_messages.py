"""What the covariance families say of parameters that are none: which one, of which family, and what was expected."""

import re

import numpy as np
import pytest

from fastgmm.covariance import FAMILIES
from fastgmm.covariance._triangular import check_definite, cholesky, inverse, inverse_cholesky
from fastgmm.errors import InvalidParameterError, SingularCovarianceError
from tests import strategies
from tests.test_family_contract import families

K, D = 3, 2
MATRICES = ("full", "tied")


def sound(family):
    return strategies.random_covariances(np.random.default_rng(0), family.name, K, D)


def broken(family, value):
    """Parameters whose second component (or the one that all share) has a diagonal of `value`."""
    c = sound(family)
    if family.name == "full":
        c[1] = np.diag(np.full(D, value))
    elif family.name == "tied":
        c[:] = np.diag(np.full(D, value))
    else:
        c[1] = value
    return c


WHERE = {"full": "{what}[1]", "tied": "{what}", "diag": "{what}", "spherical": "{what}"}


@families
@pytest.mark.parametrize("what", ["covariances", "precisions"])
def test_the_parameter_and_the_family_are_named(family, what):
    def check(value):
        return family.check(value, K, D) if what == "covariances" else family.from_precisions(value)

    place = re.escape(WHERE[family.name].format(what=what))
    positive = "positive definite; its smallest eigenvalue is -3" if family.name in MATRICES else "positive; entry"
    with pytest.raises(InvalidParameterError, match=rf"^{place} of covariance_type='{family.name}' must be {positive}"):
        check(broken(family, -3.0))
    check(sound(family))


@families
def test_shapes_and_values_that_are_no_numbers_are_named(family):
    with pytest.raises(
        InvalidParameterError, match=rf"^covariances of covariance_type='{family.name}' must have shape"
    ):
        family.check(sound(family)[..., None], K, D)
    with pytest.raises(InvalidParameterError, match=r"^covariances must be finite; entry \(.*\) is nan"):
        family.check(broken(family, np.nan), K, D)


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("what", ["covariances", "precisions"])
def test_asymmetry_is_named(name, what):
    family = FAMILIES[name]
    c = sound(family)
    c[..., 0, 1] += 0.1
    place = what if name == "tied" else f"{what}[0]"
    with pytest.raises(
        InvalidParameterError, match=rf"^{re.escape(place)} of covariance_type='{name}' must be symmetric"
    ):
        family.check(c, K, D) if what == "covariances" else family.from_precisions(c)


@families
def test_refusals_name_the_component_or_that_it_is_shared(family):
    c, component = broken(family, 0.0), None if family.name == "tied" else 1
    with pytest.raises(SingularCovarianceError) as caught:
        family.factorize(c, K, D)
    which = "the shared covariance" if component is None else "the covariance of component 1"
    assert str(caught.value).startswith(f"{which} (covariance_type='{family.name}') must be positive definite; its")
    assert (caught.value.component, caught.value.family, caught.value.min_eig) == (component, family.name, 0.0)


def test_a_shared_covariance_is_called_so_by_all_that_factorise_it():
    tied = FAMILIES["tied"]
    for act in (tied.precisions_cholesky, lambda c: tied.colorize(c, 0, np.zeros((1, D)))):
        with pytest.raises(SingularCovarianceError, match=r"^the shared covariance") as caught:
            act(np.zeros((D, D)))
        assert caught.value.component is None


def test_of_a_stack_the_first_bad_matrix_is_named():
    stack = np.array([np.eye(D), np.zeros((D, D)), -np.eye(D)])
    for act in (cholesky, inverse_cholesky, inverse):
        with pytest.raises(SingularCovarianceError, match="of component 1 ") as caught:
            act("full", stack)
        assert caught.value.component == 1
    for act in (cholesky, inverse_cholesky):
        with pytest.raises(SingularCovarianceError, match=r"^the shared covariance"):
            act("tied", stack[1:2], shared=True)
    with pytest.raises(InvalidParameterError, match=r"^things\[1\] of covariance_type='full'"):
        check_definite("full", "things", stack)


@families
def test_values_that_are_not_finite_have_no_smallest_eigenvalue(family):
    for value in (np.nan, np.inf):
        with pytest.raises(SingularCovarianceError, match="smallest eigenvalue is nan") as caught:
            family.factorize(broken(family, value), K, D)
        assert np.isnan(caught.value.min_eig)


@families
def test_the_floor_says_which_components_it_changed(family):
    expected = [0] if family.name == "tied" else [1]  # alone, a shared covariance does not know of how many
    raised, repaired = family.floor(broken(family, 0.0), 1.0)
    assert repaired == expected
    family.factorize(raised, K, D)
    mask = np.zeros((K, D), bool)
    mask[2, 1] = True
    raised, repaired = family.floor(sound(family), 1.0, collapsed=mask)
    assert repaired == ([0, 1, 2] if family.name == "tied" else [2])
    difference = np.broadcast_to(family.variances(raised, K, D) - family.variances(sound(family), K, D), (K, D))
    assert difference[2, 1] > 0.0
    if family.name != "tied":
        np.testing.assert_array_equal(difference[:2], 0.0)
