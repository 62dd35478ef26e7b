"""A directory with the last two checkpoints of one fit.

1. A file is written under a temporary name, forced to the disk and renamed (`fastgmm.files.replacing`), and only then
   is the one before the last removed. So at any moment at least one complete checkpoint is there.
2. A file is an archive (`fastgmm.archive`) with a digest of all its bytes behind it: any bit that flips is found, also
   where the archive's own checksums do not look. Its name counts up; the highest number is the newest.
3. A file that cannot be read is passed over with a warning while there is another one. Where there is none, that is an
   error: to begin anew in silence would throw away what the user wanted to keep.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

from fastgmm.archive import Archive, read_archive, write_archive
from fastgmm.errors import CheckpointError, FastgmmWarning, InvalidParameterError, ModelFileError
from fastgmm.files import replacing
from fastgmm.typing import Array

KEPT: Final = 2
_NAME: Final = re.compile(r"fit-(\d{8,})\.npz")
_LEFT_OVER: Final = ".fastgmm-*.tmp"  # of a process that was killed while it wrote
_DIGEST_SIZE: Final = 32
_PIECE: Final = 1 << 20


class Store:
    """Checkpoint files in a directory.

    Parameters
    ----------
    directory : Path
        Made by the first `write`, if it does not exist.

    Raises
    ------
    InvalidParameterError
        If the path exists and is no directory.
    """

    def __init__(self, directory: Path) -> None:
        if directory.exists() and not directory.is_dir():
            msg = f"checkpoint must be the path of a directory; {directory} is a file. Give it a directory of its own"
            raise InvalidParameterError(msg)
        self.directory = directory

    def numbers(self) -> list[int]:
        """Return the numbers of the files there are, the newest first."""
        if not self.directory.is_dir():
            return []
        found = (_NAME.fullmatch(entry.name) for entry in self.directory.iterdir())
        return sorted((int(match[1]) for match in found if match), reverse=True)

    def write(self, header: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Add a checkpoint, and remove all but the last two.

        Raises
        ------
        OSError
            If it cannot be written; those there were are then unchanged.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        for left_over in self.directory.glob(_LEFT_OVER):
            with suppress(OSError):
                left_over.unlink()
        there = self.numbers()
        with replacing(self._path(there[0] + 1 if there else 1)) as file:
            write_archive(file, header, arrays)
            size = file.seek(0, 2)
            file.write(_digest(file, size))
        for number in there[KEPT - 1 :]:
            with suppress(OSError):
                self._path(number).unlink()

    def read(self) -> Archive | None:
        """Return the newest checkpoint that can be read, or None where there is no file at all.

        Raises
        ------
        CheckpointError
            If there are files, and none can be read.
        """
        trouble = []
        for number in self.numbers():
            try:
                archive = _read(self._path(number))
            except (ModelFileError, OSError) as error:
                trouble.append(str(error))
                continue
            if trouble:
                msg = (
                    f"the newest checkpoint cannot be read, and the one before is used: {trouble[0]}; the fit repeats "
                    "what it did between the two"
                )
                warnings.warn(msg, FastgmmWarning, stacklevel=2)
            return archive
        if trouble:
            msg = (
                f"none of the checkpoints in {self.directory} can be read: {'; '.join(trouble)}. Restore a copy, or "
                "remove the directory to begin the fit anew"
            )
            raise CheckpointError(msg)
        return None

    def _path(self, number: int) -> Path:
        return self.directory / f"fit-{number:08d}.npz"


def _digest(file: BinaryIO, size: int) -> bytes:
    """Return the SHA-256 of the first `size` bytes; the file is left at their end."""
    file.seek(0)
    digest = hashlib.sha256()
    while size > 0:
        piece = file.read(min(_PIECE, size))
        if not piece:
            break
        digest.update(piece)
        size -= len(piece)
    return digest.digest()


def _read(path: Path) -> Archive:
    """Read one file.

    Raises
    ------
    ModelFileError
        If it is damaged.
    OSError
        If it cannot be opened.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2) - _DIGEST_SIZE
        if size < 0 or _digest(file, size) != file.read():
            msg = f"{path} is damaged: its bytes are not those that were written"
            raise ModelFileError(msg)
    return read_archive(path)
