"""What a command writes: opened before the work, renamed into place after it, together or not at all."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from fastgmm.cli.results import WRITERS, Collected, to_json
from fastgmm.data.results import Columns, CsvWriter
from fastgmm.errors import InvalidDataError, InvalidParameterError
from fastgmm.files import replacing

__all__ = ["check_model_name", "emit", "opened", "print_columns", "result_format", "write_columns"]

MODEL_SUFFIX: Final = ".npz"


@contextmanager
def opened(*paths: str | None, inputs: tuple[str | None, ...] = ()) -> Iterator[list[BinaryIO | None]]:
    """Open all files a command will write; they appear when the block ends without an exception.

    Parameters
    ----------
    *paths : str or None
        Files to write; None where the user asked for none.
    inputs : tuple of str or None
        Files the command reads.

    Yields
    ------
    list of binary files or None
        In the order of `paths`.

    Raises
    ------
    InvalidParameterError
        If two of them are one file, or one is an input.
    OSError
        If one cannot be written.
    """
    seen = {os.path.realpath(name) for name in inputs if name is not None}
    for path in paths:
        if path is None or Path(path).is_char_device():
            continue
        if os.path.realpath(path) in seen:
            msg = f"'{path}' is read or written already by this command; choose another name."
            raise InvalidParameterError(msg)
        seen.add(os.path.realpath(path))
    with ExitStack() as stack:
        yield [None if path is None else stack.enter_context(replacing(path)) for path in paths]


def check_model_name(path: str | None) -> None:
    """Refuse a model file with the name of a table, which a later command could not tell from data.

    Raises
    ------
    InvalidParameterError
        If the name does not end in .npz.
    """
    if path is not None and Path(path).suffix.lower() != MODEL_SUFFIX:
        msg = f"--out: a model file ends in {MODEL_SUFFIX}, got '{path}'; for text use --json."
        raise InvalidParameterError(msg)


def result_format(path: str | None) -> str:
    """Return the key in `WRITERS` for a result file, ".csv" for the standard output.

    Raises
    ------
    InvalidParameterError
        If the extension is unknown.
    """
    if path is None:
        return ".csv"
    extension = Path(path).suffix.lower()
    if extension not in WRITERS:
        msg = f"--out: cannot tell the format of '{path}'; expected a name that ends in {', '.join(WRITERS)}."
        raise InvalidParameterError(msg)
    return extension


def write_columns(pieces: Iterable[Columns], out: BinaryIO | None, path: str | None, n_rows: int) -> None:
    """Write pieces of a result to an open file, in the format of its name.

    Raises
    ------
    InvalidDataError
        If a package that the format needs is missing.
    """
    try:
        writer = Collected() if out is None else WRITERS[result_format(path)](out, n_rows)
    except ImportError as error:
        raise InvalidDataError(str(error)) from error
    with closing(writer):
        for columns in pieces:
            writer.write(columns)


def print_columns(pieces: Iterable[Columns], *, as_json: bool, stream: Any) -> None:
    """Write pieces of a result to the standard output as they come, as CSV, or as JSON."""
    if as_json:
        whole = Collected()
        for columns in pieces:
            whole.write(columns)
        print(to_json(whole.columns), file=stream)
        return
    stream.flush()
    binary = getattr(stream, "buffer", None)
    target = io.BytesIO() if binary is None else binary  # no buffer: a text stream that somebody put in its place
    writer = CsvWriter(target, 0)
    for columns in pieces:
        writer.write(columns)
    if binary is None:
        stream.write(target.getvalue().decode())
    else:
        binary.flush()


def emit(text: str, summary: dict[str, Any], *, as_json: bool) -> None:
    """Print the table for people, or the JSON for programs."""
    print(to_json(summary) if as_json else text)
