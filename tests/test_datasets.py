"""The packaged data sets are complete and are what their documentation says."""

import csv
from importlib.resources import files

import numpy as np

from fastgmm import datasets


def test_faithful_has_the_published_moments():
    x = datasets.load_faithful()
    assert x.shape == (272, 2)
    assert x.dtype == np.float64
    assert x.flags.c_contiguous
    # R: colMeans(faithful) and sapply(faithful, sd)
    np.testing.assert_allclose(x.mean(axis=0), [3.487783, 70.897059], rtol=1e-6)
    np.testing.assert_allclose(x.std(axis=0, ddof=1), [1.141371, 13.594974], rtol=1e-6)
    assert x[0].tolist() == [3.6, 79.0]


def test_each_call_returns_a_new_writable_array():
    first = datasets.load_faithful()
    first[:] = 0
    assert datasets.load_faithful()[0, 0] == 3.6


def test_column_names_are_those_of_the_file():
    with files("fastgmm.datasets").joinpath("faithful.csv").open(encoding="utf-8") as file:
        assert tuple(next(csv.reader(file))) == datasets.FAITHFUL_COLUMNS
