"""The library's messages in the words of the shell: its users typed ``-k 300``, not ``n_components=300``."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["FLAGS", "for_shell"]

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

    for phrase, instead in PHRASES.items():
        text = text.replace(phrase, instead)
    return _NAME.sub(option, text)
