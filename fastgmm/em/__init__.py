"""Expectation maximisation, without a row in sight.

`account` holds the values that describe a fit, `loop` the algorithm, `care` what happens to components that empty or
collapse, `packing` the same values as JSON and arrays.
"""

from __future__ import annotations

from fastgmm.em.account import (
    ComponentEvent,
    FitResult,
    FitState,
    FitStatus,
    IterationInfo,
    IterationRecord,
    StartRecord,
)
from fastgmm.em.care import DEGENERATE, Places
from fastgmm.em.loop import Accumulate, fit_em

__all__ = [
    "DEGENERATE",
    "Accumulate",
    "ComponentEvent",
    "FitResult",
    "FitState",
    "FitStatus",
    "IterationInfo",
    "IterationRecord",
    "Places",
    "StartRecord",
    "fit_em",
]
