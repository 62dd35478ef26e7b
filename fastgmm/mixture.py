"""A Gaussian mixture as a probability distribution: a frozen value with densities, posteriors and draws."""

from __future__ import annotations

import html
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fastgmm import covariance, passes
from fastgmm.density import Density
from fastgmm.errors import InvalidDataError
from fastgmm.params import Params
from fastgmm.typing import Float64Array, IntArray, RowSource
from fastgmm.validation import check_integer, check_random_state

_SHOWN = 10
"""Components and features that a printed table shows."""


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Mixture:
    """The distribution sum_k weights[k] N(means[k], Sigma_k).

    Parameters
    ----------
    weights : array-like (K,)
        Non-negative, summing to one within 1e-6.
    means : array-like (K, D)
    covariances : array-like
        full (K, D, D), tied (D, D), diag (K, D), spherical (K,).
    covariance_type : {"full", "tied", "diag", "spherical"}, or mclust's "VVV", "EEE", "VVI", "VII"

    Raises
    ------
    InvalidParameterError
        If these do not describe a mixture; the message says which and why.
    SingularCovarianceError
        By methods that need a density, if a covariance is not positive definite to working precision.

    Notes
    -----
    Arrays are float64, copied on the way in and read-only.

    Examples
    --------
    >>> import numpy as np
    >>> m = Mixture([0.5, 0.5], [[0.0], [4.0]], [1.0, 1.0], "spherical")
    >>> m.logpdf([[2.0]]).round(4)
    array([-2.9189])
    >>> x, z = m.sample(5, random_state=0)
    >>> x.shape, z.shape
    ((5, 1), (5,))
    """

    params: Params

    def __init__(self, weights: Any, means: Any, covariances: Any, covariance_type: str = "full") -> None:
        params = covariance.make_params(weights, means, covariances, covariance_type)
        object.__setattr__(self, "params", params)

    @classmethod
    def from_params(cls, params: Params, density: Density | None = None) -> Mixture:
        """Wrap parameters that are known to be sound, such as those of a fit, and their density if it is at hand.

        Nothing is checked or copied.
        """
        self = object.__new__(cls)
        object.__setattr__(self, "params", params)
        if density is not None:
            self.__dict__["density"] = density
        return self

    def __getstate__(self) -> dict[str, Params]:
        return {"params": self.params}  # not the cached density: it is as large as the parameters

    @property
    def weights(self) -> Float64Array:
        """Mixing proportions, (K,)."""
        return self.params.weights

    @property
    def means(self) -> Float64Array:
        """Component means, (K, D)."""
        return self.params.means

    @property
    def covariances(self) -> Float64Array:
        """Covariances in the shape of `covariance_type`."""
        return self.params.covariances

    @property
    def covariance_type(self) -> str:
        """Covariance family."""
        return self.params.covariance_type

    @property
    def n_components(self) -> int:
        """Number of components K."""
        return self.params.n_components

    @property
    def n_features(self) -> int:
        """Number of features D."""
        return self.params.n_features

    @property
    def n_parameters(self) -> int:
        """Number of free parameters: weights, means and covariances; BIC and AIC count these."""
        return covariance.n_parameters(self.covariance_type, self.n_components, self.n_features)

    @property
    def covariances_dense(self) -> Float64Array:
        """Every covariance in full, (K, D, D); a new array."""
        return self._family.dense(self.covariances, self.n_components, self.n_features)

    @property
    def precisions(self) -> Float64Array:
        """Inverse covariances, in the shape of the covariances; a new array."""
        return self._family.precisions(self.covariances)

    @property
    def precisions_cholesky(self) -> Float64Array:
        """Upper triangular U with precision U U' (scikit-learn's definition), 1/std for diag and spherical; new."""
        return self._family.precisions_cholesky(self.covariances)

    @property
    def _family(self) -> covariance.Family:
        return covariance.FAMILIES[self.covariance_type]

    @cached_property
    def density(self) -> Density:
        """What a data pass reads; made once."""
        return covariance.density(self.params)

    def _rows(self, X: Any) -> RowSource:
        from fastgmm.data import StreamRows, as_rows  # beside this module, not below it

        rows = as_rows(X)
        if isinstance(rows, StreamRows):
            rows = rows.unweighted()
        if rows.n_features != self.n_features:
            msg = f"X must have {self.n_features} features, as the mixture has; got {rows.n_features}"
            raise InvalidDataError(msg)
        return rows

    def logpdf(self, X: Any) -> Float64Array:
        """Log-density of each row.

        Parameters
        ----------
        X : array-like (N, D), or a table

        Returns
        -------
        ndarray (N,) float64
            Nats; it may be positive, for a density is no probability. -inf only where float64 cannot hold the number.

        Raises
        ------
        InvalidDataError
            If X has another number of features, or holds NaN or infinities.

        Notes
        -----
        log sum_k exp(log pi_k - 1/2 log det(2 pi Sigma_k) - 1/2 (x - mu_k)' Sigma_k^-1 (x - mu_k)), summed about the
        largest term.
        """
        return passes.score_samples(self._rows(X), self.density)

    def pdf(self, X: Any) -> Float64Array:
        """Density of each row, (N,); underflows to 0 far out, where `logpdf` does not.

        Parameters
        ----------
        X : array-like (N, D), or a table

        Raises
        ------
        InvalidDataError
            As `logpdf`.
        """
        with np.errstate(over="ignore", under="ignore"):
            result: Float64Array = np.exp(self.logpdf(X))
        return result

    def responsibilities(self, X: Any) -> Float64Array:
        """Posterior probability of each component for each row, (N, K); rows sum to one.

        A row so far out that no density is representable goes to the component nearest in scaled distance.

        Parameters
        ----------
        X : array-like (N, D), or a table

        Raises
        ------
        InvalidDataError
            As `logpdf`.
        """
        return passes.predict_proba(self._rows(X), self.density)

    def predict(self, X: Any) -> IntArray:
        """Most probable component of each row, (N,) int64; the first one wins a tie.

        Parameters
        ----------
        X : array-like (N, D), or a table

        Raises
        ------
        InvalidDataError
            As `logpdf`.
        """
        return passes.predict(self._rows(X), self.density)

    def sample(
        self, n_samples: int = 1, random_state: Any = None, *, grouped: bool = False
    ) -> tuple[Float64Array, IntArray]:
        """Draw rows and the components they come from (ancestral sampling: first z, then x given z).

        Parameters
        ----------
        n_samples : int
            At least 0.
        random_state : None, int, SeedSequence, Generator, BitGenerator or RandomState
        grouped : bool
            Return the rows in the order of their components, as scikit-learn does. By default they come in random
            order: independent draws, of which any part is again a sample.

        Returns
        -------
        x : ndarray (n_samples, D) float64
        z : ndarray (n_samples,) int64

        Raises
        ------
        InvalidParameterError
            If `n_samples` is not an integer >= 0, or `random_state` is none of the above.
        """
        n_samples = check_integer(n_samples, "n_samples", minimum=0)
        rng = check_random_state(random_state)
        counts = rng.multinomial(n_samples, self.weights)
        z = np.repeat(np.arange(self.n_components), counts)
        if not grouped:
            rng.shuffle(z)
        x = np.empty((n_samples, self.n_features))
        for k in np.flatnonzero(counts):
            draws = self._family.colorize(self.covariances, int(k), rng.standard_normal((counts[k], self.n_features)))
            draws += self.means[k]
            x[z == k] = draws
        return x, z.astype(np.int64, copy=False)

    def __repr__(self) -> str:
        lines = [
            f"Mixture(n_components={self.n_components}, n_features={self.n_features}, "
            f"covariance_type={self.covariance_type!r})"
        ]
        header, rows = self._table()
        table = [header, *rows]
        widths = [max(len(row[i]) for row in table) for i in range(len(header))]
        lines += ["  " + "  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in table]
        if self.n_components > _SHOWN:
            lines.append(f"  ... and {self.n_components - _SHOWN} components more")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        header, rows = self._table()
        head = "".join(f"<th>{html.escape(c)}</th>" for c in header)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows)
        more = self.n_components - _SHOWN
        note = f"<p>… and {more} components more</p>" if more > 0 else ""
        caption = (
            f"Gaussian mixture, {self.n_components} components, {self.n_features} features, "
            f"{html.escape(self.covariance_type)} covariance"
        )
        return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"

    def _table(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows of a table: weight, mean and standard deviation of the first components and features."""
        shape = self.means.shape
        std = np.sqrt(np.broadcast_to(self._family.variances(self.covariances, *shape), shape))

        def listed(values: Float64Array) -> str:
            text = ", ".join(f"{v:.4g}" for v in values[:_SHOWN])
            return text + (", …" if len(values) > _SHOWN else "")

        rows = [
            [str(k), f"{self.weights[k]:.4f}", listed(self.means[k]), listed(std[k])]
            for k in range(min(self.n_components, _SHOWN))
        ]
        return ["component", "weight", "mean", "std"], rows
