"""Model selection: fit every pair of component count and covariance type, compare, keep the best.

The criteria have scikit-learn's sign: smaller is better.
"""

from __future__ import annotations

import html
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fastgmm import covariance
from fastgmm.data import Rows, as_rows, opened
from fastgmm.em import FitResult
from fastgmm.errors import (
    ConvergenceWarning,
    DegenerateComponentWarning,
    InvalidParameterError,
    SingularCovarianceError,
)
from fastgmm.estimators.gaussian import GaussianMixture
from fastgmm.validation import check_choice, check_integer

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
"""Families that are compared unless others are named."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One model of a search.

    Attributes
    ----------
    n_components : int
    covariance_type : str
    n_parameters : int
    log_likelihood : float
        Nats, summed over rows; NaN if the model could not be fitted.
    bic, aic, icl : float
        Smaller is better; NaN if the model could not be fitted.
    converged : bool
    n_iter : int
    degenerate : bool
        A component lost its rows, or some components sit on so few distinct rows that only `reg_covar` or the variance
        floor holds them up: the likelihood is then no measure of the fit.
    error : str
        Why the model could not be fitted; empty if it could.
    """

    n_components: int
    covariance_type: str
    n_parameters: int
    log_likelihood: float
    bic: float
    aic: float
    icl: float
    converged: bool
    n_iter: int
    degenerate: bool
    error: str


CRITERIA = ("bic", "aic", "icl")
"""Valid names of ``criterion``; each is an attribute of `Candidate`."""

_COLUMNS = ("n_components", "covariance_type", "n_parameters", "log_likelihood", "bic", "aic", "icl", "converged")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SelectionResult:
    """All models of a search, and the best of them.

    Attributes
    ----------
    criterion : str
        What `best` minimises.
    candidates : tuple of Candidate
        In the order of the search: by covariance type, then by number of components.
    best : Candidate
    best_model : GaussianMixture
        The fitted model of `best`.
    """

    criterion: str
    candidates: tuple[Candidate, ...]
    best: Candidate
    best_model: GaussianMixture

    def ranked(self) -> tuple[Candidate, ...]:
        """Return the candidates from the best to the worst; failed and degenerate ones come last."""
        return tuple(sorted(self.candidates, key=lambda c: _rank(c, self.criterion)))

    def as_rows(self) -> list[dict[str, Any]]:
        """Return the candidates as dictionaries: what a table library takes, ``pandas.DataFrame(result.as_rows())``."""
        names = (*_COLUMNS, "n_iter", "degenerate", "error")
        return [{name: getattr(c, name) for name in names} for c in self.candidates]

    def __repr__(self) -> str:
        table = [("", *_COLUMNS), *(self._line(c) for c in self.ranked())]
        widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in table]
        return f"SelectionResult by {self.criterion}, smaller is better:\n" + "\n".join(lines)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("", *_COLUMNS))
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in self._line(c)) + "</tr>" for c in self.ranked()
        )
        return f"<table><caption>by {self.criterion}, smaller is better</caption><tr>{head}</tr>{body}</table>"

    def _line(self, c: Candidate) -> tuple[str, ...]:
        mark = "*" if c is self.best else "failed" if c.error else "degenerate" if c.degenerate else ""
        values = [getattr(c, name) for name in _COLUMNS]
        return (mark, *(f"{v:.3f}" if isinstance(v, float) else str(v) for v in values))


def select_model(
    X: Any,
    n_components: int | Iterable[int] = range(1, 10),
    covariance_types: str | Sequence[str] = COVARIANCE_TYPES,
    criterion: str = "bic",
    *,
    sample_weight: Any = None,
    callback: Callable[[Candidate, int, int], object] | None = None,
    **params: Any,
) -> SelectionResult:
    """Fit every pair of component count and covariance type, and choose by an information criterion.

    Parameters
    ----------
    X : array-like (N, D), a table, a path, or what `fastgmm.open_rows` returns
    n_components : int or iterable of int, default 1 to 9
    covariance_types : str or sequence of str, default all
    criterion : {"bic", "aic", "icl"}, default "bic"
        bic = -2 log L + p log n; aic = -2 log L + 2 p; icl = bic - 2 sum_i log max_k r_ik, which also asks for
        components that do not overlap. Smaller is better. n is the sum of the weights.
    sample_weight : array-like (N,), optional
    callback : callable, optional
        Called after each model with ``(candidate, done, total)``; a true result ends the search with what there is.
    **params
        Parameters of `GaussianMixture`, such as ``random_state``, ``n_init``, ``tol``. An integer `random_state` gives
        every model the same random numbers.

    Returns
    -------
    SelectionResult

    Raises
    ------
    InvalidParameterError, InvalidDataError
        If an argument is not valid, or no model could be fitted.

    Notes
    -----
    A degenerate model (see `Candidate`) is listed but chosen only if there is no other. Fits that do not converge are
    listed with ``converged=False``, not warned about one by one.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = np.vstack([rng.normal(-4.0, 1.0, (200, 2)), rng.normal(4.0, 1.0, (100, 2))])
    >>> result = select_model(X, range(1, 4), ["full", "spherical"], random_state=0)
    >>> result.best.n_components, result.best.covariance_type
    (2, 'spherical')
    """
    counts = _counts(n_components)
    types = [covariance_types] if isinstance(covariance_types, str) else list(covariance_types)
    if not types:
        msg = "covariance_types must name at least one covariance type; got none"
        raise InvalidParameterError(msg)
    names = list(dict.fromkeys(covariance.family(name).name for name in types))
    check_choice(criterion, "criterion", CRITERIA)
    X = opened(X)
    rows = as_rows(X, sample_weight)  # checked and normalised once for all fits
    pairs = [(k, name) for name in names for k in counts]
    candidates: list[Candidate] = []
    complaints: dict[str, type[Warning]] = {}
    best: tuple[Candidate, GaussianMixture] | None = None
    for done, (k, name) in enumerate(pairs, start=1):
        model = GaussianMixture(**{**params, "n_components": k, "covariance_type": name})
        candidate = _fit(model, X, sample_weight, rows, complaints)
        candidates.append(candidate)
        if not candidate.error and (best is None or _rank(candidate, criterion) < _rank(best[0], criterion)):
            best = candidate, model
        if callback is not None and callback(candidate, done, len(pairs)):
            break
    for text, category in complaints.items():
        warnings.warn(text, category, stacklevel=2)
    if best is None:
        msg = f"no model could be fitted; the first error was: {candidates[0].error}"
        raise InvalidParameterError(msg)
    return SelectionResult(criterion, tuple(candidates), *best)


def _fit(
    model: GaussianMixture, data: Any, sample_weight: Any, rows: Rows, complaints: dict[str, type[Warning]]
) -> Candidate:
    """Fit one model and describe it; add to `complaints` what is to be said about the data, once for all models."""
    if model.n_components > rows.n_rows:
        return _failed(model, rows, f"more components than the {rows.n_rows} rows of X")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model._fit(data, sample_weight, None, rows=rows)
    except SingularCovarianceError as error:
        return _failed(model, rows, str(error))
    for warning in caught:
        # Columns of the table say what these two would say for every model.
        if not issubclass(warning.category, ConvergenceWarning | DegenerateComponentWarning):
            complaints[str(warning.message)] = warning.category
    return describe(model, rows)


def describe(model: GaussianMixture, rows: Rows) -> Candidate:
    """Describe a model by what it was fitted to.

    Parameters
    ----------
    model : GaussianMixture
        Fitted, not made of given parameters.
    rows : row source
        ``as_rows(X, sample_weight)`` of its fit; no row is read.
    """
    result = model.result_
    assert isinstance(result, FitResult)  # after fit
    log_likelihood = result.log_likelihood / rows.weight_scale
    n, p = rows.total_weight / rows.weight_scale, model.mixture_.n_parameters
    bic = -2.0 * log_likelihood + p * math.log(n)
    return Candidate(
        n_components=model.n_components,
        covariance_type=model.covariance_type,
        n_parameters=p,
        log_likelihood=log_likelihood,
        bic=bic,
        aic=-2.0 * log_likelihood + 2.0 * p,
        icl=bic - 2.0 * result.log_map / rows.weight_scale,
        converged=result.converged,
        n_iter=result.n_iter,
        degenerate=bool(result.empty or result.collapsed) or 0 < len(model._flat) < model.n_components,
        error="",
    )


def _failed(model: GaussianMixture, rows: Rows, error: str) -> Candidate:
    p = covariance.n_parameters(model.covariance_type, model.n_components, rows.n_features)
    nan = math.nan
    return Candidate(model.n_components, model.covariance_type, p, nan, nan, nan, nan, False, 0, False, error)


def _rank(candidate: Candidate, criterion: str) -> tuple[bool, bool, float]:
    """Sort key: sound models by the criterion, then degenerate ones, then failed ones."""
    value = getattr(candidate, criterion)
    return bool(candidate.error), candidate.degenerate, value if not math.isnan(value) else math.inf


def _counts(n_components: int | Iterable[int]) -> list[int]:
    """Return the numbers of components to try, each once."""
    given = list(n_components) if isinstance(n_components, Iterable) else [n_components]
    if not given:
        msg = "n_components must name at least one number of components; got none"
        raise InvalidParameterError(msg)
    return list(dict.fromkeys(check_integer(k, "n_components", minimum=1) for k in given))
