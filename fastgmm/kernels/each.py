"""Launches of what is done to each matrix of a large model between two passes: a matrix is an item."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastgmm.kernels import arguments as a
from fastgmm.kernels._jit import Body, compile_block, launch, n_threads
from fastgmm.kernels.schedule import LAUNCH_SECONDS, SERIAL_SECONDS

FROM = 1 << 16  # entries of all matrices; below, calls and compilation are not worth it and NumPy does the same


def launch_each(body: Body, dtype: str, table: npt.NDArray[np.int64], k: int, seconds: float) -> None:
    """Do K matrices, each of which takes so many seconds, as many in a launch as Ctrl-C may wait for."""
    workers = 1 if k == 1 or k * seconds < SERIAL_SECONDS else n_threads()
    count = max(int(workers * LAUNCH_SECONDS / seconds), workers)
    code = compile_block(body, dtype)
    for begin in range(0, k, count):
        table[a.FIRST_BLOCK] = begin
        launch(code, table, min(count, k - begin), workers)
