"""Checks of arguments that are not data: numbers, choices, flags, random states.

Each check returns the value in the type the library works with and raises `InvalidParameterError` otherwise; every
message has the same parts: parameter, what is expected, what came.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np

from fastgmm.errors import InvalidParameterError


def check_integer(value: Any, name: str, *, minimum: int) -> int:
    """Return `value` as an int that is at least `minimum`.

    Raises
    ------
    InvalidParameterError
        If it is not an integer (a bool is none) or too small.

    Examples
    --------
    >>> check_integer(3, "n_components", minimum=1)
    3
    """
    if type(value) is int and value >= minimum:  # what is nearly always given, at a tenth of the time of the rest
        return value
    if isinstance(value, bool | np.bool_) or not isinstance(value, Integral) or value < minimum:
        msg = f"{name} must be an integer >= {minimum}; got {value!r}"
        raise InvalidParameterError(msg)
    return int(value)


def check_number(value: Any, name: str, *, minimum: float) -> float:
    """Return `value` as a finite float that is at least `minimum`.

    Raises
    ------
    InvalidParameterError
        If it is not a real number (a bool is none), not finite, or too small.

    Examples
    --------
    >>> check_number(1e-3, "tol", minimum=0.0)
    0.001
    """
    if type(value) is float and minimum <= value < math.inf:
        return value
    if (
        isinstance(value, bool | np.bool_)
        or not isinstance(value, Real)
        or not math.isfinite(value)
        or not float(value) >= minimum
    ):
        msg = f"{name} must be a finite number >= {minimum:g}; got {value!r}"
        raise InvalidParameterError(msg)
    return float(value)


def check_choice(value: Any, name: str, choices: Iterable[str], *, also: str = "") -> str:
    """Return `value` if it is one of `choices`.

    Parameters
    ----------
    value : object
        What the user gave.
    name : str
        Of the parameter.
    choices : iterable of str
        The valid values.
    also : str
        Other things that are accepted, for the message.

    Raises
    ------
    InvalidParameterError
        Naming all choices.
    """
    valid = tuple(choices)
    if not isinstance(value, str) or value not in valid:
        msg = f"{name} must be one of {', '.join(map(repr, valid))}{also}; got {value!r}"
        raise InvalidParameterError(msg)
    return value


def check_flag(value: Any, name: str) -> bool:
    """Return `value` as a bool; 0 and 1 are no bools.

    Raises
    ------
    InvalidParameterError
        If it is neither True nor False.
    """
    if not isinstance(value, bool | np.bool_):
        msg = f"{name} must be True or False; got {value!r}"
        raise InvalidParameterError(msg)
    return bool(value)


def check_verbosity(value: Any, name: str = "verbose") -> int:
    """Return a level of verbosity: a bool or an integer >= 0.

    Raises
    ------
    InvalidParameterError
        If it is neither.
    """
    if isinstance(value, bool | np.bool_):
        return int(value)
    return check_integer(value, name, minimum=0)


def check_random_state(random_state: Any, name: str = "random_state") -> np.random.Generator:
    """Return a NumPy Generator for what scikit-learn users call a random state.

    Parameters
    ----------
    random_state : None, int, numpy.random.SeedSequence, Generator, BitGenerator or RandomState
        None gives fresh entropy. A Generator is used as it is, so it moves on. A RandomState (or the module
        ``numpy.random``) seeds a Generator with numbers drawn from it, so it moves on as well.
    name : str
        Of the parameter.

    Raises
    ------
    InvalidParameterError
        If it is something else, or a negative integer.
    """
    if isinstance(random_state, np.random.Generator):
        return random_state
    if random_state is np.random:
        random_state = np.random.mtrand._rand
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(0, 2**32, size=4, dtype=np.uint32))
    if isinstance(random_state, Integral) and not isinstance(random_state, bool | np.bool_) and int(random_state) >= 0:
        return np.random.default_rng(int(random_state))
    if random_state is None or isinstance(random_state, np.random.SeedSequence | np.random.BitGenerator):
        return np.random.default_rng(random_state)
    msg = (
        f"{name} must be None, an integer >= 0, or a numpy.random Generator, SeedSequence or RandomState; "
        f"got {random_state!r}"
    )
    raise InvalidParameterError(msg)
