"""The table of degenerate input (`python -m tests.tools.degenerate_table`), every cell of it."""

import numpy as np
import pytest

from fastgmm import GaussianMixture
from tests.tools import degenerate_table as table
from tests.tools.degenerate_rows import KINDS, ROWS, X


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_cell_ends_as_the_table_says(row):
    for kind in KINDS:
        for dtype in row.dtypes:
            assert table.run(row, kind, dtype) == table.expected(row, kind, dtype), (kind, dtype)


def test_the_checks_notice_wrong_models():
    """Each check can fail: against means that are a little off, a covariance that is not symmetric, a NaN."""
    for kind in KINDS:
        model = GaussianMixture(3, covariance_type=kind, random_state=0).fit(X)
        table.check_methods(model, X, X)
        with pytest.raises(AssertionError):
            table.check_methods(model, X * (1.0 + 1e-9), X)
        other = GaussianMixture.from_parameters(
            model.weights_, model.means_ + 1.0, model.covariances_, kind, random_state=0
        )
        other._dtype = model._dtype
        with pytest.raises(AssertionError):
            table.check_far(other, X)
    plain = ROWS[0]
    with pytest.raises(AssertionError):
        table.check_against_harmless(model, plain, "spherical", X * 1.01)


def test_anything_undocumented_is_noticed():
    def warns():
        np.float64(1e300) * np.float64(1e300)

    with pytest.raises(AssertionError, match="overflow"):
        table.call(warns)
    with pytest.raises(ZeroDivisionError):
        table.call(lambda: 1 / 0)
