"""CSV files: find the header, read the numbers, point at what is no number.

1. Two ways to read, one meaning. `_carefully` (the standard library's ``csv``, in chunks of rows) defines what a file
   means and writes the messages. Where pyarrow is installed it parses first, ten times as fast and strictly; what it
   refuses goes to the careful reader, from that row on, which then accepts it or says what is wrong and where.
2. The first line is a header if it holds no number. A line of names and numbers is taken for data, because an error
   about a word is better than a lost row. ``header`` decides the rest.
3. Both read in pieces of a few MB. How many rows there are is known only after a pass over the whole file.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from fastgmm.data.formats.base import ArrayPiece, ColumnPiece, Part, Piece, file_stamp, new_stage, skipped
from fastgmm.data.formats.columns import column_values
from fastgmm.errors import InvalidDataError
from fastgmm.typing import Float64Array

CHUNK_ROWS = 1 << 14  # rows the careful reader holds as text: a few MB, whatever the size of the file
BLOCK_BYTES = 1 << 20  # text that pyarrow parses at a time
DELIMITERS = "\t;,"  # tried in this order: a comma may stand inside numbers or names of the other two
REMEDY = "remove the row or fill the value in."


class CsvPart(Part):
    """A delimited text file: UTF-8, with or without a header.

    The delimiter is the tab, semicolon or comma of the first line; blanks in a file without those that is not called
    .csv. Empty lines are skipped.

    Parameters
    ----------
    content : Path or bytes
        The file, or what was in it.
    header : {"auto", "yes", "no"}, default "auto"
        Whether the first line names the columns; "auto" looks whether it holds a number.
    source : str, optional
        What messages call it; the path if not given.

    Raises
    ------
    InvalidDataError
        If the file is empty or no UTF-8 text.
    OSError
        If it cannot be read.
    """

    def __init__(self, content: Path | bytes, header: str = "auto", source: str | None = None) -> None:
        self.source = str(content) if source is None else source
        self.n_rows = None
        self._content = content
        try:
            with self._open() as file:
                line = next((line for line in file if line.strip()), "")
                self._delimiter = _delimiter_of(line, isinstance(content, Path) and content.suffix.lower() == ".csv")
                file.seek(0)
                first, self._header_lines = next(self._records(file), ([], 0))
        except (UnicodeDecodeError, csv.Error) as error:
            raise self._not_text(error) from error
        if not first:
            msg = f"{self.source} is empty: expected rows of numbers, with or without a line of column names."
            raise InvalidDataError(msg)
        self.named = header == "yes" or (header == "auto" and _is_header(first))
        if self.named:
            first[0] = first[0].removeprefix("#")  # numpy.savetxt writes its header as a comment
            self.names = tuple(name.strip() or f"column {j}" for j, name in enumerate(first, start=1))
        else:
            self.names = tuple(str(j) for j in range(1, len(first) + 1))
            self._header_lines = 0

    def dtype(self, columns: Sequence[int]) -> np.dtype[Any]:  # noqa: ARG002 - text has no type
        """Return float64."""
        return np.dtype(np.float64)

    def held_bytes(self, columns: Sequence[int]) -> int:  # noqa: ARG002 - lines are parsed whole
        """Return the text that is parsed at a time, and what becomes of it."""
        return 8 * BLOCK_BYTES

    def stamp(self) -> object:
        """Return size, time and identity of the file."""
        return file_stamp(self._content) if isinstance(self._content, Path) else None

    def place(self, row: int) -> str:
        """Say which row it is and on which line of the file it ends."""
        with self._open() as file:
            records = self._records(file)
            _, line = next(islice(records, row + self.named, None), (None, 0))
        return f"row {row + 1} (line {line})"

    def pieces(self, columns: Sequence[int], weight: int | None, start: int) -> Iterator[Piece]:
        """Yield one piece a chunk of text.

        Raises
        ------
        InvalidDataError
            If a row has too few or too many fields, or a chosen field is no number; the message says where.
        """
        wanted = [*columns] if weight is None else [*columns, weight]
        yield from skipped(self._all(wanted, None if weight is None else len(columns)), start)

    def _all(self, wanted: Sequence[int], weight: int | None) -> Iterator[Piece]:
        """Yield all rows; the weights, if any, are the last of the columns wanted."""
        done = 0
        for piece in self._fast(wanted, weight):
            if piece is None:
                return
            done += piece.n_rows
            yield piece
        n_features = len(wanted) if weight is None else weight
        for values in self._carefully(wanted, done):
            yield ArrayPiece(values, range(n_features), weight)

    def _fast(self, wanted: Sequence[int], weight: int | None) -> Iterator[ColumnPiece | None]:
        """Read with pyarrow, None comes last; end without it where pyarrow is missing, or refuses the file."""
        try:
            import pyarrow as pa
            import pyarrow.csv as pa_csv
        except ImportError:
            return
        if self._delimiter is None:
            return
        positions = [str(j) for j in range(len(self.names))]
        chosen = [positions[j] for j in wanted]
        in_memory = isinstance(self._content, bytes)
        stage = new_stage()
        try:
            with pa_csv.open_csv(
                pa.BufferReader(self._content) if in_memory else str(self._content),
                read_options=pa_csv.ReadOptions(
                    skip_rows=self._header_lines, column_names=positions, block_size=BLOCK_BYTES
                ),
                parse_options=pa_csv.ParseOptions(delimiter=self._delimiter),
                convert_options=pa_csv.ConvertOptions(
                    include_columns=chosen,
                    column_types=dict.fromkeys(chosen, pa.float64()),
                    null_values=[],  # an empty field is an error with a place, not a NaN
                ),
            ) as reader:
                for batch in reader:
                    if batch.num_rows:
                        read = [column_values(column) for column in batch.columns]
                        yield ColumnPiece(read[:weight], None if weight is None else read[weight], stage)
        except (pa.ArrowException, ValueError, OSError):
            return
        yield None

    def _carefully(self, wanted: Sequence[int], skip: int) -> Iterator[Float64Array]:
        """Read with the standard library from row `skip` on; every failure names row, line and column."""
        row = skip
        try:
            with self._open() as file:
                records = self._records(file)
                next(islice(records, skip + self.named, skip + self.named), None)
                while chunk := list(islice(records, CHUNK_ROWS)):
                    yield self._convert(chunk, wanted, row)
                    row += len(chunk)
        except (UnicodeDecodeError, csv.Error) as error:
            raise self._not_text(error) from error

    def _convert(self, chunk: list[tuple[list[str], int]], columns: Sequence[int], row: int) -> Float64Array:
        """Convert the chosen fields of some rows, the first of which has number `row`."""
        width = len(self.names)
        for offset, (fields, line) in enumerate(chunk):
            if len(fields) != width:
                has = "1 field" if len(fields) == 1 else f"{len(fields)} fields"
                msg = f"{self.source}, row {row + offset + 1} (line {line}): has {has}, expected {width}."
                raise InvalidDataError(msg)
        values = np.empty((len(chunk), len(columns)))
        for j, column in enumerate(columns):
            texts = [fields[column] for fields, _ in chunk]
            try:
                values[:, j] = np.fromiter(map(_number, texts), np.float64, len(texts))
            except ValueError:
                offset = next(i for i, text in enumerate(texts) if not _is_number(text))
                text = texts[offset].strip()
                what = f"'{text[:40]}' is no number" if text else "the value is missing"
                remedy = REMEDY if not text else "correct it, or choose numeric columns with --columns."
                where = f"row {row + offset + 1} (line {chunk[offset][1]})"
                msg = f"{self.source}, {where}, {self._label(column)}: {what}; {remedy}"
                raise InvalidDataError(msg) from None
        return values

    def _label(self, column: int) -> str:
        return f"column '{self.names[column]}'" if self.named else f"column {self.names[column]}"

    @contextmanager
    def _open(self) -> Iterator[TextIO]:
        """Open the content as text; "utf-8-sig" drops the mark that spreadsheets put first."""
        raw = io.BytesIO(self._content) if isinstance(self._content, bytes) else self._content.open("rb")
        with io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file:
            yield file

    def _records(self, file: TextIO) -> Iterator[tuple[list[str], int]]:
        """Yield the fields of each record that is not empty, and the number of the line it ends on."""
        if self._delimiter is None:
            for number, line in enumerate(file, start=1):
                if fields := line.split():
                    yield fields, number
            return
        reader = csv.reader(file, delimiter=self._delimiter, skipinitialspace=True, strict=True)
        for fields in reader:
            if fields and (len(fields) > 1 or fields[0].strip()):
                yield fields, reader.line_num

    def _not_text(self, error: Exception) -> InvalidDataError:
        """Build the error for a file that is no delimited text at all."""
        what = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else f"not a CSV file ({error})"
        return InvalidDataError(f"{self.source} is {what}; expected lines of numbers separated by commas.")


def _delimiter_of(line: str, is_csv: bool) -> str | None:
    """Return the delimiter of a line, None for blanks; what stands in quotes does not count.

    A file called .csv is never split at blanks: "eruption time" is then the name of its only column.
    """
    outside = "".join(line.split('"')[::2])
    found = next((mark for mark in DELIMITERS if mark in outside), None)
    if found is None and (is_csv or len(outside.removeprefix("#").split()) < 2):
        return ","
    return found


def _is_header(fields: Sequence[str]) -> bool:
    """Whether a first line names columns: it holds some text and no number."""
    return any(field.strip() for field in fields) and not any(_is_number(field) for field in fields)


def _is_number(text: str) -> bool:
    try:
        _number(text)
    except ValueError:
        return False
    return True


def _number(text: str) -> float:
    """Convert as float() does, but for ``1_000``: to Python a number, in a file more likely a name."""
    if "_" in text:
        msg = f"could not convert string to float: {text!r}"
        raise ValueError(msg)
    return float(text)
