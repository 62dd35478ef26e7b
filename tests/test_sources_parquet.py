"""Parquet: two ways to decode, one result; Arrow columns of every type of number, without pandas."""

import decimal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastgmm import InvalidDataError, open_rows
from fastgmm.data.cutting import BLOCK_BYTES
from fastgmm.data.formats import parquet
from fastgmm.data.formats.columns import column_dtype, column_values
from fastgmm.data.formats.parquet import ParquetPart
from fastgmm.data.opening import HEAVY
from tests import sources
from tests.test_sources import BLOCK, rows

TOP = Path(__file__).parents[1]
ROWS = 1000

NUMBERS = [
    pa.float16(),
    pa.float32(),
    pa.float64(),
    *(getattr(pa, f"{sign}int{bits}")() for sign in ("", "u") for bits in (8, 16, 32, 64)),
]


def some(kind, missing):
    """Numbers of an Arrow type, a third of them missing if asked for."""
    rng = np.random.default_rng(0)
    mask = (np.arange(ROWS) % 3 == 1) if missing else None
    if pa.types.is_boolean(kind):
        return pa.array(rng.integers(0, 2, ROWS) == 1, mask=mask)
    if pa.types.is_decimal(kind):
        values = [decimal.Decimal(int(v)) / 4 for v in rng.integers(-99, 99, ROWS)]
        return pa.array([None if missing and i % 3 == 1 else v for i, v in enumerate(values)], kind)
    return pa.array(rng.integers(0, 120, ROWS).astype(kind.to_pandas_dtype()), kind, mask=mask)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("kind", [*NUMBERS, pa.bool_(), pa.decimal128(9, 2)], ids=str)
def test_columns_are_what_pyarrow_says(kind, missing):
    """Of any offset, since batches are slices; NaN where a value is missing."""
    whole = some(kind, missing)
    assert column_dtype(kind) == (np.float32 if kind == pa.float32() else np.float64)
    for first, n in ((0, ROWS), (1, ROWS - 1), (13, 400), (ROWS - 3, 3), (5, 0)):
        column = whole.slice(first, n)
        expected = np.array([np.nan if v is None else float(v) for v in column.to_pylist()])
        np.testing.assert_array_equal(column_values(column).astype(float), expected)


def test_columns_without_missing_values_are_not_copied():
    values = np.arange(50.0)
    assert np.shares_memory(column_values(pa.array(values)[7:]), values)


@pytest.mark.parametrize("in_step", [False, True])
@pytest.mark.parametrize("group", [90, 333, ROWS])
def test_both_ways_read_the_same(tmp_path, monkeypatch, in_step, group):
    """Columns of many types, with missing values in some row groups only; from any row on, and up to any."""
    kinds = [pa.float32(), pa.int64(), pa.bool_(), pa.int8(), pa.float64()]
    columns = [some(kind, missing=False) for kind in kinds]
    holes = columns[1].to_pylist()
    holes[400] = holes[401] = None
    columns[1] = pa.array(holes, pa.int64())
    names = [f"c{j}" for j in range(len(kinds))]
    pq.write_table(pa.table(columns, names=names), tmp_path / "x.parquet", row_group_size=group)
    if in_step:
        monkeypatch.setattr(parquet, "RUN_BYTES", 1)
        monkeypatch.setattr(ParquetPart, "_in_step_bytes", lambda *_: 1)
        monkeypatch.setattr(parquet, "STEP_BYTES", 64)
        monkeypatch.setattr(parquet, "BATCH_ROWS", 2)
    part = ParquetPart(tmp_path / "x.parquet")
    expected = np.array([[np.nan if v is None else float(v) for v in c.to_pylist()] for c in columns]).T
    for start, stop in ((0, ROWS), (1, ROWS), (89, 91), (400, 700), (666, ROWS), (333, 334)):
        found = []
        for piece in part.until(stop).pieces((2, 1, 0), 4, start):
            x, w = np.empty((piece.n_rows, 3)), np.empty(piece.n_rows)
            piece.copy(0, piece.n_rows, x, w)
            found.append(np.column_stack([x, w]))
        np.testing.assert_array_equal(np.concatenate(found)[: stop - start], expected[start:stop][:, [2, 1, 0, 4]])
    assert [part.is_missing(row, 1) for row in (399, 400, 401, 402)] == [False, True, True, False]


def test_what_it_holds_is_stated(tmp_path):
    """Of the two ways the one that takes less: a dictionary and a page for each column."""
    x = rows(150_000)
    made = {}
    for name, group, options in (
        ("small", 10_000, {}),
        ("plain", 150_000, {"use_dictionary": False, "compression": "none"}),
        ("dictionary", 150_000, {"dictionary_pagesize_limit": 1 << 24}),
    ):
        pq.write_table(sources.table(x), tmp_path / name, row_group_size=group, **options)
        made[name] = ParquetPart(tmp_path / name)
    page, buffers = 1 << 20, 3 * parquet.BUFFER_BYTES
    run = parquet.STEP_BYTES + 2 * page
    assert made["small"].held_bytes([0, 1, 2]) == parquet.RUN_BYTES
    assert made["plain"]._in_step_bytes([0, 1, 2]) == 3 * page + buffers + run
    column = made["dictionary"]._in_step_bytes([0]) - run
    assert made["dictionary"]._in_step_bytes([0, 1, 2]) - run == pytest.approx(3 * column, rel=0.01)
    indices = 150_000 * 18 / 8
    assert column == pytest.approx(150_000 * 8 + indices + parquet.BUFFER_BYTES, rel=0.05)


def test_blocks_are_smaller_where_the_decoder_takes_much(tmp_path, monkeypatch):
    path = sources.write(tmp_path, "parquet-777", rows())
    assert open_rows(path)._selection.block_bytes == BLOCK_BYTES
    assert open_rows(path, block_bytes=12345)._selection.block_bytes == 12345
    monkeypatch.setattr(parquet, "RUN_BYTES", HEAVY + 1)
    assert open_rows(path)._selection.block_bytes == BLOCK_BYTES // 4
    assert open_rows(path, block_bytes=12345)._selection.block_bytes == 12345


def test_columns_of_unequal_length_are_damage(tmp_path, monkeypatch):
    path = sources.write(tmp_path, "parquet-777", rows())
    stored = parquet._batches

    def without_some(file, groups, name, n_rows):
        for batch in stored(file, groups, name, n_rows):
            yield batch.slice(1) if name == "b" else batch

    monkeypatch.setattr(parquet, "_batches", without_some)
    with pytest.raises(InvalidDataError, match=r"p777\.parquet is damaged: column 'b' has \d+ rows where"):
        open_rows(path, block_bytes=BLOCK).to_array()
    monkeypatch.setattr(ParquetPart, "_in_step_bytes", lambda *_: 1)
    monkeypatch.setattr(parquet, "RUN_BYTES", 1)
    with pytest.raises(InvalidDataError, match=r"p777\.parquet is damaged: column 'b' has \d+ rows where"):
        open_rows(path, block_bytes=BLOCK).to_array()


def test_columns_of_one_name(tmp_path):
    pq.write_table(pa.table([pa.array([1.0, 2.0])] * 3, names=["a", "b", "a"]), tmp_path / "x.parquet")
    with pytest.raises(InvalidDataError, match=r"several columns called 'a'; choose others"):
        open_rows(tmp_path / "x.parquet")
    assert open_rows(tmp_path / "x.parquet", columns=["b"]).n_rows == 2


def test_pandas_is_not_imported(tmp_path):
    """It would be 45 MB of memory for nothing."""
    x = rows(5000)
    paths = [str(sources.write(tmp_path, kind, x)) for kind in ("parquet-777", "feather", "csv")]
    code = f"""
import sys
sys.path.insert(0, {str(TOP)!r})
import fastgmm
for path in {paths}:
    model = fastgmm.GaussianMixture(2, random_state=0).fit(fastgmm.open_rows(path, block_bytes={BLOCK}))
    model.predict(path, out={str(tmp_path / "labels.parquet")!r})
print(sorted({{name.partition(".")[0] for name in sys.modules}} & {{"pyarrow", "pandas"}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "['pyarrow']\n", done.stderr
    assert pq.read_table(tmp_path / "labels.parquet")["label"].type == pa.int64()
