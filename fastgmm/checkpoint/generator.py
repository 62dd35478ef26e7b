"""The state of NumPy's random generators as JSON, so that a resumed fit draws the numbers it would have drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from fastgmm.errors import InvalidParameterError

_BIT_GENERATORS: Final = {
    kind.__name__: kind
    for kind in (np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64)
}


def pack_generator(rng: np.random.Generator) -> dict[str, Any]:
    """Return the state of a generator; arrays become lists.

    Raises
    ------
    InvalidParameterError
        If its bit generator is not one of NumPy's, so that it cannot be made again.
    """
    state = rng.bit_generator.state
    if state["bit_generator"] not in _BIT_GENERATORS:
        msg = (
            f"random_state: a checkpoint needs one of NumPy's bit generators ({', '.join(_BIT_GENERATORS)}); "
            f"got {state['bit_generator']}"
        )
        raise InvalidParameterError(msg)
    packed = _plain(state)
    assert isinstance(packed, dict)
    return packed


def unpack_generator(packed: Mapping[str, Any]) -> np.random.Generator:
    """Return a new generator in the state that `pack_generator` packed.

    Raises
    ------
    KeyError, TypeError, ValueError
        If it is none.
    """
    generator = _BIT_GENERATORS[packed["bit_generator"]]()
    generator.state = _with_arrays(packed)
    return np.random.Generator(generator)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return [int(item) for item in value]
    return value if isinstance(value, str) else int(value)


def _with_arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_arrays(item) for key, item in value.items()}
    return np.array(value, dtype=np.uint64) if isinstance(value, list) else value
