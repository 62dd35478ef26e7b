"""What can go wrong with stored rows: one clear error that says where, no thread left behind, nothing half written."""

import re
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest

import fastgmm
from fastgmm import DataChangedError, GaussianMixture, InvalidDataError, InvalidParameterError, open_rows
from tests import sources
from tests.test_sources import BLOCK, D, N, rows

TOP = Path(__file__).parents[1]


def fit(X, **options):
    return GaussianMixture(2, random_state=0, **options).fit(X)


def no_threads():
    """No reader is alive (zarr keeps threads of its own)."""
    return not any(thread.name == "fastgmm-reader" for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def _no_thread_stays():
    yield
    assert no_threads()


# -- values that are no numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("block", [BLOCK, 10**9])
@pytest.mark.parametrize("kind", ["npy", "parquet-777", "stream", "zarr", "hdf5", "csv"])
def test_a_bad_value_is_found_in_the_third_file(tmp_path, kind, block, value):
    x = rows()
    x[7000, 1] = value
    for i, part in enumerate(np.array_split(x, [3000, 5000])):
        folder = tmp_path / str(i)
        folder.mkdir()
        sources.write(folder, kind, part)
    last = next((tmp_path / "2").iterdir())  # a Zarr store is a folder among these
    column = "'b'" if kind in sources.NAMED else "1"
    line = r" \(line 2002\)" if kind == "csv" else ""
    names = {"nan": "NaN", "inf": "infinity", "-inf": "-infinity"}
    where = rf"row 7000 \(from 0\), which is row 2001{line} of {re.escape(str(last))}"
    place = rf"{where}, column {column} is {names[str(value)]}"
    source = open_rows(tmp_path, block_bytes=block)
    model = fit(tmp_path / "0")

    def write(X):
        return model.predict(X, out=tmp_path / "o.npy")

    for use in (fit, model.predict, model.score_samples, model.score, write):
        with pytest.raises(fastgmm.NonFiniteDataError, match=place) as caught:
            use(source)
        assert (caught.value.row, caught.value.column) == (7000, 1)
    assert not (tmp_path / "o.npy").exists()


def test_a_missing_value_is_called_missing(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import feather

    values = [1.0, None, 3.0, 4.0]
    table = pa.table({"a": pa.array(values), "b": [1, 2, 3, 4], "w": pa.array([1.0, 0.0, 1.0, 2.0])})
    pq.write_table(table, tmp_path / "x.parquet")
    feather.write_feather(table, tmp_path / "x.feather")
    for name in ("x.parquet", "x.feather"):
        with pytest.raises(fastgmm.NonFiniteDataError, match=r"row 2 of .*, column 'a' is missing \(null\)"):
            fit(open_rows(tmp_path / name, columns=["a", "b"]))
        weighted = open_rows(tmp_path / name, weights="w")
        assert weighted.n_rows == 3  # a row of weight 0 is not there
        np.testing.assert_array_equal(next(weighted.blocks(1)).x, [[1, 1], [3, 3], [4, 4]])


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (-1.0, "negative"), (np.inf, "infinite")])
def test_bad_weights_are_named(tmp_path, value, word):
    w = np.ones(N)
    w[1234] = value
    path = sources.write(tmp_path, "parquet-777", rows(), w)
    with pytest.raises(InvalidDataError, match=rf"weight of row 1234 .*row 1235 of .*p777\.parquet, is {word}"):
        fit(open_rows(path, weights="w"))
    path = sources.write(tmp_path, "parquet-100", rows(), np.zeros(N))
    with pytest.raises(InvalidDataError, match="all weights are zero"):
        fit(open_rows(path, weights="w"))


# -- files that cannot be used -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [k for k in sources.WRITERS if "zarr" not in k and k != "csv"])
def test_truncated_files(tmp_path, kind):
    path = sources.write(tmp_path, kind, rows())
    content = path.read_bytes()
    for size in (0, 4, len(content) // 2, len(content) - 16):
        path.write_bytes(content[:size])
        with pytest.raises(InvalidDataError, match=re.escape(path.name)):
            fit(open_rows(path, block_bytes=BLOCK))


@pytest.mark.parametrize("kind", ["npy", "parquet-777", "feather", "stream", "hdf5-plain"])
def test_garbage_is_refused(tmp_path, kind):
    path = sources.write(tmp_path, kind, rows(50))
    path.write_bytes(b"This is not what its name says. " * 50)
    with pytest.raises(InvalidDataError, match=re.escape(path.name)):
        fit(open_rows(path))


def test_damage_inside_a_file_is_reported(tmp_path):
    path = sources.write(tmp_path, "parquet-777", rows())
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 4000] = b"\xff" * 4000
    path.write_bytes(content)
    with pytest.raises(InvalidDataError, match=r"p777\.parquet"):
        fit(open_rows(path, block_bytes=BLOCK))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 2, 2)), r"has shape \(3, 2, 2\); expected \(rows, columns\)"),
        (np.zeros(()), r"has shape \(\)"),
        (np.array([["a"]]), "holds values of type <U1"),
        (np.zeros((2, 2), complex), "holds values of type complex128"),
        (np.array([[{}]]), "holds Python objects"),
        (np.zeros(3, [("a", float)]), "holds values of type"),
        (np.zeros((0, 3)), "has no rows of data"),
    ],
)
def test_arrays_that_are_no_rows(tmp_path, array, message):
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(InvalidDataError, match=message):
        fit(open_rows(tmp_path / "x.npy"))


@pytest.mark.parametrize("kind", ["parquet-100", "csv", "npy"])
def test_columns_that_are_not_there(tmp_path, kind):
    path = sources.write(tmp_path, kind, rows(50))
    listed = "its columns are a, b, c" if kind in sources.NAMED else "its 3 columns have no names"
    for options in ({"columns": ["a", "q"]}, {"weights": "q"}):
        with pytest.raises(InvalidDataError, match=rf"has no column called '[aq]'; {listed}"):
            open_rows(path, **options)
    with pytest.raises(InvalidDataError, match=f"has no column 3; {listed}"):
        open_rows(path, columns=[0, 3])
    for options in ({"columns": [0, 0]}, {"columns": [0, 1], "weights": 1}, {"columns": "a"}, {"columns": [-1]}):
        with pytest.raises(InvalidParameterError):
            open_rows(path, **options)
    with pytest.raises(InvalidDataError, match="gives no features"):
        open_rows(path, columns=[])


def test_columns_of_text_are_refused_only_where_chosen(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"name": ["x", "y"], "a": [1.0, 2.0]}), tmp_path / "x.parquet")
    with pytest.raises(InvalidDataError, match="column 'name': holds values of type string, expected numbers"):
        open_rows(tmp_path / "x.parquet")
    assert open_rows(tmp_path / "x.parquet", columns=["a"]).n_rows == 2


def test_folders(tmp_path):
    with pytest.raises(InvalidDataError, match="a folder without files of a known format"):
        open_rows(tmp_path)
    sources._parquet(10)(tmp_path / "a.parquet", rows(50), None)
    sources._parquet(10)(tmp_path / "b.parquet", rows(50)[:, :2], None)
    with pytest.raises(
        InvalidDataError, match=r"b\.parquet does not have the columns of .*a\.parquet: .* a, b, but .* a, b, c"
    ):
        open_rows(tmp_path)
    assert open_rows(tmp_path, columns=["b", "a"]).n_rows == 100
    sources._npy(tmp_path / "c.npy", rows(50), None)
    with pytest.raises(InvalidDataError, match=r"several formats \(\.npy, \.parquet\)"):
        open_rows(tmp_path)
    with pytest.raises(InvalidDataError, match="no file matches"):
        open_rows(str(tmp_path / "*.csv"))


def test_names_without_a_file(tmp_path):
    for what in (tmp_path / "none.npy", str(tmp_path / "none.parquet"), [tmp_path / "none.csv"], "text"):
        with pytest.raises(FileNotFoundError):
            fit(what if not isinstance(what, list) else open_rows(what))
    (tmp_path / "x.xlsx").touch()
    with pytest.raises(InvalidDataError, match=r"cannot tell its format.*\.parquet"):
        open_rows(tmp_path / "x.xlsx")


def test_arrays_in_files_with_several(tmp_path):
    import h5py
    import zarr

    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a"], file["b/c"] = rows(50), rows(60)
    group = zarr.open_group(str(tmp_path / "x.zarr"), mode="w")
    for name, n in (("a", 50), ("c", 60)):
        group.create_array(name, shape=(n, D), dtype="f8")[:] = rows(n)
    for name, inner in (("x.h5", "b/c"), ("x.zarr", "c")):
        with pytest.raises(InvalidDataError, match=rf"{name}: expected one array, found several: 'a', '{inner}'"):
            open_rows(tmp_path / name)
        with pytest.raises(InvalidDataError, match="has no array 'q'; it has"):
            open_rows(tmp_path / name, dataset="q")
        assert open_rows(tmp_path / name, dataset=inner).n_rows == 60
        assert open_rows(f"{tmp_path / name}:/{inner}").n_rows == 60
    with pytest.raises(InvalidParameterError, match="header has no meaning"):
        open_rows(tmp_path / "x.h5", header="yes")


@pytest.mark.parametrize(
    ("kind", "what", "remedy"),
    [
        ("hdf5", "chunks of 333 rows are read whole", "chunks of a few MiB"),
        ("zarr-shards", "chunks of 500 rows", "chunks of a few MiB"),
        ("ipc", "record batches are read whole", "batches of a few MiB"),
        ("parquet-one", "row groups are large", "smaller row groups and without dictionaries"),
    ],
)
def test_files_that_take_much_memory_are_told(tmp_path, monkeypatch, kind, what, remedy):
    from fastgmm.data import opening
    from fastgmm.data.formats import parquet

    path = sources.write(tmp_path, kind, rows())
    monkeypatch.setattr(opening, "LARGE", 1000)
    monkeypatch.setattr(parquet, "RUN_BYTES", 100)
    with pytest.warns(fastgmm.FastgmmWarning, match=rf"{path.name} takes some .* MiB .*{what}.*{remedy}"):
        open_rows(path)


@pytest.mark.parametrize(
    ("kind", "package", "extra"),
    [
        ("parquet-100", "pyarrow", "parquet"),
        ("ipc", "pyarrow", "parquet"),
        ("zarr", "zarr", "zarr"),
        ("hdf5", "h5py", "hdf5"),
    ],
)
def test_missing_packages_are_named(tmp_path, monkeypatch, kind, package, extra):
    path = sources.write(tmp_path, kind, rows(500))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install 'fastgmm\[{extra}\]'"):
        open_rows(path)


def test_things_that_are_no_rows():
    for what in (None, 3, b"text", {"a": 1}):
        with pytest.raises(fastgmm.InvalidDataTypeError):
            open_rows(what)
    with pytest.raises(InvalidParameterError, match="dtype"):
        open_rows([rows(5)], dtype="int32")


# -- iterables ---------------------------------------------------------------------------------------------------------


def test_what_can_be_read_once_is_refused_with_a_remedy():
    for what in (iter([rows(5)]), (block for block in [rows(5)]), map(np.asarray, [rows(5)])):
        with pytest.raises(fastgmm.InvalidDataTypeError, match="Pass a list of blocks, or a function that returns"):
            open_rows(what)


def test_blocks_that_do_not_fit_together():
    x = rows(90)
    cases = [
        ([], "at least one block"),
        ([x, x[:, :2]], "must have the 3 columns of the first; got one with 2"),
        ([x, x[0]], r"block 1 of X must have shape \(rows, columns\); got \(3,\)"),
        ([x.astype("f4"), x], "must be float32, as the first is; got float64"),
        ([x, np.array([["a", "b", "c"]])], "block 1 of X must hold real numbers only"),
    ]
    for blocks, message in cases:
        with pytest.raises(InvalidDataError, match=message):
            fit(open_rows(blocks, block_bytes=400))
    assert open_rows([x.astype("f4"), x], dtype="float64").n_rows == 180


def test_a_function_that_returns_the_same_generator_again():
    once = (part for part in np.array_split(rows(), 9))
    with pytest.raises((DataChangedError, InvalidDataError)):
        fit(open_rows(lambda: once, block_bytes=BLOCK))


# -- data that change --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["npy", "parquet-777", "feather", "hdf5", "csv"])
@pytest.mark.parametrize("block", [BLOCK, 10**9])
def test_a_file_that_changes_between_passes(tmp_path, kind, block):
    path = sources.write(tmp_path, kind, rows())
    source = open_rows(path, block_bytes=block)

    def rewrite(info):
        if info.iteration == 1:
            path.unlink(missing_ok=True)
            sources.write(tmp_path, kind, rows(N - 1))

    passes_left = block == BLOCK
    if passes_left:
        with pytest.raises(DataChangedError, match=rf"{re.escape(str(path))} was written to, replaced or removed"):
            GaussianMixture(2, tol=0.0, random_state=0, max_iter=5).fit(source, callback=rewrite)
    else:
        fit(source)
        rewrite(types.SimpleNamespace(iteration=1))
        with pytest.raises(DataChangedError, match="was written to"):
            fit(source)
    assert fit(path).n_features_in_ == D  # a new source sees the new file


def test_a_file_that_is_removed_while_it_is_read(tmp_path):
    path = sources.write(tmp_path, "npy", rows())
    source = open_rows(path, block_bytes=BLOCK)
    blocks = source.blocks(1)
    next(blocks)
    path.unlink()
    with pytest.raises(DataChangedError):
        list(blocks)


@pytest.mark.parametrize("change", ["fewer", "more", "other"])
def test_blocks_that_change_between_passes(change):
    x = rows()
    later = {"fewer": x[:-1], "more": np.concatenate([x, x[:1]]), "other": x + 1e-9}[change]
    calls = []

    def blocks():
        calls.append(0)
        yield from np.array_split(x if len(calls) < 5 else later, 7)

    message = {"fewer": "9000 rows at first and 8999 now", "more": "more than the 9000", "other": "have other values"}
    with pytest.raises(DataChangedError, match=message[change]):
        GaussianMixture(2, tol=0.0, random_state=0, max_iter=9).fit(open_rows(blocks, block_bytes=BLOCK))
