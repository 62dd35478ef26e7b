"""Where EM starts from: methods by name, and whatever a user gives. Read `start` first, then `methods`.

Every start is a proper one: weights sum to one, covariances have the scale of the data around the means, and a
translation or a change of unit of the data changes the start in the same way and nothing else.
"""

from __future__ import annotations

from fastgmm.initialize.methods import METHODS
from fastgmm.initialize.places import poorly_fitted
from fastgmm.initialize.sample import RowSample, draw_sample
from fastgmm.initialize.start import Start, check_start, starting_params

__all__ = ["METHODS", "RowSample", "Start", "check_start", "draw_sample", "poorly_fitted", "starting_params"]
