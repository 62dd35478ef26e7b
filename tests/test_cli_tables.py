"""Tables as the command line reads and writes them: every format, both CSV readers, every complaint with its place."""

import io
import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgmm.cli.inputs import open_table, read_data
from fastgmm.cli.results import WRITERS, to_json
from fastgmm.cli.tables import parse_columns
from fastgmm.data import open_rows
from fastgmm.data.formats import CsvPart
from fastgmm.data.formats.text import CHUNK_ROWS
from fastgmm.errors import InvalidDataError


@pytest.fixture(params=["fast", "careful"])
def reader(request, monkeypatch):
    """Both CSV readers; what one accepts, the other must read alike."""
    if request.param == "careful":
        monkeypatch.setitem(sys.modules, "pyarrow", None)
    else:
        pytest.importorskip("pyarrow", reason="the quick reader of CSV is pyarrow's")
    return request.param


def write(file, extension, columns):
    writer = WRITERS[extension](file, len(next(iter(columns.values()))))
    writer.write(columns)
    writer.close()


def stored(tmp_path, text, name="data.csv"):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a,b\n1,2\n3,4\n", ("a", "b")),
        ("a;b\n1;2\n3;4\n", ("a", "b")),
        ("a\tb\n1\t2\n3\t4\n", ("a", "b")),
        ("a,b\r\n1,2\r\n3,4", ("a", "b")),
        ("\ufeffa,b\n1,2\n3,4\n", ("a", "b")),
        ("\n\na,b\n\n1,2\n\n3,4\n\n", ("a", "b")),
        ("# a, b\n1, 2\n3, 4\n", ("a", "b")),
        ('"a","b"\n"1","2"\n"3","4"\n', ("a", "b")),
        ('"a, in m",b\n1,2\n3,4\n', ("a, in m", "b")),
        ('"a\nin m",b\n1,2\n3,4\n', ("a\nin m", "b")),
        (",b\n1,2\n3,4\n", ("column 1", "b")),
        ("a,a\n1,2\n3,4\n", ("a", "a")),
        ("1,2\n3,4\n", None),
        ("1e0,+2.0\n3.,4\n", None),
    ],
)
@pytest.mark.usefixtures("reader")
def test_dialects(tmp_path, text, names):
    data = read_data(stored(tmp_path, text))
    np.testing.assert_array_equal(data.x, [[1, 2], [3, 4]])
    assert data.names == names


@pytest.mark.usefixtures("reader")
def test_blanks_separate_where_nothing_else_does(tmp_path):
    np.testing.assert_array_equal(read_data(stored(tmp_path, "a  b\n1 2\n 3  4 \n", "x.txt")).x, [[1, 2], [3, 4]])
    (one,) = open_table(stored(tmp_path, "eruption time\n1\n"))
    assert one.names == ("eruption time",)


@pytest.mark.usefixtures("reader")
def test_header_can_be_forced(tmp_path):
    path = stored(tmp_path, "2019,2020\n1,2\n")
    assert read_data(path).x.shape == (2, 2)
    data = read_data(path, header="yes", columns=["2020"])
    assert data.x.tolist() == [[2.0]]
    assert data.names == ("2020",)
    with pytest.raises(InvalidDataError, match="'a' is no number"):
        read_data(stored(tmp_path, "a\n1\n"), header="no")


@given(
    st.lists(
        st.lists(st.floats(allow_nan=False, allow_infinity=False, width=64), min_size=3, max_size=3),
        min_size=1,
        max_size=20,
    )
)
def test_csv_round_trip_keeps_every_bit(tmp_path_factory, rows):
    x = np.array(rows)
    path = tmp_path_factory.getbasetemp() / "round.csv"
    with path.open("wb") as file:
        write(file, ".csv", {"a": x[:, 0], "b,c": x[:, 1], 'd"': x[:, 2]})
    part = CsvPart(path)
    assert part.names == ("a", "b,c", 'd"')
    assert np.concatenate(list(part._carefully([0, 1, 2], 0))).tobytes() == x.tobytes()
    fast = open_rows(path, columns=[2, 0]).to_array()
    assert fast.tobytes() == np.ascontiguousarray(x[:, [2, 0]]).tobytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3,x\n", r"data.csv, row 2 \(line 3\), column 'b': 'x' is no number"),
        ("a,b\n1,2\n\n3,\n", r"row 2 \(line 4\), column 'b': the value is missing; remove the row"),
        ("1,2\n3,x y z\n", r"row 2 \(line 2\), column 2: 'x y z' is no number"),
        ("a,b\n1,2\n3,nan\n", r"row 2 \(line 3\), column 'b': nan is no number"),
        ("a,b\n\n1,2\n-inf,5\n", r"row 2 \(line 4\), column 'a': -inf is no number"),
        ("a,b\n1,2\n3\n", r"row 2 \(line 3\): has 1 field, expected 2"),
        ("a,b\n1,2\n3,4,5\n", r"row 2 \(line 3\): has 3 fields, expected 2"),
        ("a,b\n1,1_000\n", r"'1_000' is no number"),
        ("a,b\n1,1e999\n", r"column 'b': inf is no number"),
        ("a,b\n", "data.csv has no rows of data"),
        ("", "data.csv is empty"),
        ("\n \n\n", "data.csv is empty"),
        ('""\n', "data.csv is empty"),
        (b"\xff\xfe1\x002\x00", "is not UTF-8 text"),
        ('a,b\n1,"2\n', "is not a CSV file"),
        ("1;2,5\n", "'2,5' is no number"),
    ],
)
@pytest.mark.usefixtures("reader")
def test_complaints_name_the_place(tmp_path, text, message):
    with pytest.raises(InvalidDataError, match=message) as caught:
        read_data(stored(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("reader")
def test_a_place_far_down_is_found(tmp_path):
    n = CHUNK_ROWS + 5
    with pytest.raises(InvalidDataError, match=rf"row {n + 1} \(line {n + 2}\), column 'b': 'oops'"):
        read_data(stored(tmp_path, "a,b\n" + "1,2\n" * n + "3,oops\n"))


@pytest.mark.usefixtures("reader")
def test_unused_columns_may_hold_anything(tmp_path):
    path = stored(tmp_path, "name,a,b\nx,1,2\n,3,4\n")
    np.testing.assert_array_equal(read_data(path, columns=["b", "a"]).x, [[2, 1], [4, 3]])
    np.testing.assert_array_equal(read_data(path, columns=["2-3"]).x, [[1, 2], [3, 4]])
    np.testing.assert_array_equal(read_data(path, columns=["3"]).x, [[2], [4]])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["c"], "data.csv has no column 'c'; its columns are a, b, w"),
        (["4"], "has no column '4'"),
        (["0"], "has no column '0'"),
        (["3-2"], "has no column '3-2'"),
        (["a", "1"], "column 'a' of .* is chosen twice"),
        (["a", "w"], "column 'w' of .* cannot be a feature and the weight"),
    ],
)
def test_wrong_columns_are_told(tmp_path, columns, message):
    with pytest.raises(InvalidDataError, match=message):
        read_data(stored(tmp_path, "a,b,w\n1,2,3\n"), columns=columns, weights="w")


def test_doubled_names_need_a_number(tmp_path):
    path = stored(tmp_path, "a,a\n1,2\n")
    with pytest.raises(InvalidDataError, match=r"several columns called 'a'; choose one by its number \(1, 2\)"):
        read_data(path, columns=["a"])
    assert read_data(path, columns=["2"]).x.tolist() == [[2.0]]


def test_very_many_columns_are_not_all_listed(tmp_path):
    path = stored(tmp_path, ",".join(f"c{i}" for i in range(1000)) + "\n" + ",".join("1" * 1000) + "\n")
    with pytest.raises(InvalidDataError, match="c19 and 980 more") as caught:
        read_data(path, columns=["x"])
    assert len(str(caught.value)) < 400


def test_weights_from_a_column_or_a_file(tmp_path):
    path = stored(tmp_path, "a,w\n1,2\n3,4\n")
    data = read_data(path, weights="w")
    assert data.names == ("a",)
    np.testing.assert_array_equal(data.weights, [2, 4])
    np.save(tmp_path / "w.npy", np.array([5.0, 6.0]))
    data = read_data(path, weights=str(tmp_path / "w.npy"))
    assert data.names == ("a", "w")
    np.testing.assert_array_equal(data.weights, [5, 6])
    np.save(tmp_path / "w.npy", np.array([5.0, 6.0, 7.0]))
    with pytest.raises(InvalidDataError, match=r"has 3 weights, but .* has 2 rows"):
        read_data(path, weights=str(tmp_path / "w.npy"))
    with pytest.raises(InvalidDataError, match="expected one column of weights, got 2"):
        read_data(path, weights=path)
    with pytest.raises(InvalidDataError, match="has no column 'v'; its columns are a, w"):
        read_data(path, weights="v")


def test_the_models_features_are_found_by_name(tmp_path):
    path = stored(tmp_path, "id,b,a\nx,2,1\n")
    assert read_data(path, expected=["a", "b"], n_expected=2).x.tolist() == [[1.0, 2.0]]
    with pytest.raises(
        InvalidDataError, match=r"has no column 'c', which the model was fitted on; its columns are id, b"
    ):
        read_data(path, expected=["a", "c"], n_expected=2)
    with pytest.raises(InvalidDataError, match="gives 1 column, but the model has 2 features"):
        read_data(path, columns=["a"], expected=["a", "b"], n_expected=2)
    unnamed = stored(tmp_path, "1,2\n", "unnamed.csv")
    assert read_data(unnamed, expected=["a", "b"], n_expected=2).x.tolist() == [[1.0, 2.0]]


def test_standard_input(monkeypatch):
    class Stdin:
        buffer = io.BytesIO(b"a,b\n1,2\n3,oops\n")

    monkeypatch.setattr(sys, "stdin", Stdin)
    with pytest.raises(InvalidDataError, match=r"standard input, row 2 \(line 3\), column 'b': 'oops'"):
        read_data("-")


def test_npy(tmp_path):
    path = tmp_path / "x.npy"
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.save(path, x)
    data = read_data(str(path))
    assert isinstance(data.x, np.memmap)
    assert data.x.dtype == np.float32
    np.testing.assert_array_equal(data.x, x)
    np.testing.assert_array_equal(read_data(str(path), columns=["2"]).x, x[:, 1:])
    np.save(path, x[:, 0])
    assert read_data(str(path)).x.shape == (3, 1)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[1.0, 2.0], [3.0, np.nan]]), r"x.npy, row 2, column 2: nan is no number"),
        (np.array([["a", "b"]]), "holds values of type <U1"),
        (np.array([[1j]]), "holds values of type complex128"),
        (np.zeros((2, 2, 2)), r"has shape \(2, 2, 2\)"),
        (np.zeros((0, 2)), "x.npy has no rows of data"),
        (np.zeros(()), r"has shape \(\)"),
        (np.array([{}]), "is not a .npy file of numbers"),
    ],
)
def test_npy_complaints(tmp_path, array, message):
    path = tmp_path / "x.npy"
    np.save(path, array, allow_pickle=True)
    with pytest.raises(InvalidDataError, match=message):
        read_data(str(path))


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\x01\x00", b"PK\x03\x04"])
def test_files_that_are_no_npy(tmp_path, content):
    with pytest.raises(InvalidDataError, match=r"x\.npy is (empty|not a \.npy file)"):
        read_data(stored(tmp_path, content, "x.npy"))


def test_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="Parquet files need pyarrow")
    from pyarrow import parquet

    path = str(tmp_path / "x.parquet")
    single = pa.array([0.5, 1.5], pa.float32())
    parquet.write_table(pa.table({"name": ["x", "y"], "a": single, "b": [1, 2], "c": [1.0, None]}), path)
    data = read_data(path, columns=["b", "a"])
    np.testing.assert_array_equal(data.x, [[1, 0.5], [2, 1.5]])
    assert data.x.dtype == np.float64
    assert read_data(path, columns=["a"]).x.dtype == np.float32
    with pytest.raises(InvalidDataError, match="column 'name': holds values of type string, expected numbers"):
        read_data(path)
    with pytest.raises(InvalidDataError, match="row 2, column 'c': the value is missing"):
        read_data(path, columns=["c"])
    with pytest.raises(InvalidDataError, match="is not a Parquet file"):
        read_data(stored(tmp_path, "text", "y.parquet"))
    with pytest.raises(InvalidDataError, match="is empty"):
        read_data(stored(tmp_path, "", "z.parquet"))
    whole = (tmp_path / "x.parquet").read_bytes()
    with pytest.raises(InvalidDataError, match=r"d\.parquet is not a Parquet file"):
        read_data(stored(tmp_path, whole[:-20], "d.parquet"), columns=["a"])


def test_pandas_index_is_no_feature(tmp_path):
    pandas = pytest.importorskip("pandas", reason="writes a table with pandas")
    pytest.importorskip("pyarrow", reason="pandas writes Parquet files with pyarrow")
    pandas.DataFrame({"a": [1.0, 2.0]}, index=[5, 7]).to_parquet(tmp_path / "x.parquet")
    assert read_data(str(tmp_path / "x.parquet")).names == ("a",)


def test_parquet_without_pyarrow_says_how_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InvalidDataError, match=r"pip install 'fastgmm\[parquet\]'"):
        read_data(stored(tmp_path, "x", "x.parquet"))


def test_unknown_extension_and_missing_files(tmp_path):
    with pytest.raises(InvalidDataError, match=r"cannot tell its format.*\.csv"):
        read_data(stored(tmp_path, "1", "x.xlsx"))
    with pytest.raises(FileNotFoundError):
        read_data(str(tmp_path / "none.csv"))
    with pytest.raises(InvalidDataError, match="a folder without files of a known format"):
        read_data(str(tmp_path))


@pytest.mark.parametrize("extension", WRITERS)
def test_results_read_back(tmp_path, extension):
    if extension == ".parquet":
        pytest.importorskip("pyarrow", reason="Parquet files need pyarrow")
    columns = {"label": np.array([0, 2, 1]), "p": np.array([0.1, 1 / 3, 1e-300])}
    path = tmp_path / f"out{extension}"
    with path.open("wb") as file:
        write(file, extension, columns)
    if extension == ".json":
        assert json.loads(path.read_text()) == {name: column.tolist() for name, column in columns.items()}
    else:
        np.testing.assert_array_equal(read_data(str(path)).x, np.column_stack(list(columns.values())))


def test_one_column_of_npy_keeps_its_type(tmp_path):
    with (tmp_path / "x.npy").open("wb") as file:
        write(file, ".npy", {"label": np.array([1, 2])})
    assert np.load(tmp_path / "x.npy").tolist() == [1, 2]


def test_json_has_no_nan():
    assert json.loads(to_json({"a": np.array([1.0, np.nan, -np.inf]), "b": (np.int64(1), None, True)})) == {
        "a": [1.0, None, None],
        "b": [1, None, True],
    }
    with pytest.raises(TypeError):
        to_json(object())


@pytest.mark.parametrize(("text", "names"), [("a,b", ["a", "b"]), ('"x, y", 2-3', ["x, y", "2-3"])])
def test_parse_columns(text, names):
    assert parse_columns(text) == names
    with pytest.raises(ValueError, match="separated by commas"):
        parse_columns(text + ",")
