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
    "random_state": "--seed",
    "sample_weight": "--weights",
}
"""Parameter of the library -> option of the shell."""

WORDS: Final = {"n_samples": "rows", "n_features": "columns"}
"""What scikit-learn's users call it -> what it is in a file."""

_NAME: Final = re.compile(rf"\b({'|'.join([*FLAGS, *WORDS])})\b(=(?:'([^']*)')?)?")


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
        name, equals, value = found.groups()
        if name in WORDS:
            return WORDS[name] + (equals or "")
        return FLAGS[name] if equals is None else f"{FLAGS[name]} {value or ''}"

    return _NAME.sub(option, text)
