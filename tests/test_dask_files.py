"""Files that the workers of a cluster read themselves, and the cluster that the shell starts."""

import subprocess
import sys

import numpy as np
import pytest

import fastgmm.dask
from fastgmm.cli import main
from fastgmm.dask import inputs
from fastgmm.data.ranges import read_range
from fastgmm.errors import DataChangedError, InvalidDataTypeError, InvalidParameterError, NonFiniteDataError
from tests.daskhelp import assert_same_bits, local, make_data, model

pa = pytest.importorskip("pyarrow", reason="Dask reads Parquet files with pyarrow")
pq = pytest.importorskip("pyarrow.parquet", reason="the rows come from Parquet files")

X, WEIGHT = make_data(20_011)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two Parquet files of uneven row groups with a column of weights, and one .npy file."""
    folder = tmp_path_factory.mktemp("files")
    for name, rows, group in (("a", slice(0, 7_001), 999), ("b", slice(7_001, None), 5_000)):
        columns = {f"x{j}": X[rows, j] for j in range(X.shape[1])}
        pq.write_table(pa.table({**columns, "w": WEIGHT[rows]}), folder / f"{name}.parquet", row_group_size=group)
    np.save(folder / "x.npy", X)
    return folder


@pytest.fixture(scope="module")
def client():
    with local(2) as one:
        yield one


def test_ranges_of_files(folder):
    rows = fastgmm.open_rows(folder / "*.parquet", weights="w")
    for start, stop in ((0, 5), (6_990, 7_010), (998, 1_000), (0, len(X)), (len(X) - 1, len(X))):
        x, w = read_range(rows, start, stop)
        np.testing.assert_array_equal(x, X[start:stop])
        np.testing.assert_array_equal(w, WEIGHT[start:stop])


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize("persist", [True, False])
def test_workers_read_parquet_with_weights(folder, monkeypatch, persist):
    monkeypatch.setattr(inputs, "CHUNK_BYTES", 1 << 16)  # several tasks
    here = model("full").fit(X, sample_weight=WEIGHT)
    rows = fastgmm.open_rows(folder / "*.parquet", weights="w")
    there = fastgmm.dask.fit(model("full"), rows, persist=persist)
    assert_same_bits(there, here)
    assert list(there.feature_names_in_) == ["x0", "x1", "x2"]
    assert fastgmm.dask.score(there, rows) == here.score(X, sample_weight=WEIGHT)
    labels = fastgmm.dask.predict(there, rows)
    np.testing.assert_array_equal(labels.compute(), here.predict(X))
    with pytest.raises(InvalidParameterError, match="opened with weights"):
        fastgmm.dask.fit(model("full"), rows, sample_weight=WEIGHT)


@pytest.mark.usefixtures("client")
def test_workers_read_a_path(folder):
    path = folder / "x.npy"
    assert_same_bits(fastgmm.dask.fit(model("diag"), path), model("diag").fit(X))
    rows = fastgmm.open_rows(path).with_weights(WEIGHT)
    assert_same_bits(fastgmm.dask.fit(model("diag"), rows), model("diag").fit(X, sample_weight=WEIGHT))


def test_rows_that_cannot_be_sent(client):
    rows = fastgmm.open_rows(lambda: iter([X]))
    with pytest.raises(InvalidDataTypeError, match="every worker can open"):
        fastgmm.dask.fit(model("diag"), rows, client=client)


def test_a_file_that_changes_is_noticed(client, tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, X)
    rows = fastgmm.open_rows(path)
    assert rows.n_given == len(X)
    np.save(path, X[:-1])
    with pytest.raises(DataChangedError):
        fastgmm.dask.fit(model("diag"), rows, client=client)


def test_the_shell_starts_a_cluster(folder, tmp_path):
    words = ["fit", str(folder / "x.npy"), "-k", "3", "--max-iter", "3", "--tol", "0"]
    there, here = tmp_path / "there.npz", tmp_path / "here.npz"
    command = [sys.executable, "-m", "fastgmm", *words, "--dask", "local:2", "--out", str(there)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert main([*words, "--no-stream", "--out", str(here)]) == 0
    assert fastgmm.load(there).means_.tobytes() == fastgmm.load(here).means_.tobytes()


@pytest.mark.parametrize("where", ["two", "local:0", "tcp://", "tcp://host", "pigeon://host:1"])
def test_the_shell_says_what_it_expected(folder, capsys, where):
    assert main(["fit", str(folder / "x.npy"), "-k", "3", "--dask", where]) == 1
    assert f"local:N or the address of a scheduler such as tcp://host:8786; got {where!r}" in capsys.readouterr().err


def test_a_bad_value_in_one_of_many_files_is_placed(client, tmp_path, capsys):
    """By the library and by the shell, as without a cluster."""
    for number in range(3):
        x = X[number * 1_000 : (number + 1) * 1_000].copy()
        if number == 2:
            x[123, 1] = np.nan
        pq.write_table(pa.table({f"x{j}": x[:, j] for j in range(3)}), tmp_path / f"{number}.parquet")
    file = tmp_path / "2.parquet"
    for fit in (model("diag").fit, lambda rows: fastgmm.dask.fit(model("diag"), rows, client=client)):
        with pytest.raises(NonFiniteDataError, match="which is row 124 of") as error:
            fit(fastgmm.open_rows(tmp_path))
        assert f"row 2123 (from 0), which is row 124 of {file}, column 'x1' is NaN" in str(error.value)
        assert (error.value.row, error.value.column) == (2123, 1)
    words = ["fit", str(tmp_path), "-k", "3", "--dask", client.scheduler.address, "--out", str(tmp_path / "m.npz")]
    assert main(words) == 1
    assert f"{file}, row 124, row 2124 of all files, column 'x1': nan is no number" in capsys.readouterr().err
    assert not (tmp_path / "m.npz").exists()
