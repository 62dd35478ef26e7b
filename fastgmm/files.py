"""Write a file completely or not at all.

A reader must never meet half a model, and a failed command must leave the old output as it was. So every writer of this
library fills a temporary file in the directory of the target, forces it to the disk, and only then renames it over the
target: on one file system a rename is atomic.

Where the system can (Linux, most file systems), the temporary file has no name until it is complete, so a process that
is killed leaves nothing behind. Elsewhere it is called ``.fastgmm-*.tmp``.
"""

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["replacing"]

NAMELESS: int | None = getattr(os, "O_TMPFILE", None)
CANNOT = {errno.EOPNOTSUPP, errno.EINVAL, errno.EISDIR, errno.ENOSYS}
"""What a file system or a kernel says that has no files without a name."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a binary file whose content replaces `path` when the block ends without an exception.

    Entering the block creates the temporary file, so a missing directory or a missing permission shows before any long
    computation inside it. Several of them on one `contextlib.ExitStack` appear together or not at all, but for a crash
    between two renames.

    Parameters
    ----------
    path : str or os.PathLike
        The file to create or replace. A symbolic link is followed, and the permissions of an existing file are kept.
        A device or a pipe (``/dev/stdout``) is written directly, since it cannot be replaced.

    Yields
    ------
    BinaryIO
        The file to write to; readable and seekable unless `path` is a device or a pipe.

    Raises
    ------
    OSError
        If the directory does not exist or may not be written, if `path` is a directory, or if the disk is full.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     target = Path(directory, "labels.csv")
    ...     with replacing(target) as file:
    ...         _ = file.write(b"label")
    ...     target.read_text()
    'label'
    """
    target = Path(os.path.realpath(path))
    mode = _mode_of(target)
    if mode is not None and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        with target.open("wb") as direct:
            yield direct
        return
    if mode is not None and stat.S_ISDIR(mode):
        msg = "Is a directory"
        raise IsADirectoryError(21, msg, os.fspath(path))
    temporary = target.with_name(f".fastgmm-{secrets.token_hex(8)}.tmp")
    try:
        descriptor, nameless = _open(temporary)
    except OSError as error:
        # The user knows the target, not our temporary name.
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None
    try:
        with os.fdopen(descriptor, "w+b") as file:
            if mode is not None and hasattr(os, "fchmod"):
                with suppress(OSError):  # not the owner: the new file then has the usual permissions
                    os.fchmod(file.fileno(), stat.S_IMODE(mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
            if nameless:
                _name(file, temporary)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(target.parent)


def _name(file: BinaryIO, temporary: Path) -> None:
    """Give a complete file without a name the name `temporary`."""
    try:
        # Only with a descriptor, which an absolute path ignores, does Python follow the link in /proc.
        os.link(f"/proc/self/fd/{file.fileno()}", temporary, src_dir_fd=file.fileno(), follow_symlinks=True)
    except OSError:  # forbidden in some containers
        file.seek(0)
        with temporary.open("xb") as named:
            shutil.copyfileobj(file, named)
            named.flush()
            os.fsync(named.fileno())
        shutil.copymode(f"/proc/self/fd/{file.fileno()}", temporary)


def _open(temporary: Path) -> tuple[int, bool]:
    """Open a new file, and say whether it has yet to be given the name `temporary`."""
    # os.open and not tempfile: the new file gets the permissions the user's umask gives any other file.
    if NAMELESS is not None and Path("/proc/self/fd").is_dir():
        try:
            return os.open(temporary.parent, os.O_RDWR | NAMELESS, 0o666), True
        except OSError as error:
            if error.errno not in CANNOT:
                raise
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.open(temporary, flags, 0o666), False


def _mode_of(path: Path) -> int | None:
    """Return the type and permission bits of `path`, or None where there is no such file."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _sync_directory(directory: Path) -> None:
    """Make the rename itself durable; a file system that cannot sync a directory is no reason to fail."""
    if os.name != "posix":
        return
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
