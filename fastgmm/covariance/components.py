"""Mixtures with components taken out or put elsewhere; for the care of degenerate components."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastgmm.params import Params
from fastgmm.pieces import piecewise
from fastgmm.typing import Float64Array


def take(params: Params, keep: Sequence[int], *, shared: bool) -> Params:
    """Return the mixture of the components `keep` alone, weights summing to one again.

    Parameters
    ----------
    params : Params
    keep : sequence of int
        At least one.
    shared : bool
        Whether all components have one covariance.
    """
    index = list(keep)
    weights = params.weights[index]
    total = weights.sum()
    weights = weights / total if total > 0.0 else np.full(len(index), 1.0 / len(index))
    covariances = params.covariances if shared else params.covariances[index]
    return Params(weights, params.means[index], covariances, params.covariance_type)


def place(
    params: Params, components: Sequence[int], means: Float64Array, models: Sequence[int], *, shared: bool
) -> Params:
    """Return the mixture with `components` put elsewhere.

    They get the weight 1 / K each, and the average covariance of the components `models` by weight.

    Parameters
    ----------
    params : Params
    components : sequence of int
    means : ndarray (n, D)
        One for each of `components`.
    models : sequence of int
        Sound components, at least one; not used where the covariance is shared.
    shared : bool
    """
    index, k = list(components), params.n_components
    weights = params.weights.copy()
    weights[index] = 0.0
    total = weights.sum()
    weights *= (1.0 - len(index) / k) / total if total > 0.0 else 0.0
    weights[index] = 1.0 / k
    positions = params.means.copy()
    positions[index] = means
    covariances = params.covariances
    if not shared:
        among = list(models)
        share = params.weights[among]
        share = share / share.sum()
        covariances = piecewise(np.copy, covariances)
        covariances[index] = np.einsum("k,k...->...", share, params.covariances[among])
    return Params(weights / weights.sum(), positions, covariances, params.covariance_type)
