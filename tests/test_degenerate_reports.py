"""Policy x what happens x covariance type x precision: each cell says in `FitResult` what became of the component."""

import warnings

import numpy as np
import pytest

from fastgmm import DegenerateComponentWarning, GaussianMixture
from fastgmm.errors import SingularCovarianceError
from tests.test_degenerate_policies import CENTERS, COPIES, X, check

THREE = np.repeat([[0.0, 0.0], [5.0, 1.0], [9.0, 4.0]], 20, axis=0)
EMPTIES = X, [*CENTERS, [1e5, 1e5]]  # nobody is near the fourth mean
COLLAPSES = COPIES, [*CENTERS, [30.0, 30.0]]  # the fourth has nothing but copies of one row
ALL_COLLAPSE = THREE, THREE[[0, 20, 40]]  # so does a shared covariance

# (what happens, policy) -> events of a kind that there must be, and which field of the result names which components.
# "floor" and "raise" leave a component without rows as it is; "raise" is about collapses.
REPORTS = {
    ("empties", "floor"): ("empty", {"empty": (3,)}),
    ("empties", "raise"): ("empty", {"empty": (3,)}),
    ("empties", "reseed"): ("reseeded", {"reseeded": (3,)}),
    ("empties", "drop"): ("dropped", {"dropped": (3,)}),
    ("collapses", "floor"): ("collapsed", {"collapsed": (3,)}),
    ("collapses", "reseed"): ("reseeded", {}),  # which ones, and what is left on the floor, depends on the places
    ("collapses", "drop"): ("dropped", {"dropped": (3,)}),
    ("all collapse", "floor"): ("collapsed", {"collapsed": (0, 1, 2)}),
    ("all collapse", "reseed"): ("collapsed", {"collapsed": (0, 1, 2)}),
    ("all collapse", "drop"): ("collapsed", {"collapsed": (0, 1, 2)}),
}
FIELDS = ("empty", "collapsed", "reseeded", "dropped")


def fit(case, covariance_type, dtype, policy):
    data, means = case
    model = GaussianMixture(
        len(means),
        covariance_type=covariance_type,
        means_init=np.asarray(means, dtype=float),
        reg_covar=0.0,
        tol=1e-6,
        max_iter=200,
        random_state=0,
        degenerate=policy,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(data.astype(dtype))
    return model, [w for w in caught if issubclass(w.category, DegenerateComponentWarning)]


@pytest.mark.parametrize("policy", ["floor", "reseed", "drop", "raise"])
@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("happens", ["empties", "collapses"])
def test_each_policy_reports_what_it_did(happens, covariance_type, dtype, policy):
    case = EMPTIES
    if happens == "collapses":
        happens, case = ("all collapse", ALL_COLLAPSE) if covariance_type == "tied" else (happens, COLLAPSES)
        if policy == "raise":
            with pytest.raises(SingularCovarianceError, match="fewer components") as caught:
                fit(case, covariance_type, dtype, policy)
            assert covariance_type in str(caught.value) or "component" in str(caught.value)
            return
    kind, fields = REPORTS[happens, policy]
    model, said = fit(case, covariance_type, dtype, policy)
    result = model.result_
    check(model, case[0].astype(dtype))
    events = [event for event in result.events if event.kind == kind]
    assert events
    assert all(event.detail and event.iteration >= 0 for event in events)
    if fields:
        assert {name: getattr(result, name) for name in FIELDS if getattr(result, name)} == fields
        assert {event.component for event in events} == set(*fields.values())
    else:
        assert result.reseeded
        assert not result.dropped
    assert len(said) == sum(bool(getattr(result, name)) for name in FIELDS)
    assert len(model.weights_) == len(case[1]) - len(result.dropped)
