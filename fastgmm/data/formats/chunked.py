"""Zarr and HDF5: arrays in chunks, opened anew for every pass and read in runs that end where chunks end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fastgmm.data.formats.base import READ_BYTES, ArrayPiece, Part, Piece, file_stamp, first_sentence, needs
from fastgmm.errors import InvalidDataError
from fastgmm.typing import Float64Array, FloatArray


class ChunkedPart(Part):
    """A two-dimensional array of real numbers, or a one-dimensional one as one column.

    Parameters
    ----------
    path : Path
        File or store.
    dataset : str or None
        Which array of it; None where there is only one.

    Raises
    ------
    ImportError
        If the package is missing.
    InvalidDataError
        If there is no such array, or it cannot be read as rows of numbers.
    OSError
    """

    named = False
    what: str

    def __init__(self, path: Path, dataset: str | None) -> None:
        self._path, self._dataset = path, dataset
        self.source = str(path) if dataset is None else f"{path}:{dataset}"
        with self._opened() as array:
            self._describe(array)

    def _describe(self, array: Any) -> None:
        if array.dtype.kind not in "biuf":
            msg = f"{self.source} holds values of type {array.dtype}; expected real numbers."
            raise InvalidDataError(msg)
        if len(array.shape) not in (1, 2):
            msg = f"{self.source} has shape {array.shape}; expected (rows, columns), or (rows,) for one column."
            raise InvalidDataError(msg)
        self.n_rows = int(array.shape[0])
        width = int(array.shape[1]) if len(array.shape) == 2 else 1
        self.names = tuple(str(j + 1) for j in range(width))
        self._type = np.dtype(array.dtype)
        row_bytes = max(width * self._type.itemsize, 1)
        chunks = getattr(array, "shards", None) or array.chunks
        chunk_rows = int(chunks[0]) if chunks else 1
        chunk_bytes = chunk_rows * row_bytes
        self._step = max(READ_BYTES // chunk_bytes, 1) * chunk_rows
        self._held: int = 2 * self._step * row_bytes
        self.remedy = f"its chunks of {chunk_rows} rows are read whole: write it again with chunks of a few MiB"

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """Open the array for reading."""
        raise NotImplementedError
        yield

    def _choose(self, group: Any, arrays: dict[str, Any]) -> Any:
        """Return the array asked for, or the only one."""
        if self._dataset is not None:
            name = self._dataset.strip("/")
            if name in arrays:
                return arrays[name]
            if name in group and hasattr(group[name], "shape"):
                return group[name]
            msg = f"{self._path} has no array {self._dataset!r}; it has {', '.join(map(repr, arrays)) or 'none'}."
            raise InvalidDataError(msg)
        if len(arrays) != 1:
            found = f"several: {', '.join(map(repr, arrays))}" if arrays else "none"
            msg = f"{self._path}: expected one array, found {found}. Name one with dataset=, or as 'path:/name'."
            raise InvalidDataError(msg)
        return next(iter(arrays.values()))

    def dtype(self, columns: Sequence[int]) -> np.dtype[Any]:  # noqa: ARG002 - an array has one type
        """Return float32 for float32, else float64."""
        single = self._type.kind == "f" and self._type.itemsize == 4
        return np.dtype(np.float32 if single else np.float64)

    def held_bytes(self, columns: Sequence[int]) -> int:  # noqa: ARG002 - chunks are read whole
        """Return a chunk, encoded and decoded."""
        return self._held

    def pieces(self, columns: Sequence[int], weight: int | None, start: int) -> Iterator[Piece]:
        """Yield the whole as one piece."""
        with self._opened() as array:
            yield _StoredPiece(self.source, array, columns, weight, start, self._step)


class _StoredPiece(ArrayPiece):
    """Rows that are decoded when they are sliced; says of which file they are when that fails."""

    def __init__(self, source: str, array: Any, *rest: Any) -> None:
        super().__init__(array, *rest)
        self._source = source

    def copy(self, start: int, stop: int, x: FloatArray, w: Float64Array | None) -> None:
        """Slice, choose the columns and convert."""
        try:
            super().copy(start, stop, x, w)
        except (OSError, RuntimeError, ValueError) as error:  # what h5py, and the codecs of zarr, raise
            if isinstance(error, OSError) and error.filename is not None:
                raise
            msg = f"{self._source} is damaged: {first_sentence(error)}."
            raise InvalidDataError(msg) from error


class Hdf5Part(ChunkedPart):
    """A dataset of an HDF5 file; needs h5py."""

    what = "an HDF5 file"

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        h5py = needs("h5py", "hdf5", "reading HDF5")
        if not self._path.is_file():
            self._path.stat()  # raises if there is nothing
        try:
            file = h5py.File(self._path, "r")
        except OSError as error:
            msg = f"{self._path} is not {self.what}, or is truncated: {first_sentence(error)}."
            raise InvalidDataError(msg) from error
        with file:
            arrays: dict[str, Any] = {}

            def collect(name: str, item: Any) -> None:
                if isinstance(item, h5py.Dataset):
                    arrays[name] = item

            if self._dataset is None:
                file.visititems(collect)
            try:
                yield self._choose(file, arrays)
            except OSError as error:
                msg = f"{self.source} is damaged: {first_sentence(error)}."
                raise InvalidDataError(msg) from error

    def stamp(self) -> object:
        """Return size, time and identity of the file."""
        return file_stamp(self._path)


class ZarrPart(ChunkedPart):
    """An array of a Zarr store (formats 2 and 3); needs zarr 3.1."""

    what = "a Zarr store"

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        zarr = needs("zarr", "zarr", "reading Zarr")
        self._path.stat()  # raises if there is nothing
        try:
            node = zarr.open(str(self._path), mode="r")
        except (ValueError, KeyError, OSError) as error:
            msg = f"{self._path} is not {self.what}: {first_sentence(error)}."
            raise InvalidDataError(msg) from error
        if not isinstance(node, zarr.Array):
            arrays = {} if self._dataset else dict(sorted(node.arrays()))
            node = self._choose(node, arrays)
        elif self._dataset is not None and self._dataset.strip("/"):
            msg = f"{self._path} is one array and has no array {self._dataset!r}; leave dataset out."
            raise InvalidDataError(msg)
        yield node

    def stamp(self) -> object:
        """Return the stamps of the metadata and of the folder of chunks: a full walk could take minutes."""
        found = [file_stamp(self._path / name) for name in ("zarr.json", ".zarray", "c", ".")]
        return tuple(found)


class OpenArrayPart(ChunkedPart):
    """A `zarr.Array`, an `h5py.Dataset`, or the like, opened by the caller."""

    def __init__(self, array: Any, source: str) -> None:
        self.source = source
        self._array = array
        self._describe(array)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        yield self._array
