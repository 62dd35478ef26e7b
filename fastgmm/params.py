"""The parameters of a Gaussian mixture as a frozen value."""

from __future__ import annotations

from dataclasses import dataclass

from fastgmm.typing import Float64Array


@dataclass(frozen=True, slots=True, eq=False)
class Params:
    """Weights, means and covariances of K Gaussians in D dimensions.

    The constructor trusts its arguments and takes the arrays over: it makes them read-only and copies nothing.
    `fastgmm.covariance.make_params` is the checked, copying way in.

    Parameters
    ----------
    weights : ndarray (K,) float64
        Mixing proportions, >= 0, summing to one. A component that lost its rows may have weight 0.
    means : ndarray (K, D) float64
    covariances : ndarray float64
        In the family's shape: full (K, D, D), tied (D, D), diag (K, D), spherical (K,).
    covariance_type : str
        Canonical family name, a key of `fastgmm.covariance.FAMILIES`.

    Examples
    --------
    >>> import numpy as np
    >>> p = Params(np.array([0.5, 0.5]), np.array([[0.0], [4.0]]), np.ones(2), "spherical")
    >>> p.n_components, p.n_features
    (2, 1)
    """

    weights: Float64Array
    means: Float64Array
    covariances: Float64Array
    covariance_type: str

    def __post_init__(self) -> None:
        self.weights.setflags(write=False)
        self.means.setflags(write=False)
        self.covariances.setflags(write=False)

    @property
    def n_components(self) -> int:
        """Number of components K."""
        return int(self.means.shape[0])

    @property
    def n_features(self) -> int:
        """Number of features D."""
        return int(self.means.shape[1])
