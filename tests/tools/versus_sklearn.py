"""What scikit-learn's GaussianMixture gets silently wrong, and the same calls here, with numbers.

    python -m tests.tools.versus_sklearn      the table of docs/reliability.md; needs scikit-learn

One start for both (three clusters, given weights, means and precisions), `tol=0` and ten iterations: the two differ in
arithmetic only. The right covariances are those of the same rows moved to the origin, in float64.
"""

import warnings
from typing import Any, NamedTuple

import numpy as np

from fastgmm import GaussianMixture
from tests import reference
from tests.tools.degenerate_rows import CENTERS, X

ITERATIONS = 10


class Line(NamedTuple):
    what: str
    sklearn: str
    here: str
    wrong: float  # scikit-learn's error; infinite where it raises
    ours: float


def start(kind, shift=0.0, scale=1.0):
    """Keyword arguments for both."""
    precisions = {
        "full": np.array([np.eye(3)] * 3),
        "tied": np.eye(3),
        "diag": np.ones((3, 3)),
        "spherical": np.ones(3),
    }[kind]
    return {
        "weights_init": np.full(3, 1.0 / 3.0),
        "means_init": CENTERS * scale + shift,
        "precisions_init": precisions / scale**2,
    }


def fitted(cls, x, kind, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cls(3, covariance_type=kind, tol=0.0, max_iter=ITERATIONS, **options).fit(x)


def covariance_error(cls, x, kind, shift, scale=1.0, **options):
    """Largest error of a covariance in units of the largest right one, or None if the fit raises."""
    exact = (x.astype(np.float64) - shift) / scale
    right = reference.em(exact, _parameters(kind), ITERATIONS, options.get("reg_covar", 1e-6) if scale == 1.0 else 0.0)
    try:
        model = fitted(cls, x, kind, **start(kind, shift, scale), **options)
    except ValueError:
        return None
    found = np.asarray(model.covariances_, dtype=np.float64) / scale**2
    expected = right[0].covariances
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def _parameters(kind):
    given = start(kind)
    return reference.Parameters(given["weights_init"], given["means_init"], given["precisions_init"], kind)


def text(error):
    return "raises ValueError" if error is None else f"{error:.1e}"


def lines():
    """Run both; yield one line for each claim."""
    from sklearn.mixture import GaussianMixture as Theirs

    def compare(what, x, kind, shift, scale=1.0, **options):
        both = [covariance_error(cls, x, kind, shift, scale, **options) for cls in (Theirs, GaussianMixture)]
        worst = [np.inf if error is None else error for error in both]
        return Line(f"{what}, {kind}: error of the covariances", *map(text, both), *worst)

    for shift in (1e7, 1e8):
        for kind in reference.TYPES:
            yield compare(f"offset {shift:g}", X + shift, kind, shift)
    for kind in reference.TYPES:
        yield compare("float32, offset 1e3", (X + 1e3).astype(np.float32), kind, 1e3)
    for kind in reference.TYPES:
        yield compare("scale 1e-4", X * 1e-4, kind, 0.0, 1e-4)
    yield bound(Theirs)
    yield arguments(Theirs)
    yield far_row(Theirs)


def bound(theirs: Any) -> Line:
    """`lower_bound_` against `score(X)`, both of the same fitted parameters."""
    x = X * [1.0, 1.0, 3.0]
    gaps = []
    for cls in (theirs, GaussianMixture):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = cls(3, tol=0.0, max_iter=2, means_init=CENTERS + 1.0, random_state=0).fit(x)
        gaps.append(abs(model.lower_bound_ - model.score(x)))
    return Line("lower_bound_ - score(X) after two iterations", *(f"{g:.1e}" for g in gaps), *gaps)


def arguments(theirs: Any) -> Line:
    """Whether `fit` leaves the constructor's arguments as they were."""
    changed = []
    for cls in (theirs, GaussianMixture):
        means = CENTERS.tolist()
        model = fitted(cls, X, "full", means_init=means)
        changed.append(float(model.means_init is not means))
    return Line("fit replaces means_init", *("yes" if c else "no" for c in changed), *changed)


def far_row(theirs: Any) -> Line:
    """predict_proba of a row whose densities all underflow."""
    nans = []
    for cls in (theirs, GaussianMixture):
        model = fitted(cls, X, "full", **start("full"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nans.append(float(np.isnan(model.predict_proba([[1e200, 0.0, 0.0]])).sum()))
    return Line("NaN in predict_proba of a row at 1e200", *(f"{n:.0f} of 3" for n in nans), *nans)


def main() -> None:
    print("| | scikit-learn | fastgmm |\n|---|---|---|")
    for line in lines():
        print(f"| {line.what} | {line.sklearn} | {line.here} |")


if __name__ == "__main__":
    main()
