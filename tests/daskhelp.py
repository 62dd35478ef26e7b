"""Small clusters on this machine, and data for them."""

import logging
from contextlib import contextmanager

import dask
import dask.array as da
import numpy as np
from distributed import Client, LocalCluster

import fastgmm


def make_data(n=60_017, d=3, seed=0):
    """Three clusters in random order, and weights of which some are 0."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.normal(m, 1.0, (n // 3 + 1, d)) for m in (-4.0, 0.0, 4.0)])[:n]
    rng.shuffle(x)
    weight = rng.uniform(0.1, 2.0, n)
    weight[rng.random(n) < 0.1] = 0.0
    return x, weight


def made_chunk(number, n, d):
    """Rows that any worker can make again."""
    return make_data(n, d, seed=number)[0]


def generated(lengths, d=3):
    """A dask array whose chunks are made on the workers."""
    make = dask.delayed(made_chunk)
    return da.concatenate([da.from_delayed(make(i, n, d), (n, d), float) for i, n in enumerate(lengths)])


def model(family, **parameters):
    """A fit that takes all of its iterations."""
    settings = {"covariance_type": family, "random_state": 0, "max_iter": 4, "tol": 0.0, **parameters}
    return Unwarned(3, **settings)


class Unwarned(fastgmm.GaussianMixture):
    """Does not mind that max_iter ends its fits."""

    def _fit(self, *args, **kwargs):
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", fastgmm.ConvergenceWarning)
            return super()._fit(*args, **kwargs)


def assert_same_bits(one, other):
    for name in ("weights_", "means_", "covariances_"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), name
    assert one.lower_bound_ == other.lower_bound_
    assert one.lower_bounds_ == other.lower_bounds_


@contextmanager
def local(n_workers, *, threads=1, processes=True):
    """A client of so many worker processes, or of workers in this process."""
    quiet = logging.ERROR
    with (
        LocalCluster(
            n_workers=n_workers,
            threads_per_worker=threads,
            processes=processes,
            dashboard_address=":0",
            silence_logs=quiet,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
