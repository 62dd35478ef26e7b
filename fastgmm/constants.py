"""Every number that is not 0, 1, 2 or a half, with its unit and its reason."""

from __future__ import annotations

import math
from typing import Final

EPS: Final = 2.0**-52
"""Spacing of float64 at 1."""

LOG_2PI: Final = math.log(2.0 * math.pi)
"""log(2 pi), nats."""


EMPTY_FRACTION: Final = 10.0 * EPS
"""A component whose rows weigh no more than this fraction of all the rows is empty: its mean and covariance would be
quotients of rounding errors, so it keeps the ones it had. (scikit-learn adds ten eps to each weight instead.)"""

PIVOT_TOLERANCE: Final = 10.0 * EPS
"""Times D: the smallest 1 - R^2 of a feature given the features before it that moments in float64 can resolve. A
Cholesky pivot relatively below it is a rounding error with a sign, so the covariance counts as singular."""

PIVOT_TOLERANCE_FLOAT32: Final = 4.0 * 2.0**-23
"""The same, not times D, for moments that are summed in float32, a tile of rows at a time: so large is their noise."""

RESOLUTION: Final = 4.0 * EPS
"""Times |mean|: a standard deviation at or below it is the rounding of the mean, not a spread of rows. It is how a
component that sits on one row (or on copies of one row) looks when the data lie far from the origin."""

FLOOR_FRACTION: Final = 1e-6
"""First variance floor of a collapsed component, as a fraction of the data's variance: what scikit-learn's default
``reg_covar`` is for data of unit variance, but without its dependence on the unit of measurement."""

FLOOR_GROWTH: Final = 10.0
"""Factor by which the floor grows until the covariance can be factorised."""

MONOTONE_RTOL: Final = 1e-9
"""Fall of the log-likelihood, relative to its size, up to which an EM step counts as monotone (rounding)."""

MONOTONE_RTOL_FLOAT32: Final = 1e-6
"""The same for passes over float32 rows, whose log-densities carry errors of about 1e-7."""

SYMMETRY_RTOL: Final = 1e-8
"""Largest asymmetry of a given covariance relative to its largest entry; more is an error of the caller's."""

WEIGHT_SUM_ATOL: Final = 1e-6
"""How far given mixture weights may sum from one before they are refused; float32 weights of a stored model pass."""

SMALL_COVARIANCES_BYTES: Final = 1 << 22
"""Up to here EM keeps the last iteration's covariances for its monotone check; above, memory matters more."""

RESEEDS_PER_COMPONENT: Final = 3
"""How often ``degenerate="reseed"`` starts one component again; a component that dies three times will die again."""

RESEEDS_PER_FIT: Final = 100
"""The same for all components together, so that a mixture far too large for its data still comes to an end soon."""

POORLY_FITTED: Final = 0.05
"""Part of the data, by weight, with the lowest density: one of these rows is where a component is started again."""
