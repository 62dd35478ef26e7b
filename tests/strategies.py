"""Hypothesis strategies shared by the property tests: mixtures, row weights, and awkward data.

Strategies draw a few integers and scales and let NumPy make the arrays: that shrinks well and covers the shapes that
matter, while arrays drawn number by number mostly test the float parser.
"""

import numpy as np
from hypothesis import strategies as st

from tests import reference

seeds = st.integers(0, 2**32 - 1)
offsets = st.sampled_from([0.0, 1.0, -1e3, 1e6])
scales = st.sampled_from([1e-6, 1.0, 1e5])
covariance_types = st.sampled_from(reference.TYPES)
scatter_kinds = st.sampled_from(["full", "pooled", "diag", "trace"])


def random_covariances(rng, covariance_type, n_components, n_features):
    """Well-conditioned covariances of about unit size."""

    def matrix():
        a = rng.normal(size=(n_features, n_features))
        return a @ a.T / n_features + 0.3 * np.eye(n_features)

    return {
        "full": lambda: np.array([matrix() for _ in range(n_components)]),
        "tied": matrix,
        "diag": lambda: rng.uniform(0.3, 2.0, (n_components, n_features)),
        "spherical": lambda: rng.uniform(0.3, 2.0, n_components),
    }[covariance_type]()


@st.composite
def mixtures(draw, max_components=4, max_features=4, types=covariance_types):
    """A `reference.Parameters` with a few components."""
    rng = np.random.default_rng(draw(seeds))
    n_components, n_features = draw(st.integers(1, max_components)), draw(st.integers(1, max_features))
    covariance_type = draw(types)
    scale, offset = draw(scales), draw(offsets)
    covariances = random_covariances(rng, covariance_type, n_components, n_features) * scale**2
    means = scale * (rng.normal(scale=3.0, size=(n_components, n_features)) + offset)
    weights = rng.dirichlet(np.full(n_components, 2.0))
    return reference.Parameters(weights, means, covariances, covariance_type)


@st.composite
def weighted_rows(draw, max_rows=40, max_features=4, max_components=4):
    """Rows (N, D), responsibilities (N, K), row weights (N,); some rows weigh nothing, some components have no rows."""
    rng = np.random.default_rng(draw(seeds))
    n, d, k = draw(st.integers(1, max_rows)), draw(st.integers(1, max_features)), draw(st.integers(1, max_components))
    scale, offset = draw(scales), draw(offsets)
    x = scale * (rng.normal(size=(n, d)) + offset)
    r = rng.dirichlet(np.full(k, 0.5), size=n)
    if draw(st.booleans()) and k > 1:
        r[:, 0] = 0.0
        r /= np.maximum(r.sum(axis=1, keepdims=True), 1e-300)
    w = rng.uniform(0.1, 3.0, n)
    if draw(st.booleans()):
        w[rng.random(n) < 0.3] = 0.0
    return x, r, w


@st.composite
def awkward_rows(draw):
    """Data that break fragile fits: duplicates, constant and collinear columns, offsets, few rows."""
    rng = np.random.default_rng(draw(seeds))
    n, d = draw(st.integers(2, 40)), draw(st.integers(1, 4))
    x = rng.normal(size=(n, d))
    kind = draw(st.sampled_from(["plain", "duplicates", "constant", "collinear", "lumps", "outlier"]))
    if kind == "duplicates":
        x[n // 2 :] = x[0]
    elif kind == "constant":
        x[:, -1] = 3.25
    elif kind == "collinear":
        x[:, -1] = 2.0 * x[:, 0]
    elif kind == "lumps":
        x = np.round(x)
    elif kind == "outlier":
        x[0] = 1e6
    return draw(scales) * (x + draw(offsets))
