"""Refuses a fit that cannot have its memory before it begins, rather than in the middle of the work.

Covariances decide: K D^2 numbers of the family `full`, of which a fit holds several sets at once (docs/memory.md).
Asking the system for as many bytes at once and giving them back untouched costs nothing, and a limit on the address
space or an allocation beyond all memory and swap is refused then and there.
"""

from __future__ import annotations

import math

import numpy as np

from fastgmm.covariance import Family

SETS = 6
"""Sets of covariances at the peak of a fit with one thread: parameters, start, factors, scatter, and four halves."""

ASK_FROM = 1 << 26
"""Bytes below which the system is not asked."""


def check_memory(family: Family, n_components: int, n_features: int) -> None:
    """Raise `MemoryError` with the size if the system refuses the memory of a fit.

    Parameters
    ----------
    family : Family
    n_components, n_features : int
        K and D.

    Raises
    ------
    MemoryError
        Naming the sizes and what to do.
    """
    needed = SETS * 8 * (math.prod(family.shape(n_components, n_features)) + n_components * n_features)
    if needed < ASK_FROM:
        return
    try:
        np.empty(needed, np.uint8)
    except (MemoryError, ValueError, OverflowError):  # ValueError: beyond what an array may have
        msg = (
            f"n_components={n_components} with covariance_type={family.name!r} and {n_features} features needs "
            f"{needed / 1e9:.3g} GB beside the rows of X, which the system refuses. Use fewer components, a "
            "covariance_type with fewer parameters, or a machine with more memory"
        )
        raise MemoryError(msg) from None
