"""The same model from the same data, whatever their precision, container and layout, and however many threads."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import fastgmm
from fastgmm import GaussianMixture
from tests.test_estimator import TYPES, X


@pytest.mark.parametrize("name", TYPES)
def test_float32(name):
    model = GaussianMixture(3, covariance_type=name, random_state=0).fit(X.astype(np.float32) + np.float32(1e3))
    for attribute in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        assert getattr(model, attribute).dtype == np.float32
    assert model.mixture_.means.dtype == np.float64
    assert model.result_.events == ()  # rounding is no decrease
    reference = GaussianMixture(3, covariance_type=name, random_state=0).fit(X.astype(np.float32) + 1e3)
    np.testing.assert_allclose(model.covariances_, reference.covariances_, rtol=1e-3, atol=1e-3)


def test_float32_data_whose_variances_are_no_float32():
    for factor in (1e25, 1e-25):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", fastgmm.DegenerateDataWarning)
            model = GaussianMixture(3, random_state=0).fit((X * factor).astype(np.float32))
        variances = np.diagonal(model.covariances_, axis1=1, axis2=2)
        expected = GaussianMixture.from_parameters(model.weights_, model.means_, model.covariances_)
        data = (X * factor).astype(np.float32)
        np.testing.assert_array_equal(model.predict(data), expected.predict(data.astype(np.float64)))
        assert ((variances > 0.1 * factor**2) & (variances < 10 * factor**2)).all()


@pytest.mark.parametrize(
    "container",
    [
        lambda x: x.tolist(),
        np.asfortranarray,
        lambda x: x.astype(">f8"),
        lambda x: pd.DataFrame(x),
        lambda x: pl.DataFrame(x),
        lambda x: pa.table({"a": x[:, 0], "b": x[:, 1]}),
    ],
)
def test_containers_give_the_same_model(container):
    data = container(X)
    model = GaussianMixture(3, random_state=0).fit(data)
    np.testing.assert_array_equal(model.means_, GaussianMixture(3, random_state=0).fit(X).means_)
    np.testing.assert_array_equal(model.predict(data), model.mixture_.predict(X))


def test_read_only_memory_maps(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    model = GaussianMixture(3, random_state=0).fit(mapped)
    np.testing.assert_array_equal(model.means_, GaussianMixture(3, random_state=0).fit(X).means_)


def test_large_data_in_any_layout_give_the_same_bits():
    big = np.random.default_rng(0).normal(size=(700_000, 3)) + np.arange(700_000)[:, None] % 3 * 5.0
    settings = {"n_components": 3, "max_iter": 3, "tol": 0.0, "random_state": 0}
    weight = np.arange(700_000) % 2
    for w in (None, weight):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", fastgmm.ConvergenceWarning)
            a = GaussianMixture(**settings).fit(big, sample_weight=w)
            b = GaussianMixture(**settings).fit(np.asfortranarray(big), sample_weight=w)
        np.testing.assert_array_equal(a.covariances_, b.covariances_)
        assert a.lower_bound_ == b.lower_bound_


@pytest.mark.parametrize("name", TYPES)
def test_the_number_of_threads_does_not_change_a_bit(name):
    import numba

    data = np.random.default_rng(0).normal(size=(200_000, 4)) + np.arange(200_000)[:, None] % 5 * 2.0
    threads = numba.get_num_threads()
    for method in ("kmeans", "random", "random_from_data", np.arange(200_000) % 4):
        fits = []
        for n in sorted({1, 2, threads}):
            if n > threads:
                continue
            numba.set_num_threads(n)
            try:
                model = GaussianMixture(4, covariance_type=name, init_params=method, random_state=0, tol=1e-2)
                fits.append(model.fit(data).covariances_)
            finally:
                numba.set_num_threads(threads)
        for other in fits[1:]:
            np.testing.assert_array_equal(fits[0], other)
