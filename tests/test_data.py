"""Row sources: every way to hold rows gives the same rows, and every bad input one clear sentence."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from fastgmm.data import BLOCK_BYTES, ArrayRows, CopiedRows, as_rows, feature_names, raise_non_finite
from fastgmm.errors import InvalidDataError, InvalidDataTypeError, InvalidParameterError, NonFiniteDataError


def collect(rows, multiple=7):
    """All rows and weights of a source, after checking what every source promises."""
    blocks = list(rows.blocks(multiple))
    assert all(len(b.x) % multiple == 0 for b in blocks[:-1])
    assert [b.first for b in blocks] == list(np.cumsum([0] + [len(b.x) for b in blocks[:-1]]))
    for b in blocks:
        assert b.x.dtype == rows.dtype
        assert b.x.dtype.isnative
        assert b.x.flags.c_contiguous
        assert b.x.flags.aligned
        assert (b.weight is not None) == rows.weighted
        if b.weight is not None:
            assert b.weight.dtype == np.float64
            assert len(b.weight) == len(b.x)
            assert (b.weight > 0).all()
    x = np.concatenate([b.x for b in blocks])
    assert x.shape == (rows.n_rows, rows.n_features)
    return x, np.concatenate([b.weight for b in blocks]) if rows.weighted else None


X = np.random.default_rng(0).normal(size=(50, 3))
UNALIGNED = np.frombuffer(b"\0" + X.tobytes(), dtype=np.uint8)[1:].view(np.float64).reshape(X.shape)
READ_ONLY = X.copy()
READ_ONLY.setflags(write=False)


@pytest.mark.parametrize(
    "data",
    [
        X,
        np.asfortranarray(X),
        np.repeat(X, 2, axis=0)[::2],
        X[::-1][::-1],
        X.astype(">f8"),
        UNALIGNED,
        READ_ONLY,
        X.tolist(),
        tuple(map(tuple, X)),
        X.astype(object),
        X.astype(np.longdouble),
        pd.DataFrame(X, columns=list("abc")),
        pd.DataFrame(X).astype({0: "Float64"}),
        pl.DataFrame(X, schema=list("abc")),
        pa.table({name: X[:, i] for i, name in enumerate("abc")}),
        pa.RecordBatch.from_pydict({name: X[:, i] for i, name in enumerate("abc")}),
    ],
    ids=lambda data: type(data).__name__,
)
@pytest.mark.parametrize("weighted", [False, True])
def test_every_container_gives_the_same_rows(data, weighted):
    weight = np.arange(50) % 4 if weighted else None
    rows = as_rows(data, weight)
    x, w = collect(rows)
    kept = slice(None) if weight is None else weight > 0
    np.testing.assert_array_equal(x, X[kept])
    if weighted:
        np.testing.assert_array_equal(w, weight[kept])
        assert rows.total_weight == weight.sum()


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.int64, np.uint8, bool])
def test_other_number_types_become_float64(dtype):
    data = (np.abs(X) * 3).astype(dtype)
    x, _ = collect(as_rows(data))
    assert x.dtype == np.float64
    np.testing.assert_array_equal(x, data.astype(np.float64))


@pytest.mark.parametrize(
    "data",
    [
        X.astype(np.float32),
        X.astype(">f4"),
        pd.DataFrame(X, dtype="float32"),
        pl.DataFrame(X.astype(np.float32)),
        pa.table({"a": X[:, 0].astype(np.float32)}),
    ],
)
def test_float32_stays(data):
    assert as_rows(data).dtype == np.float32
    assert as_rows(data, dtype=np.float64).dtype == np.float64


def test_a_c_array_is_one_block_without_a_copy():
    (block,) = as_rows(X).blocks(16)
    assert block.x is X or np.shares_memory(block.x, X)
    weight = np.full(50, 2.0)
    (block,) = as_rows(X, weight).blocks(16)
    assert np.shares_memory(block.x, X)
    assert np.shares_memory(block.weight, weight)


def test_a_memory_map_is_read_in_place(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    (block,) = as_rows(mapped).blocks(16)
    assert np.shares_memory(block.x, mapped)


@pytest.mark.parametrize("weighted", [False, True])
def test_large_data_in_another_layout_come_in_small_blocks(weighted):
    big = np.asfortranarray(np.random.default_rng(1).normal(size=(BLOCK_BYTES // 16, 5)))
    weight = np.arange(len(big)) % 3 if weighted else None
    rows = as_rows(big, weight)
    assert isinstance(rows, CopiedRows)
    assert all(b.x.nbytes <= BLOCK_BYTES for b in rows.blocks(64))
    x, _ = collect(rows, 64)
    np.testing.assert_array_equal(x, big if weight is None else big[weight > 0])


@given(
    st.lists(st.sampled_from([0.0, 1.0, 2.5]), min_size=1, max_size=40).filter(any),
    st.integers(1, 9),
)
def test_weight_zero_is_a_row_removed(weight, multiple):
    weight = np.array(weight)
    data = np.arange(2.0 * len(weight)).reshape(-1, 2)
    source = as_rows(np.asfortranarray(data), weight)
    copied = CopiedRows(source._original[0], source._original[1]) if (weight == 0).any() else source
    for rows in (source, copied):
        x, w = collect(rows, multiple)
        np.testing.assert_array_equal(x, data[weight > 0])
        np.testing.assert_array_equal(w, weight[weight > 0])


@pytest.mark.parametrize("size", [1e300, 1e-300, 5e-324, 1.7e308])
def test_extreme_weights_are_scaled_by_a_power_of_two(size):
    weight = np.array([1.0, 0.5, 0.25]) * size
    rows = as_rows(X[:3], weight)
    _, w = collect(rows)
    assert 2.0**-52 <= w.max() <= 1.0  # subnormal weights keep some of their smallness
    np.testing.assert_array_equal(w / rows.weight_scale, weight[weight > 0])
    assert np.isfinite(rows.total_weight)


def test_a_weight_lost_in_scaling_counts_as_zero():
    assert as_rows(X[:3], [1e300, 1e-300, 1e300]).n_rows == 2


def test_scalar_weight():
    assert as_rows(X, 2).total_weight == 100.0


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        (np.full(50, np.nan), ["sample_weight", "row 0", "NaN"]),
        (-np.ones(50), ["sample_weight", "negative", "-1.0"]),
        (np.full(50, np.inf), ["sample_weight", "infinite"]),
        (np.zeros(50), ["weight", "zero"]),
        (0, ["weight", "zero"]),
        (np.ones(49), ["sample_weight", "(50,)", "(49,)"]),
        (np.ones((50, 1)), ["sample_weight", "(50,)", "(50, 1)"]),
        (["a"] * 50, ["sample_weight"]),
        (np.full(50, 1j), ["sample_weight", "complex"]),
    ],
)
def test_bad_weights(weight, words):
    with pytest.raises(InvalidDataError) as caught:
        as_rows(X, weight)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (X[0], InvalidDataError, ["Expected 2D array, got 1D array", "Reshape your data", "(3,)"]),
        (3.0, InvalidDataError, ["Expected 2D array, got scalar"]),
        (X[None], InvalidDataError, ["dim 3", "(1, 50, 3)"]),
        (X[:0], InvalidDataError, ["0 sample(s)", "a minimum of 1 is required"]),
        (X[:, :0], InvalidDataError, ["0 feature(s)", "a minimum of 1 is required"]),
        (X + 1j, InvalidDataError, ["Complex data not supported"]),
        (scipy.sparse.csr_array(X), InvalidDataTypeError, ["Sparse", "toarray"]),
        (np.ma.masked_array(X), InvalidDataTypeError, ["masked"]),
        (np.asmatrix(X), InvalidDataTypeError, ["np.matrix"]),
        (b"text", InvalidDataTypeError, ["bytes"]),
        ((row for row in X), InvalidDataTypeError, ["got generator. Pass a function that", "open_rows"]),
        (lambda: [X], InvalidDataTypeError, ["got function. Pass a function that", "open_rows"]),
        (object(), InvalidDataTypeError, ["(n_samples, n_features); got object"]),
        (None, InvalidDataTypeError, ["NoneType"]),
        ({"a": [1, 2]}, InvalidDataTypeError, ["dict"]),
        ([[1, 2], [3]], InvalidDataError, ["X must be an array-like"]),
        ([["a", "b"]], InvalidDataError, ["could not convert string"]),
        (np.array([[{}, 1]], dtype=object), InvalidDataTypeError, ["argument must be a string or a real number"]),
        (X.astype("M8[s]"), InvalidDataTypeError, ["datetime64"]),
        (pd.DataFrame({"a": [1.0], "name": pd.Categorical(["x"])}), InvalidDataError, ["'name'"]),
        (pd.DataFrame({"a": [1.0], "name": ["x"]}), InvalidDataError, ["X must hold numbers only"]),
        (pd.DataFrame(), InvalidDataError, ["0 sample(s)"]),
        (pl.DataFrame({"a": [1.0], "name": ["x"]}), InvalidDataError, ["'name'"]),
        (pl.LazyFrame({"a": [1.0]}), InvalidDataTypeError, ["collect"]),
        (pa.table({"a": [1.0], "name": ["x"]}), InvalidDataError, ["'name'"]),
        (pd.Series([1.0, 2.0]), InvalidDataError, ["Reshape your data"]),
    ],
)
def test_bad_data(data, error, words):
    with pytest.raises(error) as caught:
        as_rows(data)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_bad_dtype():
    with pytest.raises(InvalidParameterError, match="float32 or float64"):
        as_rows(X, dtype=np.int32)


def test_missing_values_of_tables_become_nan():
    for table in (
        pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": [1.0, 2.0]}),
        pl.DataFrame({"a": [1, None], "b": [1.0, 2.0]}),
        pa.table({"a": [1, None], "b": [1.0, 2.0]}),
    ):
        rows = as_rows(table)
        x, _ = collect(rows)
        np.testing.assert_array_equal(x, [[1, 1], [np.nan, 2]])
        with pytest.raises(NonFiniteDataError, match=r"row 1, column 'a' is NaN") as caught:
            raise_non_finite(rows.originals(), names=rows.names)
        assert (caught.value.row, caught.value.column) == (1, 0)


def test_non_finite_values_are_named_in_the_users_numbering():
    data = X.copy()
    data[4] = np.nan
    data[7, 2] = -np.inf
    weight = np.ones(50)
    weight[4] = 0.0  # does not count, so may hold anything
    rows = as_rows(data, weight)
    with pytest.raises(NonFiniteDataError, match="row 7, column 2 is -infinity"):
        raise_non_finite(rows.originals(), names=rows.names)
    raise_non_finite(as_rows(X).originals(), names=None)
    assert isinstance(as_rows(X), ArrayRows)


def test_feature_names():
    assert feature_names(pd.DataFrame(X, columns=list("abc"))) == ("a", "b", "c")
    assert feature_names(pl.DataFrame(X, schema=list("abc"))) == ("a", "b", "c")
    assert feature_names(pa.table({"a": [1.0]})) == ("a",)
    assert feature_names(pd.DataFrame(X)) is None
    assert feature_names(X) is None
    assert feature_names([[1.0]]) is None
    with pytest.raises(TypeError, match="only supported if all input features have string names"):
        feature_names(pd.DataFrame(X, columns=["a", 1, "b"]))


def test_no_table_library_is_imported():
    import subprocess
    import sys

    code = (
        "import sys, numpy as np; from fastgmm.data import as_rows; as_rows(np.eye(2)); as_rows([[1.0]]);"
        "print(sorted({'pandas', 'polars', 'pyarrow', 'sklearn', 'numba', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
