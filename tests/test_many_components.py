"""Moments of so many full components that products are formed for a tile of rows at once."""

import numpy as np
import pytest

from fastgmm import covariance, passes
from fastgmm.data import as_rows
from fastgmm.kernels import arguments as a
from fastgmm.kernels import products, programs
from fastgmm.kernels.full import near_full_block
from fastgmm.params import Params
from tests.passhelp import check, make_rows, rng_for

MANY = programs.WHOLE_TILE_COMPONENTS


def overlapping(k, d):
    """Parameters of which every row belongs to most components."""
    rng = rng_for(k, d)
    roots = np.eye(d) + 0.2 * rng.normal(size=(k, d, d)) / np.sqrt(d)
    means = 0.3 * rng.normal(size=(k, d)) + 5.0
    return Params(rng.dirichlet(np.full(k, 5.0)), means, roots @ roots.transpose(0, 2, 1), "full")


def program_of(params, dtype):
    return passes._build(covariance.density(params), np.dtype(dtype))[0]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("k", "d"), [(MANY, 8), (MANY, 16), (MANY + 1, 24), (MANY, 48), (MANY - 1, 8), (MANY + 9, 9)])
def test_many_components(k, d, weighted):
    params = overlapping(k, d)
    x = make_rows(params, 500)
    weight = rng_for(k).uniform(0.0, 2.0, len(x)) if weighted else None
    family = covariance.family("full")
    check(passes.accumulate(as_rows(x, weight), covariance.density(params), family.scatter), x, params, weight)


@pytest.mark.parametrize("d", [8, 16, 24, 32, 40, 48])
def test_extended_rows_of_a_tile_have_room(d):
    given = program_of(overlapping(MANY, d), np.float64).numbers
    assert given[a.SHARED] == a.BY_PRODUCTS
    assert given[a.EXTRA] == a.TILE * products.extended_length(d, 8) * 8


@pytest.mark.parametrize(
    ("k", "d", "dtype"), [(MANY - 1, 8, np.float64), (MANY, 9, np.float64), (MANY, 16, np.float32)]
)
def test_other_passes_ask_for_no_such_room(k, d, dtype):
    program = program_of(overlapping(k, d), dtype)
    assert program.body is near_full_block
    assert a.EXTRA not in program.numbers
