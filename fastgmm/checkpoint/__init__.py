"""Checkpoints of a fit: stop at any moment, go on later, and get the bits of a fit that never stopped.

`Checkpoint` says where and how often; `store` writes and reads files so that a crash at any moment, also inside a
write, loses nothing that was there; `snapshot` is what a file holds; `generator` keeps the state of a random generator.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = ["Checkpoint"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a fit keeps its checkpoints, and how often it writes one.

    One is also written after the first pass over the data, at the end of the fit, and when the fit is interrupted by
    Ctrl-C or any other exception. The last two are kept.

    Parameters
    ----------
    path : str or os.PathLike
        A directory of its own for one fit; made if it does not exist.
    every_seconds : float, default 30
        Least time between two checkpoints, seconds. Where writing one takes long, it is twenty times that, so that
        checkpoints cost at most about 5 % of the time of a fit.
    every_iterations : int, optional
        Write one after every so many iterations as well.

    Examples
    --------
    >>> from fastgmm import Checkpoint
    >>> Checkpoint("fit-of-monday", every_seconds=600)
    Checkpoint(path='fit-of-monday', every_seconds=600, every_iterations=None)
    """

    path: str | os.PathLike[str]
    every_seconds: float = 30.0
    every_iterations: int | None = None
