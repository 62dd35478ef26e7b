"""Faults injected into the cache of compiled kernels, one at each call of the system that it makes.

Whatever fails, the kernel runs, its value is right, there is at most one warning, and the next process that meets no
fault is well again. `FAULTS` counts the calls; the test fails if the cache comes to make calls that are not among them.
"""

import errno
import os
import pathlib
import pickle
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import numba
import numpy as np
import pytest

from fastgmm.kernels import _cache
from tests.test_cache import run

ERRORS = (
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EACCES, "Permission denied"),
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    OSError(errno.EROFS, "Read-only file system"),
    OSError(errno.EMFILE, "Too many open files"),
)


class Faulty:
    """Lets calls of the system through until the `fail_at`-th, which raises; counts them all."""

    CALLS = (
        (os, "replace"),
        (os, "fstat"),
        (os, "fdopen"),
        (tempfile, "mkstemp"),
        (pathlib.Path, "open"),
        (pathlib.Path, "mkdir"),
        (pathlib.Path, "stat"),
        (pathlib.Path, "iterdir"),
        (pathlib.Path, "read_bytes"),
        (pathlib.Path, "rglob"),
        (pickle, "loads"),
        (shutil, "rmtree"),
    )

    def __init__(self, monkeypatch, fail_at, error):
        self.count = 0
        self.fail_at, self.error = fail_at, error
        self.names = []
        for owner, name in self.CALLS:
            monkeypatch.setattr(owner, name, self.wrapped(name, getattr(owner, name)))

    def wrapped(self, name, real):
        def call(*arguments, **options):
            # Numba and the import system open files, too; only what the cache does counts.
            if not any(frame.f_globals.get("__name__") == _cache.__name__ for frame in callers()):
                return real(*arguments, **options)
            self.count += 1
            self.names.append(name)
            if self.count == self.fail_at:
                raise self.error
            return real(*arguments, **options)

        return call


def callers():
    frame = sys._getframe(2)
    for _ in range(4):
        if frame is None:
            return
        yield frame
        frame = frame.f_back


def compiled_value():
    """Compile, or load, a small kernel through the cache; return what it computes."""

    def kernel(x):
        total = 0.0
        for i in range(x.size):
            total += 2.0 * x[i]
        return total

    function = numba.njit(nogil=True)(kernel)
    _cache.attach(function)
    return float(function(np.arange(4.0)))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGMM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("FASTGMM_CACHE", "1")
    monkeypatch.setattr(_cache, "_problem", None)
    return tmp_path / "cache"


def calls_of(cache, warm):
    """How many calls a run makes without a fault."""
    with pytest.MonkeyPatch.context() as patch:
        if warm:
            assert compiled_value() == 12.0
        else:
            shutil.rmtree(cache, ignore_errors=True)
        faulty = Faulty(patch, 0, None)
        assert compiled_value() == 12.0
        return faulty.count


@pytest.mark.parametrize("warm", [False, True], ids=["writing", "reading"])
def test_every_call_of_the_system_may_fail(cache, warm):
    """The n-th call fails, for every n, with each of six errors in turn."""
    calls = calls_of(cache, warm)
    assert calls >= (8 if not warm else 4)
    for fail_at in range(1, calls + 1):
        error = ERRORS[fail_at % len(ERRORS)]
        if not warm:
            shutil.rmtree(cache, ignore_errors=True)
        _cache._problem = None
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            faulty = Faulty(patch, fail_at, error)
            assert compiled_value() == 12.0
        assert faulty.count >= fail_at
        assert len(caught) <= 1
        assert not list(cache.rglob("*.tmp"))
        _cache._problem = None
        assert compiled_value() == 12.0  # and it is mended


def test_a_file_cut_at_any_length_or_with_any_byte_changed(cache):
    """Fifty lengths and a hundred bytes: never a wrong value, never an exception."""
    assert compiled_value() == 12.0
    (file,) = cache.rglob("*.kernel")
    good = file.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [good[: int(n)] for n in np.linspace(0, len(good) - 1, 50)]
    for position in rng.integers(0, len(good), 100):
        changed = bytearray(good)
        changed[position] ^= 1 << int(rng.integers(8))
        damaged.append(bytes(changed))
    damaged += [bytes(len(good)), good + b"x", good + good, rng.bytes(100)]
    refused = 0
    for content in damaged:
        file.write_bytes(content)
        with pytest.raises(ValueError, match="damaged or was written by something else"):
            _cache.SafeCache._read(file, b"any key")
        refused += 1
    assert refused == 154
    file.write_bytes(damaged[60])
    with pytest.warns(RuntimeWarning, match="cache of compiled kernels"):
        assert compiled_value() == 12.0
    assert file.read_bytes()[:17] == good[:17]


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="this system has no symbolic links")
def test_symbolic_links(cache, tmp_path):
    """To a directory of the user's: followed. To nowhere, or in a loop: one warning."""
    real = tmp_path / "elsewhere"
    real.mkdir(mode=0o700)
    cache.symlink_to(real)
    assert compiled_value() == 12.0
    assert len(list(real.rglob("*.kernel"))) == 1
    for target in (tmp_path / "nowhere" / "at all", cache):
        cache.unlink()
        cache.symlink_to(target)
        _cache._problem = None
        with pytest.warns(RuntimeWarning, match="cache of compiled kernels"):
            assert compiled_value() == 12.0


@pytest.mark.skipif(sys.platform == "win32", reason="homes are found otherwise there")
@pytest.mark.parametrize("home", ["missing", "file", "device"])
def test_without_a_home(tmp_path, home):
    """The package's own directory is never written to; here nothing else can be, either."""
    (tmp_path / "file").write_text("no directory")
    homes = {"missing": "/proc/none", "file": str(tmp_path / "file"), "device": "/dev/null"}
    out = run("", HOME=homes[home], XDG_CACHE_HOME="", PYTHONDONTWRITEBYTECODE="1")
    assert out.startswith("[1.0, 3.0, 5.0] 6.0 0 2 1 The cache of compiled kernels does not work (writing "), out


def test_no_call_goes_around_the_faults():
    """Names of file functions in the source of the cache that `Faulty` does not intercept."""
    source = Path(_cache.__file__).read_text(encoding="utf-8")
    known = {name for _, name in Faulty.CALLS} | {"unlink", "is_dir", "is_file", "absolute", "expanduser"}
    used = {
        name
        for name in ("replace", "rename", "open", "write_bytes", "write_text", "touch", "chmod", "remove", "link_to")
        if f".{name}(" in source
    }
    assert used <= known, used - known
