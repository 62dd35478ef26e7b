"""Formats of stored tables: `FORMATS` maps the end of a file's name to what reads it. Read `base` first."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fastgmm.data.formats.arrow import IpcPart
from fastgmm.data.formats.base import Part, needs
from fastgmm.data.formats.chunked import Hdf5Part, ZarrPart
from fastgmm.data.formats.npy import NpyPart
from fastgmm.data.formats.parquet import ParquetPart
from fastgmm.data.formats.text import REMEDY, CsvPart
from fastgmm.errors import InvalidDataError, InvalidParameterError

__all__ = ["FORMATS", "HEADERS", "REMEDY", "CsvPart", "Options", "Part", "needs", "open_parts"]


class Options(NamedTuple):
    """What only some formats know: `dataset`, a name in an HDF5 file or Zarr store; `header` of text files."""

    dataset: str | None = None
    header: str = "auto"


class Format(NamedTuple):
    """How to open one file of a format, and which `Options` have a meaning there."""

    open: Callable[[Path, Options], Part]
    options: tuple[str, ...] = ()


_TEXT = Format(lambda path, options: CsvPart(path, options.header), ("header",))
_PARQUET = Format(lambda path, options: ParquetPart(path))  # noqa: ARG005 - all have one signature
_IPC = Format(lambda path, options: IpcPart(path))  # noqa: ARG005 - all have one signature
_HDF5 = Format(lambda path, options: Hdf5Part(path, options.dataset), ("dataset",))
_ZARR = Format(lambda path, options: ZarrPart(path, options.dataset), ("dataset",))

FORMATS: dict[str, Format] = {
    ".csv": _TEXT,
    ".tsv": _TEXT,
    ".txt": _TEXT,
    ".dat": _TEXT,
    ".npy": Format(lambda path, options: NpyPart(path)),  # noqa: ARG005 - all have one signature
    ".parquet": _PARQUET,
    ".pq": _PARQUET,
    ".feather": _IPC,
    ".arrow": _IPC,
    ".arrows": _IPC,
    ".ipc": _IPC,
    ".zarr": _ZARR,
    ".h5": _HDF5,
    ".hdf5": _HDF5,
    ".hdf": _HDF5,
}
"""End of the name, in lower case -> format."""

_FOLDERS = (".zarr",)
"""Formats whose tables are folders."""

HEADERS = ("auto", "yes", "no")


def format_of(path: Path) -> Format:
    """Return the format of a file by the end of its name.

    Raises
    ------
    InvalidDataError
        Naming the ends that are known.
    """
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        msg = f"{path}: cannot tell its format from the name; expected one that ends in {', '.join(FORMATS)}."
        raise InvalidDataError(msg)
    return found


def open_parts(name: str | os.PathLike[str], options: Options) -> list[Part]:
    """Open a file, all files of a folder, or all that match a pattern; in the order of their names.

    Parameters
    ----------
    name : str or os.PathLike
        A path; ``path:/dataset`` for HDF5 and Zarr; a folder, whose files must be of one format (those whose names
        begin with "." or "_" are left out); or a pattern with ``*``, ``?`` or ``[...]``, if there is no such file.
    options : Options

    Raises
    ------
    InvalidDataError
        If there is no file in it, or one cannot be read.
    InvalidParameterError
        If an option has no meaning for the format.
    OSError
        If there is no such file.
    """
    text = os.fspath(name)
    path = Path(text)
    if not path.exists():
        before, colon, dataset = text.rpartition(":")
        if colon and "dataset" in FORMATS.get(Path(before).suffix.lower(), _TEXT).options and Path(before).exists():
            return open_parts(before, options._replace(dataset=dataset))
        if any(mark in text for mark in "*?["):
            found = sorted(Path(path.anchor).glob(text.removeprefix(path.anchor)))
            if not found:
                msg = f"no file matches {text!r}; check the pattern, and the folder it is used in"
                raise InvalidDataError(msg)
            return [_open(one, options) for one in found]
    if path.is_dir() and path.suffix.lower() not in _FOLDERS:
        return [_open(one, options) for one in _files_of(path)]
    return [_open(path, options)]


def _open(path: Path, options: Options) -> Part:
    if path.is_dir() and path.suffix.lower() not in _FOLDERS:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.stat()  # says so if there is no such file, whatever its name
    found = format_of(path)
    for option, value in options._asdict().items():
        if value != Options._field_defaults[option] and option not in found.options:
            msg = f"{option} has no meaning for {path}; leave it out"
            raise InvalidParameterError(msg)
    return found.open(path, options)


def _files_of(folder: Path) -> list[Path]:
    """Return the tables in a folder and the folders in it, sorted by path."""
    found = [
        file
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in FORMATS
        and (file.is_file() or file.suffix.lower() in _FOLDERS)
        and not any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)
        and not any(parent.suffix.lower() in _FOLDERS for parent in file.relative_to(folder).parents)
    ]
    kinds = sorted({file.suffix.lower() for file in found})
    if not found:
        msg = f"{folder}: a folder without files of a known format ({', '.join(FORMATS)})."
        raise InvalidDataError(msg)
    if len({id(FORMATS[kind]) for kind in kinds}) > 1:
        msg = f"{folder} holds files of several formats ({', '.join(kinds)}); name the files, or use a pattern."
        raise InvalidDataError(msg)
    return found
