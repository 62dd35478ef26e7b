"""Rows in files: the rarer layouts, types and damages of each format."""

import re
import shutil

import numpy as np
import pytest

import fastgmm
from fastgmm import InvalidDataError, open_rows
from fastgmm.data import as_rows
from fastgmm.data.formats import base
from fastgmm.data.ranges import read_range
from fastgmm.errors import InvalidDataTypeError, InvalidParameterError
from tests.test_sources import rows

needs_zarr = "the arrays here are Zarr's"


def values(source, **options):
    """All rows of a source, and their weights."""
    blocks = list(open_rows(source, **options).blocks(1))
    weights = None if blocks[0].weight is None else np.concatenate([np.array(b.weight) for b in blocks])
    return np.concatenate([np.array(b.x) for b in blocks]), weights


# -- arrays in chunks --------------------------------------------------------------------------------------------------


@pytest.fixture(params=["zarr", "hdf5"])
def stored(request, tmp_path):
    """A function that stores one array, and returns its path."""

    def store(array, name="x"):
        if request.param == "zarr":
            zarr = pytest.importorskip("zarr", reason=needs_zarr)
            path = tmp_path / f"{name}.zarr"
            shutil.rmtree(path, ignore_errors=True)
            zarr.save_array(str(path), array)
        else:
            h5py = pytest.importorskip("h5py", reason="the arrays here are h5py's")
            path = tmp_path / f"{name}.h5"
            with h5py.File(path, "w") as file:
                file["x"] = array
        return path

    return store


def test_arrays_that_hold_no_rows_of_numbers(stored):
    path = stored(np.zeros((4, 3), np.complex128))
    with pytest.raises(InvalidDataError, match=rf"{path.name} holds values of type .*; expected real numbers"):
        open_rows(path)
    path = stored(np.zeros((4, 3, 2)), "cube")
    with pytest.raises(InvalidDataError, match=r"cube\.\w+ has shape \(4, 3, 2\); expected \(rows, columns\)"):
        open_rows(path)


def test_one_dimension_is_one_column(stored):
    x = np.arange(7.0)
    source = open_rows(stored(x))
    assert (source.n_rows, source.n_features) == (7, 1)
    np.testing.assert_array_equal(values(stored(x))[0][:, 0], x)


@pytest.mark.parametrize("dtype", ["f4", "i2", "u1", "?", ">f8"])
def test_types_of_numbers(stored, dtype):
    x = (np.arange(20).reshape(10, 2) % 2).astype(dtype)
    found = values(stored(x))[0]
    assert found.dtype == (np.float32 if dtype == "f4" else np.float64)
    np.testing.assert_array_equal(found, x.astype(float))


def test_a_file_without_arrays(tmp_path):
    h5py = pytest.importorskip("h5py", reason="makes an HDF5 file")
    zarr = pytest.importorskip("zarr", reason=needs_zarr)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_group("empty")
    zarr.open_group(str(tmp_path / "x.zarr"), mode="w")
    for name in ("x.h5", "x.zarr"):
        with pytest.raises(InvalidDataError, match=rf"{re.escape(name)}: expected one array, found none\. Name one"):
            open_rows(tmp_path / name)
        with pytest.raises(InvalidDataError, match=r"has no array 'q'; it has none"):
            open_rows(tmp_path / name, dataset="q")


def test_one_array_has_no_arrays(tmp_path):
    zarr = pytest.importorskip("zarr", reason=needs_zarr)
    zarr.save_array(str(tmp_path / "x.zarr"), rows(20))
    with pytest.raises(InvalidDataError, match="is one array and has no array 'a'; leave dataset out"):
        open_rows(tmp_path / "x.zarr", dataset="a")
    assert open_rows(tmp_path / "x.zarr", dataset="/").n_rows == 20


def test_folders_and_files_of_another_kind(tmp_path):
    (tmp_path / "x.zarr").mkdir()
    (tmp_path / "x.h5").write_bytes(b"no such thing" * 100)
    with pytest.raises(InvalidDataError, match=r"x\.zarr is not a Zarr store: "):
        open_rows(tmp_path / "x.zarr")
    with pytest.raises(InvalidDataError, match=r"x\.h5 is not an HDF5 file, or is truncated: "):
        open_rows(tmp_path / "x.h5")
    for name in ("y.h5", "y.zarr"):
        with pytest.raises(FileNotFoundError):
            open_rows(tmp_path / name)


def test_damage_inside_a_file_is_told_with_its_name(tmp_path):
    """Of a chunk that cannot be decoded, which is noticed in the middle of a pass."""
    h5py = pytest.importorskip("h5py", reason="makes an HDF5 file")
    zarr = pytest.importorskip("zarr", reason=needs_zarr)
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=rows(4000), chunks=(1000, 3), compression="gzip", fletcher32=True)
        where = file["x"].id.get_chunk_info(2).byte_offset
    content = bytearray(path.read_bytes())
    content[where + 40 : where + 60] = bytes(20)
    path.write_bytes(content)
    folder = tmp_path / "x.zarr"
    zarr.create_array(str(folder), shape=(4000, 3), chunks=(1000, 3), dtype="f8")[:] = rows(4000)
    chunk = folder / "c" / "2" / "0"
    chunk.write_bytes(b"no codec wrote this" * 100)
    for damaged in (path, folder):
        with pytest.raises(InvalidDataError, match=rf"{re.escape(damaged.name)} is damaged: "):
            values(damaged)
        with pytest.raises(InvalidDataError, match=rf"{re.escape(damaged.name)} is damaged: "):
            fastgmm.GaussianMixture(2).fit(damaged)


# -- Parquet and Arrow -------------------------------------------------------------------------------------------------


def test_arrow_columns_of_all_kinds_of_numbers(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="makes Arrow tables")
    from pyarrow import feather, parquet

    decimals = pa.array(["1.25", "-2.5", "3.75"]).cast(pa.decimal128(10, 2))
    table = pa.table({
        "flag": pa.array([True, False, True]),
        "money": decimals,
        "n": pa.array([1, 2, 3], pa.uint8()),
        "half": pa.array(np.float16([1.5, 2.5, 3.5])),
        "word": ["a", "b", "c"],
    })  # fmt: skip
    parquet.write_table(table.select(["flag", "money", "n", "word"]), tmp_path / "x.parquet")
    feather.write_feather(table, tmp_path / "x.feather")
    expected = np.array([[1.0, 1.25, 1.0], [0.0, -2.5, 2.0], [1.0, 3.75, 3.0]])
    for name in ("x.parquet", "x.feather"):
        found, _ = values(tmp_path / name, columns=["flag", "money", "n"])
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, expected)
        with pytest.raises(InvalidDataError, match="column 'word'"):
            open_rows(tmp_path / name, columns=["n", "word"])


def test_a_missing_truth_value_is_missing_and_not_false(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="makes Arrow tables")
    from pyarrow import parquet

    parquet.write_table(pa.table({"a": [1.0, 2.0, 3.0], "flag": [True, None, False]}), tmp_path / "x.parquet")
    with pytest.raises(fastgmm.NonFiniteDataError, match=r"row 2 .*column 'flag' is missing \(null\)"):
        fastgmm.GaussianMixture(1).fit(open_rows(tmp_path / "x.parquet"))


@pytest.mark.parametrize(("name", "what"), [("x.parquet", "a Parquet file"), ("x.feather", "an Arrow")])
def test_empty_and_foreign_files(tmp_path, name, what):
    pytest.importorskip("pyarrow", reason="reads Arrow tables")
    path = tmp_path / name
    path.write_bytes(b"")
    with pytest.raises(InvalidDataError, match=rf"{name} is empty: expected {what}"):
        open_rows(path)
    path.write_bytes(b"not of this kind" * 50)
    with pytest.raises(InvalidDataError, match=rf"{name} is not {what}"):
        open_rows(path)
    with pytest.raises(FileNotFoundError):
        open_rows(tmp_path / f"other-{name}")


# -- blocks ------------------------------------------------------------------------------------------------------------


def test_blocks_may_be_tables_and_some_may_be_empty():
    pandas = pytest.importorskip("pandas", reason="the blocks here are its tables")
    x = rows(30)
    tables = [pandas.DataFrame(part, columns=["a", "b", "c"]) for part in (x[:10], x[10:10], x[10:])]
    source = open_rows(tables)
    assert source.names == ("a", "b", "c")
    np.testing.assert_array_equal(values(tables)[0], x)
    np.testing.assert_array_equal(values([x[:10], x[10:10], x[10:]])[0], x)
    tables[2] = tables[2].rename(columns={"b": "B"})
    with pytest.raises(InvalidDataError, match=r"must have the columns of the first, .*; got one with \('a', 'B', 'c'"):
        values(tables)


def test_blocks_of_text_are_numbers_if_they_look_so():
    x = np.array([["1.5", "2"], ["3", "-4e2"]])
    np.testing.assert_array_equal(values([x])[0], x.astype(float))
    with pytest.raises(InvalidDataError, match="block 1 of X"):
        values([x, np.array([["1", "two"]])])


@pytest.mark.parametrize(
    ("block", "error", "words"),
    [
        ([[1.0, 2.0], [3.0]], InvalidDataError, "block 0 of X must be a two-dimensional array or a table"),
        (np.zeros(3), InvalidDataError, r"block 0 of X must have shape \(rows, columns\); got \(3,\)"),
        (np.zeros((3, 0)), InvalidDataError, r"block 0 of X must have shape \(rows, columns\); got \(3, 0\)"),
        (np.zeros((3, 2), complex), InvalidDataTypeError, "block 0 of X must hold real numbers; got dtype complex128"),
        (np.zeros((3, 2), "M8[s]"), InvalidDataTypeError, "block 0 of X must hold real numbers; got dtype datetime64"),
    ],
)
def test_blocks_that_are_no_rows(block, error, words):
    with pytest.raises(error, match=words):
        open_rows([block])


def test_things_that_are_no_source():
    for thing, name in ((3, "int"), ({"a": 1}, "dict"), (b"bytes", "bytes"), ({1.0}, "set")):
        with pytest.raises(InvalidDataTypeError, match=f"rows must be a path, a list of paths, .*; got {name}"):
            open_rows(thing)


# -- columns, ranges and weights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 2, 40, 5000])
def test_columns_are_transposed_in_pieces_of_any_width(width):
    rng = np.random.default_rng(width)
    columns = [rng.normal(size=50) for _ in range(width)]
    piece = base.ColumnPiece(columns, np.arange(50.0), base.new_stage())
    x, w = np.empty((30, width)), np.empty(30)
    piece.copy(15, 45, x, w)
    np.testing.assert_array_equal(x, np.array(columns).T[15:45])
    np.testing.assert_array_equal(w, np.arange(15.0, 45.0))
    (rest,) = base.skipped(iter([base.ColumnPiece([c[:10] for c in columns], None, base.new_stage()), piece]), 22)
    assert rest.n_rows == 38
    x = np.empty((38, width))
    rest.copy(0, 38, x, None)
    np.testing.assert_array_equal(x, np.array(columns).T[12:])


@pytest.mark.parametrize("name", ["x.npy", "x.csv"])
def test_ranges_end_within_and_between_files(tmp_path, name):
    x = rows(900)
    for i, part in enumerate(np.array_split(x, [300, 310])):
        folder = tmp_path / str(i)
        folder.mkdir()
        if name.endswith("npy"):
            np.save(folder / name, part)
        else:
            np.savetxt(folder / name, part, fmt="%.17g", delimiter=",")
    source = open_rows([tmp_path / str(i) / name for i in range(3)])
    assert source.n_rows == 900
    for start, stop in ((0, 900), (0, 300), (300, 310), (299, 311), (305, 306), (899, 900), (310, 900)):
        found, weight = read_range(source, start, stop)
        np.testing.assert_array_equal(found, x[start:stop])
        assert weight is None


def test_weights_that_are_bad_from_the_start_stay_the_first_complaint():
    x = rows(10)
    weight = np.ones(10)
    weight[[3, 7]] = np.nan, -1.0
    for source in (x, open_rows([x[:5], x[5:]])):
        with pytest.raises((InvalidDataError, InvalidParameterError, ValueError), match=r"sample_weight.*\[?3\b"):
            fastgmm.GaussianMixture(1).fit(source, sample_weight=weight)


def test_rows_are_recognised_and_kept():
    x = rows(10)
    own = as_rows(x)
    assert as_rows(own) is own
    assert as_rows(x, sample_weight=np.r_[0.0, np.ones(9)]).n_rows == 9
    np.testing.assert_array_equal(
        as_rows(x.tolist(), sample_weight=np.r_[0.0, np.ones(9)]).kept(), np.r_[False, np.ones(9, bool)]
    )
    source = open_rows([x])
    assert source.with_dtype("f8") is source
    assert source.with_dtype("f4").dtype == np.float32


def test_a_file_cut_short_while_it_is_read(tmp_path):
    x = rows(5000)
    np.save(tmp_path / "x.npy", x)
    part = open_rows(tmp_path / "x.npy")._parts[0]
    truncated = pytest.raises(InvalidDataError, match=r"x\.npy is truncated: it ended while it was read")
    with (tmp_path / "x.npy").open("rb", buffering=0) as file, truncated:
        part.fill(file, x.nbytes - 8, np.empty(2))
