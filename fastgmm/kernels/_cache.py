"""The on-disk cache of compiled kernels: makes the second process start fast, and never fails a call.

Why not ``cache=True``, Numba's own:

1. Its key covers one source file. A change in a helper of another file, in a closure's dispatcher or in a compile
   option loads stale machine code without a word. Here the directory is named after the bytes of *all* kernel
   sources, and the file after the signature, options, byte code, constants and closure.
2. It raises into the user's call when a file is damaged, the disk is full or no directory is writable. Here every
   failure costs one warning a process, and the kernel is compiled as if there were no cache.
3. Its index file is read, changed and written without a lock, so two processes can leave it pointing at the wrong
   code for ever. Here there is no index: a kernel's file is written under a temporary name and renamed into place.
4. It initialises Numba's typing machinery (0.2 to 0.4 s) even when the code comes from disk. Here only a miss does.
5. Its symbols are named after the function and a counter, so two closures of one factory, cached by different
   processes, can meet in a third under one name, and one runs for the other. Here `stamp` puts a digest into the name.

The files hold pickles, so a directory that someone else could write to is refused: it must belong to the user or to
root, and be writable by its owner alone.

``FASTGMM_CACHE_DIR`` moves the cache, ``FASTGMM_CACHE=0`` turns it off. All names of Numba's that this file touches are
private ones; should one change, the result is point 2: a warning and a compilation.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import shutil
import stat
import sys
import tempfile
import types
import warnings
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

_MAGIC = b"fastgmm kernel 1\n"  # change the number when the layout below changes
_SUFFIX = ".kernel"
_KEPT_SOURCES = 6  # directories of other kernel sources that stay: switching between versions must not recompile
_SOURCES = Path(__file__).parent  # tests point this at another tree

# What changes the machine code without being part of a signature or of the options.
_CONFIG = ("OPT", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "LOOP_VECTORIZE", "SLP_VECTORIZE")

_counts = {"hits": 0, "misses": 0}
_problem: str | None = None  # the first failure of this process; later ones are silent


class _UncacheableError(Exception):
    """A kernel whose identity cannot be named in a way that holds in the next process."""


# --- identity: what a compiled function depends on, as text that is the same in every process ---------------------


def _describe(value: Any) -> str:
    """Return a text that is equal in every process for equal values, or raise `_UncacheableError`."""
    if isinstance(value, (set, frozenset)):  # the order of a set of strings changes from process to process
        return "{" + ",".join(sorted(_describe(v) for v in value)) + "}"
    if isinstance(value, dict):
        return "{" + ",".join(sorted(f"{_describe(k)}:{_describe(v)}" for k, v in value.items())) + "}"
    if isinstance(value, (tuple, list)):
        return "(" + ",".join(_describe(v) for v in value) + ")"
    if isinstance(value, types.CodeType):
        return _describe_code(value)
    if isinstance(value, types.FunctionType):
        return describe_function(value)
    if isinstance(value, (types.ModuleType, types.BuiltinFunctionType, type)):
        return f"{type(value).__name__} {value.__name__}"
    for inner in ("py_func", "_pyfunc", "_defn"):  # a dispatcher, a C callback, an intrinsic
        function = getattr(value, inner, None)
        if isinstance(function, types.FunctionType):
            return f"{type(value).__name__}[{_describe(_options(value))}] {describe_function(function)}"
    if hasattr(value, "tobytes") and hasattr(value, "dtype"):  # an array or a NumPy scalar; its repr may be shortened
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    text = repr(value)
    if " at 0x" in text:
        msg = f"{text} has no name that holds in another process"
        raise _UncacheableError(msg)
    return f"{type(value).__name__} {text}"


def _describe_code(code: types.CodeType) -> str:
    return _describe((code.co_code, code.co_consts, code.co_names, code.co_varnames, code.co_freevars))


def describe_function(function: types.FunctionType) -> str:
    """Return what a function is made of: name, byte code, constants, defaults and closure.

    Globals are not part of it: they follow from the kernel sources, which name the directory.
    """
    cells = function.__closure__ or ()
    contents = [cell.cell_contents for cell in cells if cell.cell_contents is not function]
    name = getattr(function, "_fastgmm_name", function.__qualname__)
    return _describe((function.__module__, name, _describe_code(function.__code__), function.__defaults__, contents))


def stamp(function: types.FunctionType, options: dict[str, Any] | None = None) -> types.FunctionType:
    """Put a digest of a function and its compile options into its name, before Numba sees it.

    Parameters
    ----------
    function : function
        Changed in place: ``kernel`` becomes ``kernel_1f0c9a7be3``. A second call changes nothing.
    options : dict, optional
        The options it will be compiled with.

    Returns
    -------
    function
        The same object.

    Notes
    -----
    Numba names a compiled symbol by qualified name, a counter that starts again in every process, and argument types.
    Without a stamp, helpers made by one factory for different constants can carry one symbol in cached code.
    """
    if hasattr(function, "_fastgmm_name"):
        return function
    with suppress(_UncacheableError):  # then it is not cached either, and needs no stamp
        digest = _digest(describe_function(function), _describe(options or {}))
        function._fastgmm_name = function.__qualname__  # type: ignore[attr-defined]  # our own mark
        function.__qualname__ += f"_{digest[:10]}"
        function.__name__ += f"_{digest[:10]}"
    return function


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _options(kernel: Any) -> dict[str, Any]:
    """Return the compile options of a dispatcher or a C callback."""
    options = getattr(kernel, "targetoptions", None)
    if options is None:
        options = getattr(getattr(kernel, "_compiler", None), "targetoptions", {})
    return dict(options)


# --- place ------------------------------------------------------------------------------------------------------


@functools.cache
def _source_digest(sources: Path) -> str:
    """Return the digest of the sources that this process runs: `_digest_of` them as they were at import."""
    return _digest_of(sources)


def kernel_digest() -> str:
    """Return the digest of the kernels that this process runs; processes with the same one give the same bits."""
    return _source_digest(_SOURCES)


def _digest_of(sources: Path) -> str:
    """Return one digest of every file a kernel's machine code follows from: all kernel sources and the constants."""
    digest = hashlib.sha256()
    for path in [*sorted(sources.rglob("*.py")), sources.parent / "constants.py"]:
        if path.is_file():
            digest.update(f"{path.relative_to(sources.parent).as_posix()}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:20]


def root() -> Path:
    """Return the directory that holds all cached kernels; it need not exist."""
    chosen = os.environ.get("FASTGMM_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "fastgmm"  # RuntimeError where there is no home: reported like any failure


def _enabled() -> bool:
    return os.environ.get("FASTGMM_CACHE", "1").strip().lower() not in {"0", "false", "no", "off"}


def _check_owner(status: os.stat_result, path: Path) -> None:
    """Refuse what another user could have written: loading it would run their code."""
    if not hasattr(os, "geteuid"):  # Windows: the user's profile is protected by the system
        return
    if status.st_uid not in (os.geteuid(), 0):
        msg = f"{path} belongs to another user"
        raise PermissionError(msg)
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        msg = f"{path} can be written by other users"
        raise PermissionError(msg)


def _make_directory(directory: Path) -> None:
    """Create the cache directory, private to the user, and drop the oldest ones of other kernel sources."""
    if not directory.is_dir():
        source = directory.parent
        source.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        source.mkdir(exist_ok=True, mode=0o700)
        directory.mkdir(exist_ok=True, mode=0o700)
        others = [p for p in _source_directories(source.parent) if p != source]
        others.sort(key=lambda p: p.stat().st_mtime, reverse=True)
        for old in others[_KEPT_SOURCES:]:
            shutil.rmtree(old, ignore_errors=True)
    _check_owner(directory.stat(), directory)


def _source_directories(base: Path) -> list[Path]:
    """Return the directories below `base` that this module made: named by 20 hexadecimal digits."""
    if not base.is_dir():
        return []
    return [p for p in base.iterdir() if len(p.name) == 20 and set(p.name) <= set("0123456789abcdef") and p.is_dir()]


# --- the cache --------------------------------------------------------------------------------------------------


def _report(error: BaseException, doing: str) -> None:
    """Warn of the first failure in this process, and remember it."""
    global _problem
    if _problem is not None:
        return
    _problem = f"{doing}: {type(error).__name__}: {error}"
    msg = (
        f"The cache of compiled kernels does not work ({_problem}). Results are not affected; kernels are compiled "
        "again in every process. Set FASTGMM_CACHE_DIR to a directory that only you can write to, or FASTGMM_CACHE=0 "
        "to do without a cache."
    )
    warnings.warn(msg, RuntimeWarning, stacklevel=2)


def _external_symbols(library: Any) -> list[str]:
    """Return the names that the machine code expects the process to provide."""
    module = library._final_module
    names = [f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm.")]
    return names + [v.name for v in module.global_variables if v.is_declaration]


def _rebuild(target_context: Any, symbols: list[str], parts: tuple[Any, ...]) -> Any:
    """Return a compiled function made of what the cache holds.

    A symbol that nothing provides makes LLVM end the process, hence the look before the leap. Numba's run-time library
    and ``refresh``, which Numba prepares first and always, are left to the case that a symbol is missing: code from the
    cache needs no typing, and whatever compiles later refreshes by itself.
    """
    import llvmlite.binding as llvm
    from numba.core.compiler import CompileResult
    from numba.core.runtime import rtsys

    for initialize in parts[7]:  # what Numba asks for when code is loaded again; starts the threads of parallel code
        initialize()
    for prepare in (lambda: None, lambda: rtsys.initialize(target_context), target_context.refresh):
        prepare()
        missing = [name for name in symbols if llvm.address_of_symbol(name) is None]
        if not missing:
            break
    else:
        msg = f"the process does not provide {missing}"
        raise LookupError(msg)
    return CompileResult._rebuild(target_context, *parts)


class SafeCache:
    """The cache of one kernel, in the place of Numba's own (``Dispatcher._cache`` or ``CFunc._cache``).

    Parameters
    ----------
    function : function
        The Python function that is compiled.
    options : dict
        Its compile options.
    """

    def __init__(self, function: types.FunctionType, options: dict[str, Any]) -> None:
        self._name = getattr(function, "_fastgmm_name", function.__qualname__)
        self._identity = _digest(describe_function(function), _describe(options))
        self._on = True

    # The methods below have Numba's names and meaning.

    @property
    def cache_path(self) -> str | None:
        """The directory of the files, for ``dispatcher.stats``."""
        with suppress(Exception):
            return str(root())
        return None

    def enable(self) -> None:
        """Use the cache again after `disable`."""
        self._on = True

    def disable(self) -> None:
        """Neither read nor write."""
        self._on = False

    def flush(self) -> None:
        """Forget nothing: a file is replaced, never appended to, so ``recompile`` needs no flush."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled function for a signature, or None if it is not there or not usable."""
        if not self._on:
            return None
        result = None
        try:
            payload = self._read(*self._place(sig, target_context.codegen()))
            if payload is not None:
                result = _rebuild(target_context, *pickle.loads(payload))
        except Exception as error:  # whatever it is, compiling is the answer
            _report(error, f"reading {self._name}")
        _counts["misses" if result is None else "hits"] += 1
        return result

    def save_overload(self, sig: Any, data: Any) -> None:
        """Store a freshly compiled function."""
        if not self._on:
            return
        try:
            from numba.core.serialize import dumps

            if data.library.has_dynamic_globals or any(not lifted.can_cache for lifted in data.lifted):
                msg = "its code holds addresses of this process"
                raise _UncacheableError(msg)
            if _digest_of(_SOURCES) != _source_digest(_SOURCES):
                return  # upgraded while this process runs: its code must not be found under the new sources' name
            path, key = self._place(sig, data.codegen)
            self._write(path, key, dumps((_external_symbols(data.library), data._reduce())))
        except Exception as error:  # a full disk must not cost the user the fit
            _report(error, f"writing {self._name}")

    def _place(self, sig: Any, codegen: Any) -> tuple[Path, bytes]:
        """Return the file for a signature and the full key that the file must have been written under."""
        import llvmlite
        import numba

        triple, cpu, features = codegen.magic_tuple()
        versions = f"numba{numba.__version__}-{sys.implementation.cache_tag}"
        config = _describe([(name, getattr(numba.config, name, None)) for name in _CONFIG])
        machine = _digest(str(triple), str(cpu), str(features), versions, llvmlite.__version__, config)
        directory = root() / _source_digest(_SOURCES) / f"{versions}-{cpu or 'generic'}-{machine[:12]}"
        key = _digest(machine, self._identity, str(sig))
        name = "".join(c if c.isalnum() or c in "._" else "-" for c in self._name)[-80:]
        return directory / f"{name}-{key[:20]}{_SUFFIX}", key.encode()

    @staticmethod
    def _read(path: Path, key: bytes) -> bytes | None:
        """Return the payload of a file; None if there is none; raise if it is damaged or not ours."""
        try:
            with path.open("rb") as file:
                _check_owner(os.fstat(file.fileno()), path)
                data = file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        _check_owner(path.parent.stat(), path.parent)
        head = len(_MAGIC) + 32
        if not data.startswith(_MAGIC) or data[len(_MAGIC) : head] != hashlib.sha256(key + data[head:]).digest():
            msg = f"{path} is damaged or was written by something else"
            raise ValueError(msg)
        return data[head:]

    @staticmethod
    def _write(path: Path, key: bytes, payload: bytes) -> None:
        """Write a file so that no other process ever sees a part of it."""
        _make_directory(path.parent)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")  # readable by the user alone
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_MAGIC + hashlib.sha256(key + payload).digest() + payload)
            os.replace(temporary, path)  # noqa: PTH105 -- the name is a string from mkstemp
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108 -- as above
            raise


def attach(kernel: Any) -> None:
    """Give a Numba dispatcher or C callback the safe cache, before it is compiled.

    Parameters
    ----------
    kernel : numba Dispatcher or numba.core.ccallback.CFunc
        Made without ``cache=True``. A plain function (``NUMBA_DISABLE_JIT=1``) is left alone. A C callback must be
        constructed as ``CFunc(function, sig, locals, options)``, attached, and then compiled by ``.compile()``: the
        decorator ``numba.cfunc`` compiles at once.

    Notes
    -----
    Never raises: what cannot be cached is compiled in every process, with one warning.
    """
    if not _enabled() or not hasattr(kernel, "_cache"):
        return
    try:
        function = kernel.py_func if hasattr(kernel, "py_func") else kernel._pyfunc
        options = _options(kernel)
        kernel._cache = SafeCache(stamp(function, options), options)
    except Exception as error:  # Numba's private names moved, or a closure has no stable name
        _report(error, f"attaching to {getattr(kernel, '__qualname__', kernel)!s}")


# --- for people -------------------------------------------------------------------------------------------------


def cache_info() -> dict[str, Any]:
    """Return where the cache is and what is in it; never raises.

    Returns
    -------
    dict
        ``enabled`` (bool), ``directory`` (str or None), ``files`` and ``bytes`` (of all versions and machines),
        ``hits`` and ``misses`` of this process, ``problem`` (str or None): the failure this process warned of.
    """
    info: dict[str, Any] = {"enabled": _enabled(), "directory": None, "files": 0, "bytes": 0, "problem": _problem}
    info.update(_counts)
    with suppress(Exception):
        info["directory"] = str(root())
        sizes = [p.stat().st_size for p in _kernel_files(root())]
        info.update(files=len(sizes), bytes=sum(sizes))
    return info


def _kernel_files(base: Path) -> Iterable[Path]:
    return (p for source in _source_directories(base) for p in source.rglob(f"*{_SUFFIX}"))


def clear_cache() -> int:
    """Delete all cached kernels, of every version and machine, and nothing else.

    Returns
    -------
    int
        The number of kernels deleted.

    Raises
    ------
    OSError
        If a directory cannot be deleted.
    """
    count = sum(1 for _ in _kernel_files(root()))
    for directory in _source_directories(root()):
        shutil.rmtree(directory)
    return count


_source_digest(_SOURCES)  # now, while the files are those that are being imported
