"""Tables for people: plain text that lines up, in ASCII, no wider than a terminal where that can be helped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from fastgmm.covariance import FAMILIES
from fastgmm.mixture import Mixture
from fastgmm.selection import CRITERIA, Candidate, SelectionResult
from fastgmm.typing import Float64Array

__all__ = ["align", "count", "describe_mixture", "describe_selection"]

MOST_COMPONENTS: Final = 30
MOST_FEATURES: Final = 6


def align(rows: Sequence[Sequence[str]], *, left: int = 0) -> str:
    """Line up the cells of a table.

    Parameters
    ----------
    rows : sequence of sequences of str
        Cells; all rows of one length.
    left : int, default 0
        Number of columns, from the first, that are aligned to the left instead of the right.

    Returns
    -------
    str
        One line a row, without a line break at the end.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if j < left else cell.rjust(width)
            for j, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def count(number: int, noun: str) -> str:
    """Say how many: "1 feature", "2 features", "2 batches"."""
    plural = noun + ("es" if noun.endswith("ch") else "s")
    return f"{number} {noun if number == 1 else plural}"


def describe_mixture(mixture: Mixture, names: Sequence[str] | None) -> str:
    """Describe every component by its weight and, for each feature, mean and standard deviation.

    Parameters
    ----------
    mixture : Mixture
        What to describe; the first components and features, where there are many.
    names : sequence of str, or None
        Names of the features.

    Returns
    -------
    str
        A table.
    """
    n_features = min(mixture.n_features, MOST_FEATURES)
    labels = [f"x{j + 1}" for j in range(n_features)] if names is None else list(names[:n_features])
    shown = min(mixture.n_components, MOST_COMPONENTS)
    rows = [["component", "weight", *(f"{label} (std)" for label in labels)]]
    std = _standard_deviations(mixture, n_features)
    rows += [
        [
            str(k),
            f"{mixture.weights[k]:.4f}",
            *(f"{_digits(mixture.means[k, j], 4)} ({_digits(std[k, j], 3)})" for j in range(n_features)),
        ]
        for k in range(shown)
    ]
    text = align(rows)
    if shown < mixture.n_components:
        text += f"\n... and {count(mixture.n_components - shown, 'more component')}"
    if n_features < mixture.n_features:
        text += f"\n... and {count(mixture.n_features - n_features, 'more feature')}"
    return text


def describe_selection(result: SelectionResult, criteria: Sequence[str] = CRITERIA) -> str:
    """Show each criterion as a table of components by covariance type.

    Parameters
    ----------
    result : SelectionResult
        The search.
    criteria : sequence of {"bic", "aic", "icl"}
        Which tables to show; the one that decided comes first.

    Returns
    -------
    str
        Tables with a line that explains the marks in use.
    """
    ordered = sorted(criteria, key=lambda name: name != result.criterion)
    types = list(dict.fromkeys(c.covariance_type for c in result.candidates))
    counts = sorted({c.n_components for c in result.candidates})
    found = {(c.n_components, c.covariance_type): c for c in result.candidates}
    deciding = result.criterion.upper()
    best = f"best by {deciding}" if len(ordered) == 1 else f"best by the criterion of its table; {deciding} decides"
    marks = {"*": best}
    tables = []
    for criterion in ordered:
        winner = replace(result, criterion=criterion).ranked()[0]
        rows = [[criterion.upper(), *types]]
        for k in counts:
            cells = [_cell(found.get((k, name)), criterion, winner, marks) for name in types]
            rows.append([f"K = {k}", *cells])
        tables.append(align(rows, left=1))
    legend = "; ".join(f"{mark} {meaning}" for mark, meaning in marks.items())
    return "\n\n".join([*tables, f"Smaller is better. {legend}"])


def _cell(candidate: Candidate | None, criterion: str, winner: Candidate, marks: dict[str, str]) -> str:
    """Format one value with its mark, and note what it means; blanks keep the numbers in line."""
    if candidate is None:
        return "- "
    value = getattr(candidate, criterion)
    mark, meaning = " ", ""
    if candidate is winner:
        mark = "*"
    elif candidate.error:
        mark, meaning = "!", "could not be fitted"
    elif candidate.degenerate:
        mark, meaning = "d", "has a component without rows or with a variance held up by the floor"
    elif not candidate.converged:
        mark, meaning = "?", "did not converge"
    if meaning:
        marks[mark] = meaning
    return f"{'-' if math.isnan(value) else f'{value:.2f}'}{mark}"


def _digits(value: float, n: int) -> str:
    """Format with `n` significant digits, zeros at the end included: 6.00 says more than 6."""
    return f"{value:#.{n}g}".removesuffix(".")


def _standard_deviations(mixture: Mixture, n_features: int) -> Float64Array:
    """Return the standard deviations of the first features in each component, (K, n_features)."""
    variances = FAMILIES[mixture.covariance_type].variances(mixture.covariances, *mixture.means.shape)
    return np.asarray(np.sqrt(np.broadcast_to(variances, mixture.means.shape)[:, :n_features]))
