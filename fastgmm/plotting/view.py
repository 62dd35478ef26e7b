"""What a picture shows: a mixture with its rows, in the features chosen or on its principal axes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from fastgmm.constants import LOG_2PI
from fastgmm.covariance import FAMILIES
from fastgmm.data import as_rows
from fastgmm.data import feature_names as column_names
from fastgmm.errors import InvalidDataError, InvalidParameterError
from fastgmm.mixture import Mixture
from fastgmm.typing import Float64Array, FloatArray, IntArray

MOST_FEATURES: Final = 8  # features up to which a pairs grid can be read


@dataclass(frozen=True)
class View:
    """What is drawn: a mixture with covariances in full, in the coordinates shown, and its rows.

    `means` (K, d), `covariances` (K, d, d), `x` (n, d) or None, `component` (n,) of each row, `names` d axis labels.
    """

    weights: Float64Array
    means: Float64Array
    covariances: Float64Array
    names: tuple[str, ...]
    title: str
    x: FloatArray | None
    component: IntArray | None

    @property
    def shown(self) -> list[int]:
        """Components with a weight, the heaviest first, so that small ones are drawn on top."""
        return [int(k) for k in np.argsort(-self.weights, kind="stable") if self.weights[k] > 0]

    def pick(self, features: Sequence[int]) -> View:
        """Keep some of the coordinates."""
        chosen = list(features)
        return replace(
            self,
            means=self.means[:, chosen],
            covariances=self.covariances[:, chosen][:, :, chosen],
            names=tuple(self.names[j] for j in chosen),
            x=None if self.x is None else self.x[:, chosen],
        )


def make_view(
    source: Any,
    X: Any,
    features: Sequence[int | str] | None,
    feature_names: Sequence[str] | None,
    max_points: int,
) -> View:
    """Collect what is drawn: `source` is a mixture or an estimator, the rest as in `plot_mixture`."""
    mixture: Mixture = source if isinstance(source, Mixture) else source.mixture_
    names = _names(source, X, feature_names, mixture.n_features)
    title = f"{mixture.covariance_type}, {mixture.n_components} component{'s' * (mixture.n_components != 1)}"
    x = component = None
    if X is not None:
        x, n_rows = _some_rows(X, max_points, mixture.n_features)
        component = mixture.predict(x)
        title += f", {n_rows:,} rows" if len(x) == n_rows else f", {len(x):,} of {n_rows:,} rows"
    if features is None and mixture.n_features > 2:
        matrix, origin, names = _principal_axes(mixture)
        means = (mixture.means - origin) @ matrix.T
        halves = [matrix @ half.T for half in _halves(mixture)]
        covariances = np.stack([half @ half.T for half in halves])
        x = None if x is None else (x - origin) @ matrix.T
    else:
        chosen = list(range(mixture.n_features)) if features is None else _positions(names, features)
        names = tuple(names[j] for j in chosen)
        means = mixture.means[:, chosen]
        family = FAMILIES[mixture.covariance_type]
        marginal = family.marginal(mixture.covariances, chosen)
        covariances = family.dense(marginal, mixture.n_components, len(chosen))
        x = None if x is None else x[:, chosen]
    return View(mixture.weights, means, covariances, names, title, x, component)


def _names(source: Any, X: Any, feature_names: Sequence[str] | None, n_features: int) -> tuple[str, ...]:
    """Return a label for each feature: given, of the estimator, of the table, or made up."""
    names = feature_names
    if names is None:
        names = getattr(source, "feature_names_in_", None)
    if names is None and X is not None:
        names = column_names(X)
    if names is None:
        names = ["x"] if n_features == 1 else [f"feature {j}" for j in range(n_features)]
    if len(names) != n_features:
        msg = f"feature_names: expected {n_features} names, got {len(names)}."
        raise InvalidParameterError(msg)
    return tuple(str(name) for name in names)


def _some_rows(X: Any, max_points: int, n_features: int) -> tuple[FloatArray, int]:
    """Return at most `max_points` rows, and how many there are; reads one block at a time."""
    rows = as_rows(X)
    if rows.n_features != n_features:
        msg = f"X has {rows.n_features} features, but the mixture has {n_features}; give the columns it was fitted on."
        raise InvalidDataError(msg)
    # Own fixed generator: a picture of the same rows is always the same picture.
    if rows.n_rows > max_points:
        chosen = np.sort(np.random.default_rng(0).choice(rows.n_rows, max_points, replace=False))
    else:
        chosen = np.arange(rows.n_rows)
    pieces = []
    for block in rows.blocks(1):
        first, last = np.searchsorted(chosen, [block.first, block.first + len(block.x)])
        pieces.append(block.x[chosen[first:last] - block.first])
    return np.concatenate(pieces), rows.n_rows


def _principal_axes(mixture: Mixture) -> tuple[Float64Array, Float64Array, tuple[str, ...]]:
    """Return the matrix (2, D) onto the first two principal axes, their origin (D,), and their labels.

    Of the mixture's own covariance, for standardised features: units must not choose the axes.
    """
    mean = mixture.weights @ mixture.means
    spread = mixture.means - mean
    covariance = (spread.T * mixture.weights) @ spread
    for weight, half in zip(mixture.weights, _halves(mixture), strict=True):
        covariance += weight * (half.T @ half)
    scale = np.sqrt(np.diagonal(covariance))
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    axes = vectors[:, [-1, -2]].T
    axes = axes * np.where(axes.sum(axis=1, keepdims=True) < 0, -1.0, 1.0)  # eigh leaves the sign open
    shares = 100.0 * values[[-1, -2]] / values.sum()
    names = (f"principal axis {i} ({share:.0f} % of the variance)" for i, share in enumerate(shares, start=1))
    return axes / scale, mean, tuple(names)


def _halves(mixture: Mixture) -> Iterator[Float64Array]:
    """Yield C (D, D) with C' C = covariance, one component at a time: all of them in full may be very large."""
    family = FAMILIES[mixture.covariance_type]
    identity = np.eye(mixture.n_features)
    for k in range(mixture.n_components):
        yield family.colorize(mixture.covariances, k, identity)


def _positions(names: Sequence[str], features: Sequence[int | str]) -> list[int]:
    """Turn names and numbers of features into positions, or say which there are."""
    if not 1 <= len(features) <= MOST_FEATURES:
        msg = f"features: expected 1 to {MOST_FEATURES} features, got {len(features)}."
        raise InvalidParameterError(msg)
    positions = []
    for feature in features:
        if isinstance(feature, str) and feature in names:
            positions.append(names.index(feature))
        elif not isinstance(feature, str) and 0 <= feature < len(names):
            positions.append(int(feature))
        else:
            some = ", ".join(names[:20])
            msg = f"features: there is no {feature!r}; expected 0 to {len(names) - 1}, or names such as {some}."
            raise InvalidParameterError(msg)
    return positions


def limits_of(view: View, axis: int) -> tuple[float, float]:
    """Range of an axis: all rows drawn and nearly all of every component, with a margin."""
    shown = view.shown
    mean = view.means[shown, axis]
    reach = 3.04 * np.sqrt(np.maximum(view.covariances[shown, axis, axis], 0.0))  # where 99 % of a component ends
    ends = [mean - reach, mean + reach]
    if view.x is not None:
        ends.append(view.x[:, axis].astype(np.float64))
    low, high = min(float(end.min()) for end in ends), max(float(end.max()) for end in ends)
    margin = 0.03 * (high - low)
    if margin <= 1e-12 * max(abs(low), abs(high)):  # nothing to see, but an axis needs a width
        margin = max(abs(low), 1.0) * 1e-6
    return low - margin, high + margin


def log_densities(view: View, points: Float64Array) -> Float64Array:
    """Weighted log-density of each component at points (n, d), d = 1 or 2: (n, K).

    By eigenvalues, with the smallest kept away from zero: a picture of a nearly flat component is better than none.
    """
    n_shown = points.shape[1]
    result = np.full((len(points), len(view.weights)), -np.inf)
    for k in view.shown:
        std = np.sqrt(np.maximum(np.diagonal(view.covariances[k]), np.finfo(np.float64).tiny))
        values, vectors = np.linalg.eigh(view.covariances[k] / np.outer(std, std))
        values = np.maximum(values, 1e-14)
        z = ((points - view.means[k]) / std) @ (vectors / np.sqrt(values))
        log_det = 2.0 * np.log(std).sum() + np.log(values).sum()
        constant = math.log(view.weights[k]) - 0.5 * (log_det + n_shown * LOG_2PI)
        result[:, k] = constant - 0.5 * np.einsum("ij,ij->i", z, z)
    return result


def contour_levels(density: Float64Array, masses: Sequence[float]) -> Float64Array:
    """Densities whose contours enclose given shares of the mass on the grid, ascending and distinct."""
    ordered = np.sort(density, axis=None)[::-1]
    mass = np.cumsum(ordered)
    levels = np.unique(ordered[np.searchsorted(mass, np.asarray(masses) * mass[-1])])
    return np.asarray(levels[(levels > 0) & (levels < ordered[0])])
