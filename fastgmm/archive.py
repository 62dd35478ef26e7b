"""Named arrays and one JSON header in a file that numpy.load can read and that is safe to read from anybody.

1. The file is an ``.npz``: a zip archive of ``.npy`` members, stored without compression. Each member carries a CRC, so
   a flipped bit is found. The header is JSON in a member of bytes. Equal content gives equal bytes.
2. Reading runs no code and takes no more memory than the file is long. There is no pickle in the path. Sizes are
   checked before they are believed: members are not compressed, lie inside the file, and hold exactly the bytes that
   the shape and the type they declare need.
3. The ``.npy`` headers are written and read here, in one spelling, rather than by NumPy, which evaluates them as Python
   literals, warns about some and allocates whatever shape they claim.
"""

import json
import math
import os
import re
import struct
import zipfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import numpy as np

from fastgmm.errors import ModelFileError
from fastgmm.files import replacing
from fastgmm.typing import Array

__all__ = ["Archive", "read_archive", "write_archive"]

HEADER: Final = "header"
MAGIC: Final = b"\x93NUMPY\x01\x00"
PIECE_BYTES: Final = 1 << 24
ALIGNMENT: Final = 64  # bytes; NumPy's own rule, so that a member can be memory mapped
DTYPES: Final = {name: np.dtype(name) for name in ("<f8", "<f4", "<i8", "<i4", "<u8", "<u4", "|u1", "|b1")}
NPY_HEADER: Final = re.compile(
    rb"\{'descr': '([<|]\w\d)', 'fortran_order': False, 'shape': \(((?:\d+,|\d+(?:, \d+)+)?)\), \} *\n"
)
MOST_MEMBERS: Final = 1000  # a model has about ten


@dataclass(frozen=True)
class Archive:
    """What `read_archive` returns.

    Attributes
    ----------
    header : dict
        The JSON header.
    arrays : dict of str to ndarray
        The arrays; read-only, C-contiguous, native byte order.
    """

    header: dict[str, Any]
    arrays: dict[str, Array]


def write_archive(
    path: str | os.PathLike[str] | BinaryIO, header: Mapping[str, Any], arrays: Mapping[str, Array]
) -> None:
    """Write a header and arrays, completely or not at all.

    Parameters
    ----------
    path : str, os.PathLike or binary file
        The file; replaced if it exists. No extension is added. An open file is written from where it stands.
    header : mapping
        What JSON can hold; no NaN or infinities.
    arrays : mapping of str to ndarray
        Real arrays of any shape; names other than "header".

    Raises
    ------
    OSError
        If the file cannot be written; an existing file is then unchanged.
    """
    text = json.dumps(header, allow_nan=False, ensure_ascii=False)
    target = replacing(path) if isinstance(path, str | os.PathLike) else nullcontext(path)
    with target as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _write_member(archive, HEADER, np.frombuffer(text.encode(), np.uint8))
        for name, array in arrays.items():
            _write_member(archive, name, array)


def read_archive(path: str | os.PathLike[str], *, only_header: bool = False) -> Archive:
    """Read a file that `write_archive` wrote, trusting nothing in it.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    only_header : bool, default False
        Whether to leave the arrays unread.

    Returns
    -------
    Archive
        The header and the arrays.

    Raises
    ------
    ModelFileError
        If the file is damaged or was not written by `write_archive`.
    OSError
        If it cannot be opened.
    """
    path = Path(path)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            return _read(file, size, only_header)
        except _Damage as damage:
            reason = str(damage)
        except Exception as error:
            # On hostile bytes zipfile raises BadZipFile, ValueError, struct.error, NotImplementedError, RuntimeError,
            # OverflowError, OSError and more, none of which the caller can act upon differently.
            reason = " ".join(str(error).split()) or type(error).__name__
        reason = reason.rstrip(".")
        msg = f"{path} is not a model file, or is damaged: {reason}; save the model again or restore the file."
        raise ModelFileError(msg)


class _Damage(Exception):
    """A check of this module failed; the text completes "the file is damaged: ..."."""


class _Bounded:
    """An open file that is never asked for more bytes than it has.

    `zipfile` reads as many bytes as a damaged directory claims, and ``file.read(n)`` allocates n bytes before it finds
    out that they are not there: a gigabyte for a file of one kilobyte.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self.seek = file.seek
        self.tell = file.tell
        self.seekable = file.seekable

    def read(self, n: int = -1) -> bytes:
        """Read at most `n` bytes, or all."""
        left = max(self._size - self._file.tell(), 0)
        return self._file.read(left if n < 0 else min(n, left))


def _read(file: BinaryIO, size: int, only_header: bool) -> Archive:
    """Read an open file of `size` bytes; raises anything."""
    if size == 0:
        msg = "it is empty"
        raise _Damage(msg)
    with zipfile.ZipFile(cast("BinaryIO", _Bounded(file, size))) as archive:
        members = archive.infolist()
        names = {member.filename for member in members}
        if len(names) < len(members) or len(members) > MOST_MEMBERS:
            msg = f"it has {len(members)} members with {len(names)} names"
            raise _Damage(msg)
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            msg = "a member is compressed, which fastgmm's model files never are"
            raise _Damage(msg)
        if any(member.compress_size != member.file_size for member in members):
            msg = "a member's sizes contradict each other"
            raise _Damage(msg)
        if sum(member.file_size for member in members) > size:  # overlapping members, or sizes that are lies
            msg = f"its members claim more than the {size} bytes of the file"
            raise _Damage(msg)
        if f"{HEADER}.npy" not in names:
            msg = "it has no member 'header.npy'"
            raise _Damage(msg)
        header = json.loads(_read_member(archive, f"{HEADER}.npy").tobytes())
        if not isinstance(header, dict):
            msg = "its header is no JSON object"
            raise _Damage(msg)
        arrays = {}
        for name in [] if only_header else sorted(names - {f"{HEADER}.npy"}):
            arrays[name.removesuffix(".npy")] = _read_member(archive, name)
    return Archive(header, arrays)


def _write_member(archive: zipfile.ZipFile, name: str, array: Array) -> None:
    """Write one array as a ``.npy`` member, little endian and in C order."""
    array = np.asarray(array)
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False)).reshape(array.shape)
    if little.dtype.str not in DTYPES:
        msg = f"cannot store an array of type {array.dtype}"
        raise TypeError(msg)
    header = f"{{'descr': '{little.dtype.str}', 'fortran_order': False, 'shape': {little.shape!r}, }}".encode()
    padding = -(len(MAGIC) + 2 + len(header) + 1) % ALIGNMENT
    header += b" " * padding + b"\n"
    # A fixed date instead of now: equal models give equal files.
    member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
    with archive.open(member, "w", force_zip64=little.nbytes >= 1 << 31) as stream:
        stream.write(MAGIC + struct.pack("<H", len(header)) + header)
        content = little.reshape(-1).view(np.uint8)
        for start in range(0, content.size, PIECE_BYTES):  # Python looks for Ctrl-C between two writes
            stream.write(content[start : start + PIECE_BYTES].data)


def _read_member(archive: zipfile.ZipFile, name: str) -> Array:
    """Read one array; the archive has checked that the member is no larger than the file."""
    content = archive.read(name)  # to its end: this verifies the CRC
    start = len(MAGIC) + 2
    if content[: len(MAGIC)] != MAGIC or len(content) < start:
        msg = f"member '{name}' is no .npy array"
        raise _Damage(msg)
    end = start + struct.unpack("<H", content[start - 2 : start])[0]
    match = NPY_HEADER.fullmatch(content[start:end])
    dtype = DTYPES.get(match[1].decode()) if match else None
    if match is None or dtype is None:
        msg = f"member '{name}' has an array header that fastgmm does not write"
        raise _Damage(msg)
    shape = tuple(int(length) for length in match[2].decode().split(",") if length)
    if math.prod(shape) * dtype.itemsize != len(content) - end:
        msg = f"member '{name}' has {len(content) - end} bytes of data, which shape {shape} of {dtype} does not need"
        raise _Damage(msg)
    return np.frombuffer(content, dtype, offset=end).reshape(shape).astype(dtype.newbyteorder("="), copy=False)
