"""The library's messages in the words of the shell: its users typed ``-k 300``, not ``n_components=300``."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["FLAGS", "bad_value", "for_shell"]

FLAGS: Final = {
    "n_components": "-k",
    "covariance_type": "--covariance",
    "init_params": "--init",
    "n_init": "--n-init",
    "tol": "--tol",
    "max_iter": "--max-iter",
    "reg_covar": "--reg-covar",
    "reg_scale": "--reg-scale",
    "first_passes": "--first-passes",
    "max_time": "--max-time",
    "random_state": "--seed",
    "sample_weight": "--weights",
}
"""Parameter of the library -> option of the shell."""

WORDS: Final = {"n_samples": "rows", "n_features": "columns"}
"""What scikit-learn's users call it -> what it is in a file."""

ASSIGNED: Final = {"degenerate": "--degenerate", "checkpoint": "--checkpoint", "resume": "--resume"}
"""Parameters whose names are words of English too: they are meant only where a value follows."""

PHRASES: Final = {
    "go on from here with warm_start=True, or with resume=True if it has a checkpoint": "go on with --resume if it has"
    " a --checkpoint",
    "resume=True": "--resume",
    "checkpoint must be": "--checkpoint must be",
}
"""What the library recommends and the shell does not have -> what to say instead."""

_BAD_VALUE: Final = re.compile(
    r"X must hold finite numbers only; row (\d+) \(from 0\), which is (row (\d+).*?) of (.+), column ('.+'|\d+) is"
    r" (NaN|-?infinity|missing) .*"
)
_BAD_WEIGHT: Final = re.compile(r"row \d+ \(from 0\), which is (row \d+.*? of .+), is")

_VALUES: Final = {
    "NaN": "nan is no number",
    "infinity": "inf is no number",
    "-infinity": "-inf is no number",
    "missing": "the value is missing",
}

_NAME: Final = re.compile(
    rf"\b({'|'.join([*FLAGS, *WORDS])})\b(=(?:'([^']*)')?)?|\b({'|'.join(ASSIGNED)})=(?:'([^']*)')?"
)


def for_shell(text: str) -> str:
    """Replace parameters by options.

    Parameters
    ----------
    text : str
        A message of the library.

    Returns
    -------
    str

    Examples
    --------
    >>> for_shell("Use covariance_type='diag', or n_components=3.")
    'Use --covariance diag, or -k 3.'
    """

    def option(found: re.Match[str]) -> str:
        name, equals, value, assigned, assignment = found.groups()
        if assigned is not None:
            return f"{ASSIGNED[assigned]} {assignment or ''}"
        if name in WORDS:
            return WORDS[name] + (equals or "")
        return FLAGS[name] if equals is None else f"{FLAGS[name]} {value or ''}"

    text = _BAD_WEIGHT.sub(r"\1 is", _BAD_VALUE.sub(_bad_value, text))
    for phrase, instead in PHRASES.items():
        text = text.replace(phrase, instead)
    return _NAME.sub(option, text)


def bad_value(source: str, place: str, within: int, overall: int, column: str, what: str) -> str:
    """Say that a value cannot be used.

    Parameters
    ----------
    source, place : str
        The file, and where in it, such as "row 3 (line 4)".
    within, overall : int
        Numbers of the row in the file and in all files, from 1; the second is told if it is another one.
    column : str
        Such as "column 'a'".
    what : str
        What is wrong with the value.

    Returns
    -------
    str
        A sentence.
    """
    from fastgmm.data.formats import REMEDY  # NumPy is not loaded for --help

    more = f", row {overall} of all files" if overall != within else ""
    return f"{source}, {place}{more}, {column}: {what}; {REMEDY}"


def _bad_value(found: re.Match[str]) -> str:
    """Rewrite the library's message about a value in a file: rows and columns count from 1 here."""
    overall, place, within, source, column, kind = found.groups()
    column = str(int(column) + 1) if column.isdigit() else column
    return bad_value(source, place, int(within), int(overall) + 1, f"column {column}", _VALUES[kind])
