"""Fits on a Dask cluster on this machine: the bits of the fit in memory, for any workers and chunks."""

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster

import fastgmm
import fastgmm.dask
from fastgmm.dask import calls, tasks
from fastgmm.dask import cluster as clusters
from fastgmm.dask import rows as dask_rows
from fastgmm.dask.inputs import collect
from fastgmm.errors import (
    ClusterError,
    ConvergenceWarning,
    InvalidDataError,
    InvalidDataTypeError,
    InvalidParameterError,
    NonFiniteDataError,
)
from tests.daskhelp import assert_same_bits, local, make_data, model

FAMILIES = ["full", "tied", "diag", "spherical"]
X, WEIGHT = make_data()


@pytest.fixture(scope="module")
def client():
    with local(2) as one:
        yield one


def chunked(x, lengths=(13_001, 1, 30_000)):
    """A dask array in uneven chunks that fit no grid."""
    rest = len(x) - sum(lengths)
    return da.from_array(x, chunks=((*lengths, rest), -1))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_same_bits_as_in_memory(client, family, weighted):
    weight = WEIGHT if weighted else None
    here = model(family).fit(X, sample_weight=weight)
    there = fastgmm.dask.fit(model(family), chunked(X), sample_weight=weight, client=client)
    assert_same_bits(there, here)
    assert there.score(X, sample_weight=weight) == fastgmm.dask.score(there, chunked(X), sample_weight=weight)


@pytest.mark.parametrize("n_workers", [1, 3])
def test_any_number_of_workers(n_workers):
    here = model("full").fit(X, sample_weight=WEIGHT)
    with local(n_workers):  # the current client
        assert_same_bits(fastgmm.dask.fit(model("full"), chunked(X), sample_weight=WEIGHT), here)


def test_workers_of_several_threads():
    here = model("full").fit(X)
    with local(1, threads=2):
        assert_same_bits(fastgmm.dask.fit(model("full"), chunked(X)), here)


@pytest.mark.parametrize("fan", [calls.FAN, 1])
def test_workers_in_this_process(fan, monkeypatch):
    """Their messages are handed over as they are; with a fan of 1 one worker speaks to the other, too."""
    monkeypatch.setattr(calls, "FAN", fan)

    def refuse(*_):
        pytest.fail("tasks")

    monkeypatch.setattr(fastgmm.dask.sums.ClusterRunner, "_once", refuse)
    here = model("full").fit(X, sample_weight=WEIGHT)
    with local(2, processes=False):
        assert_same_bits(fastgmm.dask.fit(model("full"), chunked(X), sample_weight=WEIGHT), here)


def test_values_and_errors_of_workers_in_this_process():
    here = model("diag").fit(X)
    bad = X.copy()
    bad[40_123, 1] = np.nan
    with local(2, processes=False):
        there = fastgmm.dask.fit(model("diag"), chunked(X), persist=False)
        assert_same_bits(there, here)
        assert fastgmm.dask.score(there, chunked(X), sample_weight=WEIGHT) == here.score(X, sample_weight=WEIGHT)
        assert np.array_equal(fastgmm.dask.predict(there, chunked(X)).compute(), here.predict(X))
        assert np.array_equal(fastgmm.dask.score_samples(there, chunked(X)).compute(), here.score_samples(X))
        with pytest.raises(NonFiniteDataError, match="row 40123, column 1 is NaN"):
            fastgmm.dask.fit(model("diag"), chunked(bad))


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize("persist", [True, False])
def test_float32_and_rows_read_in_every_pass(persist):
    x = X.astype(np.float32)
    there = fastgmm.dask.fit(model("diag"), chunked(x), persist=persist)
    assert there.means_.dtype == np.float32
    assert_same_bits(there, model("diag").fit(x))


@pytest.mark.usefixtures("client")
def test_scaled_weights():
    """Weights of 1e200, of which some underflow to 0 when they are scaled."""
    weight = WEIGHT * 1e200
    weight[5] = 1e-200
    here = model("diag").fit(X, sample_weight=weight)
    assert_same_bits(
        fastgmm.dask.fit(model("diag"), chunked(X), sample_weight=da.from_array(weight, chunks=7_777)), here
    )


@pytest.mark.usefixtures("client")
def test_dataframes_of_unknown_lengths():
    table = pd.DataFrame(X, columns=[f"x{j}" for j in range(X.shape[1])])
    table["weight"] = WEIGHT
    frame = dd.from_pandas(table, npartitions=5)
    frame = frame[frame["x0"] > -100.0]  # whatever it keeps, Dask does not know how many
    features = frame.drop(columns="weight")
    there = fastgmm.dask.fit(model("full"), features, sample_weight=frame["weight"])
    assert_same_bits(there, model("full").fit(X, sample_weight=WEIGHT))
    assert list(there.feature_names_in_) == list(features.columns)
    labels = fastgmm.dask.predict(there, features)
    assert np.array_equal(labels.compute(), there.predict(table.drop(columns="weight")))


@pytest.mark.usefixtures("client")
def test_given_labels_and_several_starts():
    """The sums of a start from labels are the only ones that depend on how rows come, in their last digits."""
    labels = np.arange(len(X)) % 3
    there = fastgmm.dask.fit(model("full", init_params=labels, max_iter=1), chunked(X), sample_weight=WEIGHT)
    here = model("full", init_params=labels, max_iter=1).fit(X, sample_weight=WEIGHT)
    np.testing.assert_allclose(there.means_, here.means_, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(there.covariances_, here.covariances_, rtol=1e-9, atol=1e-12)
    random = {"init_params": "random_from_data", "n_init": 3, "max_iter": 2}
    assert_same_bits(fastgmm.dask.fit(model("diag", **random), chunked(X)), model("diag", **random).fit(X))


@pytest.mark.usefixtures("client")
def test_small_data_and_samples_of_large_data(monkeypatch):
    small = X[:500]
    assert_same_bits(fastgmm.dask.fit(model("full"), chunked(small, (100, 3))), model("full").fit(small))
    from fastgmm.initialize import sample

    monkeypatch.setattr(sample, "MAX_ROWS", 1000)  # far fewer than there are
    for weight in (None, WEIGHT):
        here = model("full").fit(X, sample_weight=weight)
        assert_same_bits(fastgmm.dask.fit(model("full"), chunked(X), sample_weight=weight), here)


@pytest.mark.usefixtures("client")
def test_callbacks_and_warnings_are_those_of_the_estimator():
    seen = []

    def stop(info):
        seen.append(info.iteration)
        return info.iteration == 2

    there = fastgmm.dask.fit(model("diag"), chunked(X), callback=stop)
    assert seen == [1, 2]
    assert there.result_.status is fastgmm.FitStatus.CALLBACK_STOPPED
    with pytest.warns(ConvergenceWarning):
        fastgmm.dask.fit(fastgmm.GaussianMixture(3, max_iter=1, random_state=0, tol=1e-9), chunked(X))


def test_nothing_is_scattered(client, monkeypatch):
    """Data reach a worker by tasks alone, so that Dask can make them again."""

    def refuse(*_, **__):
        pytest.fail("scatter")

    monkeypatch.setattr(Client, "scatter", refuse)
    monkeypatch.setattr(Client, "_scatter", refuse)
    x, weight, names = collect(chunked(X), WEIGHT, None, clusters.use_cluster(client))
    found = dask_rows.DaskRows(clusters.use_cluster(client), x, weight, names=names, block_rows=960)
    slabs = found.slabs()
    found.compute([dask.delayed(tasks.own_rows)(slab) for slab in slabs])

    keys = [slab.key for slab in slabs]

    def made_by_tasks(keys, dask_scheduler=None):
        return [dask_scheduler.tasks[key].run_spec is not None for key in keys]

    assert client.run_on_scheduler(made_by_tasks, keys) == [True] * len(keys)
    assert len(keys) == dask_rows.FEWEST_SLABS


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize("weighted", [False, True])
def test_a_value_that_is_not_finite_is_named(weighted):
    x = X.copy()
    x[40_123, 1] = np.nan
    x[50_000, 0] = np.inf
    weight = np.ones(len(x))
    weight[:100] = 0.0
    x[50] = np.nan  # has weight 0
    if not weighted:
        x[50] = 0.0
        weight = None
    with pytest.raises(NonFiniteDataError, match="row 40123, column 1 is NaN") as caught:
        fastgmm.dask.fit(model("full"), chunked(x), sample_weight=weight)
    assert (caught.value.row, caught.value.column) == (40_123, 1)


# -- one value a row ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("client")
# Dask of 2025 warns whoever computes without the client that there is; that such values can be had is the point here.
@pytest.mark.filterwarnings("ignore:Running on a single-machine scheduler:UserWarning")
@pytest.mark.parametrize("way", ["predict", "predict_proba", "score_samples"])
def test_lazy_values(way):
    fitted = model("full").fit(X)
    x = chunked(X)
    lazy = getattr(fastgmm.dask, way)(fitted, x)
    here = getattr(fitted, way)(X)
    assert isinstance(lazy, da.Array)
    assert (lazy.shape, lazy.dtype, lazy.chunks[0]) == (here.shape, here.dtype, x.chunks[0])
    assert lazy._meta.dtype == here.dtype
    assert lazy._meta.ndim == here.ndim
    got = lazy.compute()
    assert got.dtype == here.dtype
    assert np.array_equal(got, here)
    assert np.array_equal(lazy[40_000:40_010].compute(scheduler="threads"), here[40_000:40_010])


@pytest.mark.usefixtures("client")
def test_lazy_values_name_the_row():
    fitted = model("diag").fit(X)
    x = X.copy()
    x[40_123, 1] = -np.inf
    for way in ("predict", "score_samples"):
        with pytest.raises(NonFiniteDataError, match="row 40123, column 1 is -infinity"):
            getattr(fastgmm.dask, way)(fitted, chunked(x)).compute()
    unknown = chunked(x)
    unknown = unknown[unknown[:, 2] > -100.0]  # whatever it keeps, the lengths of chunks are not known
    with pytest.raises(NonFiniteDataError, match=r"row 27121.*counted from the start of chunk 2"):
        fastgmm.dask.predict(fitted, unknown).compute()
    with pytest.raises(InvalidDataError, match="expecting 3 features"):
        fastgmm.dask.predict(fitted, chunked(x[:, :2]))


# -- what cannot be ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("client")
def test_wrong_data():
    with pytest.raises(InvalidDataTypeError, match="from_array"):
        fastgmm.dask.fit(model("full"), X)
    with pytest.raises(InvalidDataError, match="2D array"):
        fastgmm.dask.fit(model("full"), da.zeros(5))
    with pytest.raises(InvalidDataError, match="real numbers"):
        fastgmm.dask.fit(model("full"), da.zeros((5, 2), dtype=complex))
    frame = dd.from_pandas(pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]}), npartitions=1)
    with pytest.raises(InvalidDataError, match=r"column\(s\) b"):
        fastgmm.dask.fit(model("full"), frame)
    shorter = chunked(X).map_blocks(lambda rows: rows[:-1], dtype=float, meta=np.empty((0, 0)))
    for way in ({}, {"persist": False}):
        with pytest.raises(InvalidDataError, match=r"chunks of the lengths that it states.*compute_chunk_sizes"):
            fastgmm.dask.fit(model("full"), shorter, **way)
    bad = np.ones(len(X))
    bad[20_000] = -1.0
    for weight, match in (
        (bad, "row 20000"),
        (bad * 0.0, "zero"),
        (np.ones(3), "shape"),
        (np.array(["a"] * 3), "dtype"),
    ):
        with pytest.raises(InvalidDataError, match=match):
            fastgmm.dask.fit(model("full"), chunked(X), sample_weight=weight)
    with pytest.raises(InvalidDataError, match="n_components"):
        fastgmm.dask.fit(model("full"), chunked(X[:2], (1,)))


def test_wrong_clusters(client, monkeypatch):
    with pytest.raises(InvalidParameterError, match=r"distributed\.Client"):
        fastgmm.dask.fit(model("full"), chunked(X), client="tcp://host:8786")
    monkeypatch.setattr(tasks, "describe_worker", lambda: ("9.9", "other"))
    monkeypatch.setattr(clusters, "default_client", lambda: client)
    real = tasks.describe_worker()
    monkeypatch.setattr(Client, "run", lambda *_, **__: {"tcp://a:1": ("0.0", "kernels")})
    with pytest.raises(ClusterError, match=r"tcp://a:1 has fastgmm of version 0.0, this process has 9.9"):
        fastgmm.dask.fit(model("full"), chunked(X))
    monkeypatch.setattr(Client, "run", lambda *_, **__: {"tcp://a:1": (real[0], "kernels")})
    with pytest.raises(ClusterError, match="other kernels"):
        fastgmm.dask.fit(model("full"), chunked(X))
    monkeypatch.setattr(Client, "run", lambda *_, **__: {"tcp://a:1": ModuleNotFoundError("No module named 'fastgmm'")})
    with pytest.raises(ClusterError, match=r"Install fastgmm==9.9"):
        fastgmm.dask.fit(model("full"), chunked(X))


def test_no_client_no_workers_closed_client():
    with LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as empty:
        with Client(empty) as one, pytest.raises(ClusterError, match=r"no workers.*scale"):
            fastgmm.dask.fit(model("full"), chunked(X), client=one)
        with pytest.raises(ClusterError, match="is closed; make a new Client"):
            fastgmm.dask.fit(model("full"), chunked(X), client=one)


def test_no_client(monkeypatch):
    def none():
        raise ValueError

    monkeypatch.setattr(clusters, "default_client", none)
    with pytest.raises(ClusterError, match="make one first"):
        fastgmm.dask.fit(model("full"), chunked(X))


# -- slabs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_rows", "block", "parts"), [(5_000_000, 960, 6), (1, 960, 4), (960 * 3, 960, 16), (10**9, 1920, 300)]
)
def test_edges_of_slabs(n_rows, block, parts):
    edges = dask_rows.cut(n_rows, block, parts)
    lengths = np.diff(edges)
    n_blocks = -(-n_rows // block)
    assert edges[0] == 0
    assert edges[-1] == n_rows
    assert len(lengths) == min(parts, n_blocks)
    assert all(edge % block == 0 for edge in edges[:-1])
    if n_blocks > 100 * parts:
        assert lengths.max() <= 1.11 * n_rows / parts
        assert all(edge // block % 16 == 0 for edge in edges[:-1])  # round numbers of the counter


def test_a_slab_of_one_slice_is_no_copy():
    x = np.arange(40.0).reshape(20, 2)
    assert np.shares_memory(tasks.make_slab([x[:18]], None, "float64", 0, 18)[0], x)
    assert not np.shares_memory(tasks.make_slab([x[:4]], None, "float64", 0, 4)[0], x)  # would keep all of x alive
    joined = tasks.make_slab([x[:4], x[4:6]], [np.ones(4), np.ones(2)], "float32", 0, 5)
    assert joined[0].dtype == np.float32
    assert joined[1].tolist() == [1.0] * 6
    assert tasks.own_rows(joined)[0].shape == (5, 2)
