"""Where a component that died is started again: at a row that the mixture fits poorly.

1. Not at the worst row, which is as likely as not an outlier on which the component would collapse again, but at one
   of the worst twentieth, chosen by random numbers that depend on nothing but the fit's random state and on how many
   components were started again before.
2. Several at a time are placed far from each other, in standard deviations of the features.
3. Only the sample that starts are made from is looked at, so it costs no pass over the data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from fastgmm import covariance, passes
from fastgmm.constants import POORLY_FITTED
from fastgmm.data import ArrayRows
from fastgmm.initialize.sample import RowSample
from fastgmm.params import Params
from fastgmm.typing import Float64Array

FEWEST = 8
"""Rows to choose from, where there are as many."""


def poorly_fitted(sample: RowSample, rng: np.random.Generator) -> Callable[[Params, int, int], Float64Array]:
    """Return the function `places` of a fit, see `fastgmm.em.care.Places`.

    Parameters
    ----------
    sample : RowSample
    rng : numpy.random.Generator
        The fit's, as it is now; no number is drawn from it.
    """
    seed = int.from_bytes(hashlib.sha256(repr(rng.bit_generator.state).encode()).digest(), "little")

    def places(params: Params, n: int, attempt: int) -> Float64Array:
        chooser = np.random.default_rng([seed, attempt])
        worst = _worst(params, sample, n)
        spread = np.sqrt(sample.variance) * (1.0 / sample.unit)
        z = sample.z[worst] * np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0.0)
        chosen = [int(chooser.integers(len(worst)))]
        distance = np.full(len(worst), np.inf)
        while len(chosen) < n:
            distance = np.minimum(distance, np.square(z - z[chosen[-1]]).sum(axis=1))
            chosen.append(int(np.argmax(distance)))
        return np.asarray(sample.origin + sample.unit * sample.z[worst[chosen]].astype(np.float64))

    return places


def _worst(params: Params, sample: RowSample, n: int) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
    """Return the numbers of the rows of the sample with the lowest densities, at least `n` where there are."""
    scale = 1.0 / sample.unit
    means = (params.means - sample.origin) * scale
    scaled = Params(params.weights, means, params.covariances * scale * scale, params.covariance_type)
    # After an M-step some other component may have collapsed, which nobody has looked at yet.
    scaled, _ = covariance.repair(scaled, sample.variance * scale * scale)
    log_density = passes.score_samples(ArrayRows(sample.z, None), covariance.density(scaled))
    order = np.argsort(log_density, kind="stable")
    weight = np.ones(len(order)) if sample.weight is None else sample.weight[order]
    below = np.cumsum(weight)
    count = int(np.searchsorted(below, POORLY_FITTED * below[-1]))
    return order[: max(count, FEWEST, n)]
