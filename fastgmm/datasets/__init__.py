"""Small real data sets, in the package as CSV files.

`load_faithful` is the one the README, the examples and ``fastgmm demo`` use.
"""

from importlib.resources import files

import numpy as np

from fastgmm.typing import FloatArray

__all__ = ["FAITHFUL_COLUMNS", "load_faithful"]

FAITHFUL_COLUMNS = ("eruptions", "waiting")
"""Names of the columns `load_faithful` returns."""


def __dir__() -> list[str]:
    return __all__


def load_faithful() -> FloatArray:
    """Load 272 eruptions of the Old Faithful geyser in Yellowstone National Park.

    The data have two clear groups: a short eruption is followed by a short wait, a long one by a long wait.

    Returns
    -------
    ndarray of shape (272, 2), float64
        A new array. Column 0, ``eruptions``: duration of the eruption in minutes. Column 1, ``waiting``: time until the
        next eruption in minutes. The names are in `FAITHFUL_COLUMNS`.

    References
    ----------
    Azzalini, A. and Bowman, A. W. (1990). A look at some data on the Old Faithful geyser. Applied Statistics 39,
    357-365. doi:10.2307/2347385. The file is R's ``datasets::faithful``.

    Examples
    --------
    >>> import fastgmm.datasets
    >>> fastgmm.datasets.load_faithful().shape
    (272, 2)
    """
    with files(__package__).joinpath("faithful.csv").open(encoding="utf-8") as file:
        return np.loadtxt(file, delimiter=",", skiprows=1, dtype=np.float64)
