"""Everything an estimator of mixtures does once it holds a mixture; how it came by it does not matter here."""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from fastgmm import __version__, covariance, passes
from fastgmm.data import write_results
from fastgmm.em import FitResult, StartRecord
from fastgmm.errors import FastgmmWarning
from fastgmm.estimators._arrays import FittedArray
from fastgmm.estimators._sklearn import SklearnEstimator, naming_bad_values
from fastgmm.mixture import Mixture
from fastgmm.online import OnlineState
from fastgmm.typing import Array, Float64Array, IntArray
from fastgmm.validation import check_integer, check_random_state


class _Scores(NamedTuple):
    """Sums over the rows of a data set, in the user's own unit of weight."""

    log_likelihood: float
    log_map: float
    total_weight: float
    mean: float
    """Log-likelihood per unit of weight; finite even where the sums of huge weights are not."""


SAFE_VARIANCES = (1e-24, 1e24)
"""Within this range a float32 pass may square the deviations of rows, even of outliers."""


def out_of_float32(variance: Float64Array) -> bool:
    """Whether squares of data with these variances leave the range of float32, so that passes must use float64."""
    if SAFE_VARIANCES[0] <= variance.min() and variance.max() <= SAFE_VARIANCES[1]:
        return False
    positive = variance[variance > 0.0]
    return bool(positive.size and not (positive.min() >= SAFE_VARIANCES[0] and positive.max() <= SAFE_VARIANCES[1]))


class FittedMixture(SklearnEstimator):
    """Prediction, scores and draws; the base of the estimators.

    Attributes
    ----------
    mixture_ : Mixture
        Set, with the others, by `_adopt`.
    """

    weights_ = FittedArray("weights")
    means_ = FittedArray("means")
    covariances_ = FittedArray("covariances")
    precisions_ = FittedArray("precisions")
    precisions_cholesky_ = FittedArray("precisions_cholesky")

    mixture_: Mixture
    result_: FitResult | None
    starts_: tuple[StartRecord, ...]
    converged_: bool
    n_iter_: int
    lower_bound_: float
    lower_bounds_: list[float]
    online_: OnlineState | None
    random_state: Any
    _dtype: np.dtype[Any]

    @overload
    def predict(self, X: Any, *, out: None = None) -> IntArray: ...
    @overload
    def predict(self, X: Any, *, out: str | os.PathLike[str]) -> Path: ...
    def predict(self, X: Any, *, out: str | os.PathLike[str] | None = None) -> IntArray | Path:
        """Return the most probable component of each row, (N,) int64; the first one wins a tie.

        Parameters
        ----------
        X : array-like (N, D), a table, a path, or what `fastgmm.open_rows` returns
        out : str or os.PathLike, optional
            Write the labels to this file instead, as they are computed, so that memory does not grow with N: ``.npy``,
            ``.parquet`` (column label) or ``.csv``. The file is complete or not there.

        Returns
        -------
        ndarray (N,) int64, or Path
            The path of the file if `out` is given.

        Raises
        ------
        NotFittedError, InvalidDataError
        """
        rows = self._rows(X)
        if out is not None:
            density = self.mixture_.density
            return write_results(out, rows, lambda piece: passes.predict(piece, density), ["label"])
        with naming_bad_values(rows):
            return passes.predict(rows, self.mixture_.density)

    @overload
    def predict_proba(self, X: Any, *, out: None = None) -> Float64Array: ...
    @overload
    def predict_proba(self, X: Any, *, out: str | os.PathLike[str]) -> Path: ...
    def predict_proba(self, X: Any, *, out: str | os.PathLike[str] | None = None) -> Float64Array | Path:
        """Return the posterior probability of each component for each row, (N, K).

        Parameters
        ----------
        X : array-like (N, D), a table, a path, or what `fastgmm.open_rows` returns
        out : str or os.PathLike, optional
            Write them to this file instead, as they are computed, so that memory does not grow with N: ``.npy``,
            ``.parquet`` (columns p0, p1, ...) or ``.csv``. The file is complete or not there.

        Returns
        -------
        ndarray (N, K) float64, or Path
            The path of the file if `out` is given.

        Raises
        ------
        NotFittedError, InvalidDataError
        """
        rows = self._rows(X)
        if out is not None:
            density = self.mixture_.density
            names = [f"p{k}" for k in range(density.n_components)]
            return write_results(out, rows, lambda piece: passes.predict_proba(piece, density), names)
        with naming_bad_values(rows):
            return passes.predict_proba(rows, self.mixture_.density)

    @overload
    def score_samples(self, X: Any, *, out: None = None) -> Float64Array: ...
    @overload
    def score_samples(self, X: Any, *, out: str | os.PathLike[str]) -> Path: ...
    def score_samples(self, X: Any, *, out: str | os.PathLike[str] | None = None) -> Float64Array | Path:
        """Return the log-density of each row, (N,), nats.

        Parameters
        ----------
        X : array-like (N, D), a table, a path, or what `fastgmm.open_rows` returns
        out : str or os.PathLike, optional
            Write them to this file instead, as they are computed, so that memory does not grow with N: ``.npy``,
            ``.parquet`` (column log_density) or ``.csv``. The file is complete or not there.

        Returns
        -------
        ndarray (N,) float64, or Path
            The path of the file if `out` is given.

        Raises
        ------
        NotFittedError, InvalidDataError
        """
        rows = self._rows(X)
        if out is not None:
            density = self.mixture_.density
            return write_results(out, rows, lambda piece: passes.score_samples(piece, density), ["log_density"])
        with naming_bad_values(rows):
            return passes.score_samples(rows, self.mixture_.density)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:  # noqa: ARG002 - scikit-learn passes it
        """Return the mean log-density of the rows, nats per unit of row weight; larger is better.

        Parameters
        ----------
        X : array-like (N, D), a table, a path, or what `fastgmm.open_rows` returns
        y : object
            Ignored.
        sample_weight : array-like (N,) or number, optional

        Raises
        ------
        NotFittedError, InvalidDataError
        """
        return self._scores(X, sample_weight).mean

    def aic(self, X: Any, sample_weight: Any = None) -> float:
        """Return Akaike's information criterion, -2 log L + 2 p; smaller is better.

        Parameters
        ----------
        X : array-like (N, D), a table, a path, or what `fastgmm.open_rows` returns
        sample_weight : array-like (N,) or number, optional

        Raises
        ------
        NotFittedError, InvalidDataError
        """
        return -2.0 * self._scores(X, sample_weight).log_likelihood + 2.0 * self._n_parameters()

    def bic(self, X: Any, sample_weight: Any = None) -> float:
        """Return the Bayesian information criterion, -2 log L + p log n; smaller is better.

        n is the sum of the weights: a weight of 2 counts as two rows. Weights that are no counts should be scaled so
        that they sum to the number of rows.

        Parameters
        ----------
        X : array-like (N, D), a table, a path, or what `fastgmm.open_rows` returns
        sample_weight : array-like (N,) or number, optional

        Raises
        ------
        NotFittedError, InvalidDataError
        """
        scores = self._scores(X, sample_weight)
        return -2.0 * scores.log_likelihood + self._n_parameters() * math.log(scores.total_weight)

    def icl(self, X: Any, sample_weight: Any = None) -> float:
        """Return the integrated completed likelihood, BIC - 2 sum_i log max_k r_ik; smaller is better.

        Parameters
        ----------
        X : array-like (N, D), a table, a path, or what `fastgmm.open_rows` returns
        sample_weight : array-like (N,) or number, optional

        Raises
        ------
        NotFittedError, InvalidDataError
        """
        scores = self._scores(X, sample_weight)
        bic = -2.0 * scores.log_likelihood + self._n_parameters() * math.log(scores.total_weight)
        return bic - 2.0 * scores.log_map

    def sample(self, n_samples: int = 1, random_state: Any = None) -> tuple[Float64Array, IntArray]:
        """Draw rows from the fitted mixture.

        Parameters
        ----------
        n_samples : int, default 1
        random_state : None, int, Generator, SeedSequence or RandomState
            None takes the constructor's, so that with an integer there every call returns the same rows.

        Returns
        -------
        X : ndarray (n_samples, D) float64
            Grouped by component.
        y : ndarray (n_samples,) int64
            The component of each row.

        Raises
        ------
        NotFittedError, InvalidParameterError
        """
        self._check_is_fitted()
        n_samples = check_integer(n_samples, "n_samples", minimum=1)
        rng = check_random_state(self.random_state if random_state is None else random_state)
        return self.mixture_.sample(n_samples, rng, grouped=True)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if "_arrays" in state:
            state["_arrays"] = {}  # made again when asked for
        return {**state, "_fastgmm_version": __version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        version = state.pop("_fastgmm_version", "unknown")
        if version != __version__:
            msg = (
                f"this {type(self).__name__} was pickled by fastgmm {version} and is read by {__version__}, which may "
                "not work: pickles are for the same version. Exchange models with fastgmm.save and fastgmm.load"
            )
            warnings.warn(msg, FastgmmWarning, stacklevel=2)
        self.__dict__.update(state)

    def _adopt(
        self,
        mixture: Mixture,
        dtype: np.dtype[Any],
        result: FitResult | None = None,
        records: tuple[StartRecord, ...] = (),
    ) -> None:
        """Take over the outcome of a fit, or parameters from elsewhere."""
        self.mixture_ = mixture
        self.result_ = result
        self.starts_ = records
        self.n_features_in_ = mixture.n_features
        self.converged_ = result is None or result.converged
        self.n_iter_ = 0 if result is None else result.n_iter
        self.lower_bound_ = math.nan if result is None else result.lower_bound
        self.online_ = None
        self.lower_bounds_ = [] if result is None else [r.log_likelihood / result.total_weight for r in result.history]
        self._dtype = dtype
        family = covariance.FAMILIES[mixture.covariance_type]
        variances = family.variances(mixture.covariances, mixture.n_components, mixture.n_features)
        self._pass_dtype = np.dtype(np.float64) if out_of_float32(variances) else None
        self._arrays: dict[str, Array] = {}

    def _adopt_online(self, mixture: Mixture, dtype: np.dtype[Any], state: OnlineState) -> None:
        """Take over the outcome of a batch: there is no likelihood of all rows, and no end."""
        self._adopt(mixture, dtype)
        self.converged_ = False
        self.n_iter_ = state.n_batches
        self.online_ = state

    def _scores(self, X: Any, sample_weight: Any) -> _Scores:
        rows = self._rows(X, sample_weight, weighted=True)
        with naming_bad_values(rows, weightable=True):
            stats = passes.accumulate(
                rows,
                self.mixture_.density,
                covariance.FAMILIES[self.mixture_.covariance_type].scatter,
                moments=False,
            )
        unit = 1.0 / rows.weight_scale
        return _Scores(
            stats.log_likelihood * unit,
            stats.log_map * unit,
            rows.total_weight * unit,
            stats.log_likelihood / rows.total_weight,
        )

    def _n_parameters(self) -> int:
        """Count the free parameters; scikit-learn's users call this one."""
        self._check_is_fitted()
        return self.mixture_.n_parameters
