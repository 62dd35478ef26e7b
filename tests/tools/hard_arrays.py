"""Right or loud on arrays that mix what breaks fragile code: 1e+-150, subnormals, duplicates, constants, huge offsets.

    python -m tests.tools.hard_arrays 5000 [seed]     that many examples, and how each ended

The suite runs a few of the same kind, always the same ones (tests/test_hard_arrays.py).
"""

import argparse
import random
import warnings
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastgmm import FastgmmError, GaussianMixture, errors
from tests import reference

HARD = {
    "float64": [0.0, -0.0, 1.0, -1.0, 1e-150, 1e150, -1e150, 1e8, 1e8 + 1.0, 1e-8, 5e-324, -2.2e-308, 1e300, -1e300],
    # What float32 holds of these, or the array drawn would not be what was drawn.
    "float32": np.float32([0.0, -0.0, 1.0, -1.0, 1e-30, 1e30, -1e30, 1e8, 1e-8, 1e-45, -1.2e-38, 3e38, -3e38]).tolist(),
}
INITS = ("kmeans", "k-means++", "random", "random_from_data")
WEIGHTS = st.one_of(
    st.just(0.0), st.just(1.0), st.floats(0.0, 1e6), st.sampled_from([1e-300, 5e-324, 1e-12, 1e12, 1e300])
)


class Example(NamedTuple):
    x: np.ndarray
    sample_weight: np.ndarray | None
    options: dict[str, Any]

    def __repr__(self) -> str:  # so that a failure can be pasted
        weight = "None" if self.sample_weight is None else f"np.array({self.sample_weight.tolist()})"
        return f"Example(np.array({self.x.tolist()}, dtype='{self.x.dtype}'), {weight}, {self.options})"


@st.composite
def examples(draw):
    dtype = draw(st.sampled_from(["float64", "float32"]))
    single = dtype == "float32"
    n, d = draw(st.integers(1, 14)), draw(st.integers(1, 4))
    numbers = st.one_of(st.sampled_from(HARD[dtype]), st.floats(-1e6, 1e6, width=32 if single else 64))
    x = draw(hnp.arrays(dtype, (n, d), elements=numbers))
    change = draw(st.sampled_from(["none", "none", "duplicates", "constant", "collinear", "offset", "tiny", "cloud"]))
    if change == "duplicates":
        x[n // 2 :] = x[0]
    elif change == "constant":
        x[:, -1] = x[0, -1]
    elif change in ("collinear", "offset", "tiny", "cloud"):
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        cloud = rng.normal(size=(3 * n, d)) + 5.0 * rng.integers(0, 3, (3 * n, 1))
        if change == "collinear":
            cloud[:, -1] = 3.0 * cloud[:, 0]
        elif change == "offset":
            cloud += draw(st.sampled_from([1e4, 1e8, -1e12, 1e16] if not single else [1e3, 1e5, -1e7]))
        elif change == "tiny":
            cloud *= draw(st.sampled_from([1e-300, 1e-154, 1e-160, 1e150] if not single else [1e-40, 1e-20, 1e18]))
        elif change == "cloud" and d > 1:
            cloud[:, 0] *= 1e15 if single else 1e100
        x = cloud.astype(dtype)
    weight = draw(st.one_of(st.none(), hnp.arrays(np.float64, len(x), elements=WEIGHTS)))
    options = {
        "n_components": draw(st.integers(1, 4)),
        "covariance_type": draw(st.sampled_from(reference.TYPES)),
        "reg_covar": draw(st.sampled_from([1e-6, 0.0])),
        "init_params": draw(st.sampled_from(INITS)),
        "max_iter": draw(st.sampled_from([0, 1, 20])),
    }
    return Example(x, weight, options)


def check_parameters(model):
    """A sound mixture: finite, weights that sum to one, definite covariances."""
    mixture = model.mixture_
    assert abs(mixture.weights.sum() - 1.0) < 1e-9
    assert mixture.weights.min() >= 0.0
    for name in ("means_", "covariances_", "precisions_", "precisions_cholesky_"):
        assert np.isfinite(getattr(model, name)).all(), name
    dense = mixture.covariances_dense
    deviation = np.sqrt(np.diagonal(dense, axis1=1, axis2=2))
    assert deviation.min() > 0.0
    # Definite in the features' own units; eigenvalues of 1e300 and 1e-300 together are beyond LAPACK.
    correlation = dense / deviation[:, :, None] / deviation[:, None, :]
    assert np.linalg.eigvalsh(correlation).min() > -1e-12
    assert np.isfinite(model.lower_bound_)


def check_methods(model, x, weight):
    """Every method: no NaN, and the methods agree with one another."""
    densities = model.score_samples(x)
    assert not np.isnan(densities).any()
    assert (densities < np.inf).all()
    proba = model.predict_proba(x)
    assert np.isfinite(proba).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, rtol=1e-6)
    labels = model.predict(x)
    assert labels.min() >= 0
    assert (proba[np.arange(len(x)), labels] >= proba.max(axis=1) - 1e-5).all()
    if np.isfinite(densities).all():
        w = np.ones(len(x)) if weight is None else weight / weight.max()
        mean = float(w @ densities / w.sum())
        size = float(w @ np.abs(densities) / w.sum())
        assert abs(model.score(x, sample_weight=weight) - mean) <= 1e-6 * (1.0 + size)
        for criterion in (model.aic, model.bic, model.icl):
            assert np.isfinite(criterion(x))
    draws, of = model.sample(20, random_state=0)
    assert np.isfinite(draws).all()
    assert model.weights_[of].min() > 0.0


def ended(example):
    """Run one example; return how it ended. Anything but right or loud is an exception."""
    x, weight, options = example
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = GaussianMixture(random_state=0, **options)
        try:
            model.fit(x, sample_weight=weight)
        except FastgmmError as error:
            assert len(str(error)) > 20
            assert not hasattr(model, "mixture_")
            how = type(error).__name__
        else:
            check_parameters(model)
            check_methods(model, x, weight)
            names = {w.category.__name__ for w in caught} - {"ConvergenceWarning"}
            how = "right, " + " + ".join(sorted(names)) if names else "right"
    for warning in caught:
        assert issubclass(warning.category, errors.FastgmmWarning), warning.message
    return how


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("n", type=int, nargs="?", default=2000)
    parser.add_argument("seed", type=int, nargs="?", default=random.randrange(2**32))
    given_args = parser.parse_args()
    ends: Counter[str] = Counter()

    @seed(given_args.seed)
    @settings(
        max_examples=given_args.n,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(examples())
    def run(example):
        ends[ended(example)] += 1

    run()
    print(f"{sum(ends.values())} arrays, seed {given_args.seed}:")
    for how, count in ends.most_common():
        print(f"{count:7} {how}")


if __name__ == "__main__":
    main()
