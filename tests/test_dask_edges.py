"""Clusters that go away, workers that differ, and rows on them that are none: with clients that only pretend."""

import dask.array as da
import numpy as np
import pytest

import fastgmm
from fastgmm.dask import cluster as clusters
from fastgmm.dask import inputs, tasks
from fastgmm.dask.cluster import Cluster
from fastgmm.dask.lazy import values
from fastgmm.errors import (
    ClusterError,
    InvalidDataError,
    InvalidDataTypeError,
    InvalidParameterError,
    NonFiniteDataError,
)

X = np.random.default_rng(0).normal(size=(40, 2))


class Pretended:
    """A client of which no cluster knows."""

    status = "running"

    def __init__(self, *, comes_back=True, answer=None):
        self.comes_back, self.answer = comes_back, answer
        self.waited = []

    def wait_for_workers(self, n, timeout):
        self.waited.append((n, timeout))
        if not self.comes_back:
            raise TimeoutError

    def run(self, what, on_error):
        assert (what, on_error) == (tasks.describe_worker, "return")
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def failing(times, error=ConnectionError):
    """Work that fails so often, and then gives its number of calls."""
    calls = []

    def work():
        calls.append(1)
        if len(calls) <= times:
            raise error
        return len(calls)

    return work


def test_work_is_done_again_after_what_was_lost_is_made_again():
    client, recovered = Pretended(), []
    assert Cluster(client, {}).retried(failing(2), lambda: recovered.append(1)) == 3
    assert len(recovered) == 2
    assert client.waited == [(1, clusters.WAIT_SECONDS)] * 2
    assert Cluster(client, {}).retried(failing(1)) == 2


def test_a_client_that_was_closed_is_not_waited_for():
    client = Pretended()
    client.status = "closed"
    with pytest.raises(ClusterError, match="the Dask client was closed during the fit; make a new Client"):
        Cluster(client, {}).retried(failing(1))
    assert client.waited == []


def test_workers_that_keep_dying_end_the_fit():
    with pytest.raises(ClusterError, match=rf"lost {clusters.ATTEMPTS} times in the same pass, .*ConnectionError"):
        Cluster(Pretended(), {}).retried(failing(100))
    assert Cluster(Pretended(), {}).retried(failing(clusters.ATTEMPTS - 1)) == clusters.ATTEMPTS


def test_workers_that_stay_away_end_the_fit():
    with pytest.raises(ClusterError, match="all workers are gone, and none came back within 60 s; scale the cluster"):
        Cluster(Pretended(comes_back=False), {}).retried(failing(1))


def test_errors_of_the_work_itself_are_not_retried():
    client = Pretended()
    with pytest.raises(ZeroDivisionError):
        Cluster(client, {}).retried(failing(1, ZeroDivisionError))
    assert client.waited == []


@pytest.mark.parametrize("answer", [ConnectionError("gone"), {"tcp://a:1": ConnectionError("gone")}])
def test_a_worker_that_dies_while_it_is_asked_is_no_error_yet(answer):
    assert clusters._check_versions(Cluster(Pretended(answer=answer), {})) is None
    ours = tasks.describe_worker()
    assert clusters._check_versions(Cluster(Pretended(answer={"tcp://a:1": ours}), {})) is None


@pytest.mark.parametrize("answer", [ModuleNotFoundError("fastgmm"), {"tcp://a:1": ModuleNotFoundError("fastgmm")}])
def test_a_worker_without_this_package_is_named(answer):
    with pytest.raises(ClusterError, match=r"the worker (a worker|tcp://a:1) cannot run fastgmm: ModuleNotFoundError"):
        clusters._check_versions(Cluster(Pretended(answer=answer), {}))


# -- rows --------------------------------------------------------------------------------------------------------------


def test_things_that_are_no_rows():
    for thing, name in ((X, "ndarray"), ([1, 2], "list"), (None, "NoneType")):
        with pytest.raises(InvalidDataTypeError, match=rf"X must be a dask array, .*; got {name}.*from_array"):
            inputs.lazy_rows(thing, None)


def test_chunks_of_columns_become_chunks_of_rows():
    x, names = inputs.lazy_rows(da.from_array(X, chunks=(10, 1)), None)
    assert x.chunks == ((10,) * 4, (2,))
    assert names is None
    np.testing.assert_array_equal(x.compute(scheduler="sync"), X)


@pytest.mark.parametrize(("dtype", "expected"), [("f4", "f4"), ("f8", "f8"), ("i2", "f8"), ("?", "f8")])
def test_types_of_numbers(dtype, expected):
    x, _ = inputs.lazy_rows(da.from_array((X > 0.0).astype(dtype), chunks=10), None)
    assert x.dtype == expected
    assert x.compute(scheduler="sync").dtype == expected
    assert inputs.lazy_rows(da.from_array((X > 0.0).astype(dtype), chunks=10), np.float32)[0].dtype == np.float32


def test_dataframes_keep_the_names_of_their_columns():
    pandas = pytest.importorskip("pandas", reason="the frames here are of its tables")
    dd = pytest.importorskip("dask.dataframe", reason="the frames are Dask's")
    frame = dd.from_pandas(pandas.DataFrame(X, columns=["a", "b"]), npartitions=2)
    assert inputs.lazy_rows(frame, None)[1] == ("a", "b")
    numbered = dd.from_pandas(pandas.DataFrame(X), npartitions=2)
    assert inputs.lazy_rows(numbered, None)[1] is None
    with_text = dd.from_pandas(pandas.DataFrame({"a": [1.0], "c": ["x"]}), npartitions=1)
    with pytest.raises(InvalidDataError, match=r"column\(s\) c do not\. Choose the others"):
        inputs.lazy_rows(with_text, None)


def test_weights_twice_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", X**2)
    source = fastgmm.open_rows(tmp_path / "x.npy", weights=1)
    with pytest.raises(InvalidParameterError, match="opened with weights: which of the two should count"):
        inputs.collect(source, np.ones(len(X)), None, Cluster(Pretended(), {}))


def test_rows_of_this_process_cannot_be_sent():
    source = fastgmm.open_rows(lambda: iter([X]))
    with pytest.raises(InvalidDataTypeError, match=r"X must be files that every worker can open, .* cannot be sent"):
        inputs.lazy_rows(source, None)


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def density():
    return fastgmm.GaussianMixture(2, random_state=0).fit(X).mixture_.density


@pytest.mark.parametrize(
    ("way", "shape", "dtype"),
    [("predict", (0,), np.int64), ("predict_proba", (0, 2), np.float64), ("score_samples", (0,), np.float64)],
)
def test_chunks_without_rows_have_no_values(density, way, shape, dtype):
    """As partitions of a filtered dataframe are."""
    found = values(X[:0], density=density, way=way, names=None)
    assert (found.shape, found.dtype) == (shape, dtype)
    assert len(values(X, density=density, way=way, names=None)) == len(X)


@pytest.mark.parametrize(
    ("info", "row"),
    [
        (None, 3),
        ({0: {"array-location": [(100, 140)]}}, 103),
        ({0: {"array-location": [(np.nan,) * 2], "chunk-location": (5, 0)}}, 3),
    ],
)
def test_a_bad_value_is_counted_from_where_its_chunk_begins(density, info, row):
    x = X.copy()
    x[3, 1] = np.inf
    with pytest.raises(NonFiniteDataError, match=rf"row {row}, column 1 is infinity") as caught:
        values(x, density=density, way="predict", names=None, block_info=info)
    assert caught.value.row == row
    unknown = bool(info) and np.isnan(info[0]["array-location"][0][0])
    assert ("from the start of chunk 5" in str(caught.value)) == unknown


def test_threads_of_a_worker_that_is_none():
    assert tasks.worker_threads() == 1
