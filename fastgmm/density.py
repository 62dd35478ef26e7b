"""What a data pass reads: the weighted log-density of every component in a form made for speed.

For a row x the log of component k's term is::

    log_norm[k] - 1/2 | W_k (x - means[k]) |^2 ,    W_k Sigma_k W_k' = I

and `factor` holds W_k in the form that its kind needs. A Gaussian mixture builds one from its parameters
(`fastgmm.covariance.density`); any other model with quadratic log-densities (variational Bayes, for one) can build its
own and use the same passes.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastgmm.typing import Float64Array

KINDS: dict[str, str] = {
    "chol": "(K, D, D): W_k, lower triangular, the inverse of the lower Cholesky factor of Sigma_k",
    "shared_chol": "(D, D): one W for all components",
    "diag": "(K, D): the inverse standard deviations",
    "scalar": "(K,): the inverse standard deviation of every feature",
}
"""Factor kinds and what `Density.factor` holds for each."""


@dataclass(frozen=True, slots=True, eq=False)
class Density:
    """Weighted component log-densities for a data pass.

    Attributes
    ----------
    kind : str
        A key of `KINDS`.
    means : ndarray (K, D) float64
    factor : ndarray float64
        Shape by `kind`; entries above the diagonal of a triangular factor are zero.
    log_norm : ndarray (K,) float64
        log pi_k + log det W_k - D/2 log 2 pi, nats; -inf where pi_k is 0.
    log_weights : ndarray (K,) float64
        log pi_k, nats; -inf where pi_k is 0.
    """

    kind: str
    means: Float64Array
    factor: Float64Array
    log_norm: Float64Array
    log_weights: Float64Array

    @property
    def n_components(self) -> int:
        """Number of components K."""
        return int(self.means.shape[0])

    @property
    def n_features(self) -> int:
        """Number of features D."""
        return int(self.means.shape[1])
