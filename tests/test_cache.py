"""The cache of compiled kernels: hits, every way it can break, and what it must never do to its caller."""

import gc
import os
import subprocess
import sys
import textwrap
import types
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from fastgmm.kernels import _cache, _jit

PACKAGE = Path(_cache.__file__).parents[2]

# One kernel of each kind: a C callback with a helper (how the passes are built), and a dispatcher. Prints the values,
# hits and misses, and the number of warnings. PRELUDE is replaced by what a test needs to happen first.
SCRIPT = """
import sys, time, warnings
import numpy as np, numba
from numba.core import types
from numba.core.ccallback import CFunc
from fastgmm.kernels import _cache
FACTOR = 2.0
BARRIER = None
#PRELUDE

def helper(x):
    return x * FACTOR

def body(a, b, n):
    x = numba.carray(a, (n,)); y = numba.carray(b, (n,))
    for i in range(n):
        y[i] = helper(x[i]) + 1.0

def total(x):
    s = 0.0
    for i in range(x.size):
        s += helper(x[i])
    return s

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    helper = numba.njit(_cache.stamp(helper))
    p = types.CPointer(types.float64)
    kernel = CFunc(body, ((p, p, types.intp), types.void), {}, {"nopython": True, "error_model": "numpy"})
    _cache.attach(kernel)
    adder = numba.njit(nogil=True)(total)
    _cache.attach(adder)
    if BARRIER: BARRIER()
    kernel.compile()
    x, y = np.arange(3.0), np.empty(3)
    import ctypes
    pointer = ctypes.POINTER(ctypes.c_double)
    kernel.ctypes(x.ctypes.data_as(pointer), y.ctypes.data_as(pointer), 3)
    value = adder(x)
info = _cache.cache_info()
print(list(map(float, y)), value, info["hits"], info["misses"], len(caught), *[str(w.message) for w in caught])
"""


def run(cache: Path | str, prelude: str = "", **environment: str) -> str:
    env = {**os.environ, "FASTGMM_CACHE_DIR": str(cache), "PYTHONPATH": str(PACKAGE), **environment}
    script = SCRIPT.replace("#PRELUDE", textwrap.dedent(prelude))
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


COLD = "[1.0, 3.0, 5.0] 6.0 0 2 0"
WARM = "[1.0, 3.0, 5.0] 6.0 2 0 0"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that one process has filled; tests copy it."""
    cache = tmp_path_factory.mktemp("cache")
    assert run(cache) == COLD
    return cache


def copy(source: Path, target: Path) -> list[Path]:
    import shutil

    shutil.copytree(source, target, dirs_exist_ok=True)
    files = sorted(target.rglob("*.kernel"))
    assert len(files) == 2
    return files


def test_a_second_process_loads_both_kinds_from_disk(filled: Path) -> None:
    assert run(filled) == WARM


def test_files_are_private(filled: Path) -> None:
    leaf = next(filled.rglob("*.kernel")).parent
    assert leaf.stat().st_mode & 0o777 == 0o700
    assert all(f.stat().st_mode & 0o777 == 0o600 for f in leaf.iterdir())
    assert not list(leaf.glob("*.tmp"))


@pytest.mark.parametrize("damage", ["empty", "truncated", "random", "foreign", "flipped", "swapped"])
def test_damaged_files_cost_one_warning_and_are_mended(filled: Path, tmp_path: Path, damage: str) -> None:
    files = copy(filled, tmp_path)
    good = [f.read_bytes() for f in files]
    for file, data, other in zip(files, good, good[::-1], strict=True):
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 1
        file.write_bytes(
            {
                "empty": b"",
                "truncated": data[: len(data) // 2],
                "random": np.random.default_rng(0).bytes(len(data)),
                "foreign": b"\x80\x04N.",  # a valid pickle, as of another program
                "flipped": bytes(flipped),
                "swapped": other,  # one kernel's file under the other's name
            }[damage]
        )
    out = run(tmp_path)
    assert out.startswith("[1.0, 3.0, 5.0] 6.0 0 2 1 The cache of compiled kernels does not work (reading "), out
    assert run(tmp_path) == WARM


def test_a_file_that_no_longer_unpickles_is_compiled_again(filled: Path, tmp_path: Path) -> None:
    copy(filled, tmp_path)
    out = run(
        tmp_path,
        "def broken(*a): raise AttributeError('moved')\n_cache.pickle = type(sys)('p'); _cache.pickle.loads = broken",
    )
    assert out.startswith("[1.0, 3.0, 5.0] 6.0 0 2 1 "), out


@pytest.mark.parametrize("kind", ["file", "missing home", "proc"])
def test_an_unusable_directory_costs_one_warning(tmp_path: Path, kind: str) -> None:
    """Root ignores permission bits, so the directories here are ones that nobody can make."""
    if kind == "file":
        (tmp_path / "taken").write_text("not a directory")
        out = run(tmp_path / "taken" / "cache")
    elif kind == "proc":
        out = run("/proc/none/cache")
    else:
        out = run("", HOME="/proc/none", XDG_CACHE_HOME="", LOCALAPPDATA="/proc/none")
    assert out.startswith("[1.0, 3.0, 5.0] 6.0 0 2 1 The cache of compiled kernels does not work (writing "), out


def test_a_full_disk_costs_one_warning_and_leaves_no_rubbish(tmp_path: Path) -> None:
    out = run(tmp_path, "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))")
    assert out.startswith("[1.0, 3.0, 5.0] 6.0 0 2 1 The cache of compiled kernels does not work (writing "), out
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has no permission bits")
def test_what_others_can_write_is_refused(filled: Path, tmp_path: Path) -> None:
    files = copy(filled, tmp_path)
    files[0].parent.chmod(0o777)
    assert "can be written by other users" in run(tmp_path)
    files[0].parent.chmod(0o700)
    for file in files:
        file.chmod(0o666)
    assert "can be written by other users" in run(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a file away")
def test_what_belongs_to_others_is_refused(filled: Path, tmp_path: Path) -> None:
    files = copy(filled, tmp_path)
    os.chown(files[0].parent, 12345, 12345)
    assert "belongs to another user" in run(tmp_path)


def test_two_processes_that_compile_at_once_leave_a_good_cache(tmp_path: Path) -> None:
    """Both wait for the other right before they compile, one with different code under the same names."""
    cache = tmp_path / "cache"
    prelude = f"""
    import os, pathlib
    FACTOR = float(os.environ["FACTOR"])
    def BARRIER():
        here = pathlib.Path({str(tmp_path)!r})
        (here / os.environ["FACTOR"]).touch()
        while not all((here / f).exists() for f in ("2.0", "3.0")):
            time.sleep(0.001)
    def helper(x): return x
    """
    script = SCRIPT.replace("#PRELUDE", textwrap.dedent(prelude)).replace("x * FACTOR", "x * %s")
    processes = []
    for factor in ("2.0", "3.0"):
        env = {**os.environ, "FASTGMM_CACHE_DIR": str(cache), "PYTHONPATH": str(PACKAGE), "FACTOR": factor}
        # The constant is in the byte code of both, so the two have different kernels of the same names.
        code = (
            (script % factor)
            .replace("+ 1.0", f"+ 1.0 * {factor}")
            .replace("s = 0.0", f"s = {factor} - 0.0 * x[0] - {factor}")
        )
        processes.append(subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True))
    outs = [p.communicate(timeout=300)[0].strip() for p in processes]
    assert outs == ["[2.0, 4.0, 6.0] 6.0 0 2 0", "[3.0, 6.0, 9.0] 9.0 0 2 0"]
    kinds = sorted(p.name.split("-")[0] for p in cache.rglob("*.kernel"))
    assert kinds == ["body", "body", "total", "total"]


def test_a_changed_helper_source_recompiles(tmp_path: Path) -> None:
    """The stale code that Numba's own cache would load: the caller's file is the same, the helper's is not."""
    sources = tmp_path / "package" / "kernels"
    sources.mkdir(parents=True)
    prelude = f"import pathlib; _cache._SOURCES = pathlib.Path({str(sources)!r})\n"
    (sources / "helper.py").write_text("FACTOR = 2.0")
    assert run(tmp_path / "cache", prelude + "FACTOR = 2.0") == COLD
    assert run(tmp_path / "cache", prelude + "FACTOR = 2.0") == WARM
    (sources / "helper.py").write_text("FACTOR = 4.0")
    assert run(tmp_path / "cache", prelude + "FACTOR = 4.0") == "[1.0, 5.0, 9.0] 12.0 0 2 0"


def test_a_process_that_outlives_an_upgrade_writes_nothing(tmp_path: Path) -> None:
    """It runs the old code, which must not be found under the name of the new sources."""
    sources = tmp_path / "package" / "kernels"
    sources.mkdir(parents=True)
    (sources / "helper.py").write_text("FACTOR = 2.0")
    prelude = f"""
        import pathlib
        _cache._SOURCES = pathlib.Path({str(sources)!r})
        _cache._source_digest(_cache._SOURCES)  # what importing the package does
        """
    upgrade = 'BARRIER = lambda: (_cache._SOURCES / "helper.py").write_text("FACTOR = 4.0")'
    assert run(tmp_path / "cache", textwrap.dedent(prelude) + upgrade) == COLD
    assert not list((tmp_path / "cache").rglob("*.kernel"))
    assert run(tmp_path / "cache", textwrap.dedent(prelude) + "FACTOR = 4.0") == "[1.0, 5.0, 9.0] 12.0 0 2 0"


def test_another_cpu_gets_its_own_directory(tmp_path: Path) -> None:
    assert run(tmp_path) == COLD
    assert run(tmp_path, NUMBA_CPU_NAME="generic") == COLD
    assert len({p.parent for p in tmp_path.rglob("*.kernel")}) == 2
    assert run(tmp_path, NUMBA_BOUNDSCHECK="1") == COLD  # Numba's own key forgets this one


def test_switched_off_and_without_jit(tmp_path: Path) -> None:
    assert run(tmp_path, FASTGMM_CACHE="0").endswith("6.0 0 0 0")
    assert not list(tmp_path.iterdir())
    _cache.attach(lambda: None)  # NUMBA_DISABLE_JIT=1: njit returns the function itself


def test_a_private_name_that_moved_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    class Moved:
        _cache = None

    monkeypatch.setattr(_cache, "_problem", None)
    with pytest.warns(RuntimeWarning, match="attaching to"):
        _cache.attach(Moved())
    _cache.attach(Moved())  # the second time is silent


def test_a_symbol_that_nobody_provides_does_not_end_the_process(filled: Path, tmp_path: Path) -> None:
    copy(filled, tmp_path)
    prelude = """
    import pickle
    real = pickle.loads
    _cache.pickle = type(sys)("p")
    _cache.pickle.loads = lambda data: (["no_such_symbol"], real(data)[1])
    """
    out = run(tmp_path, prelude)
    assert out.startswith("[1.0, 3.0, 5.0] 6.0 0 2 1 "), out
    assert "does not provide ['no_such_symbol']" in out


def test_a_hit_does_not_initialise_numbas_typing(filled: Path, tmp_path: Path) -> None:
    """The refresh costs more than everything else; the code that follows must still be able to compile."""
    copy(filled, tmp_path)
    prelude = """
    from numba.core.cpu import CPUContext
    refresh, calls = CPUContext.refresh, []
    CPUContext.refresh = lambda self: (calls.append(1), refresh(self))[1]
    """
    ending = "\nprint(len(calls)); print(numba.njit(lambda x: np.sqrt(adder(x)))(np.full(2, 4.0)), len(calls) > 0)"
    env = {**os.environ, "FASTGMM_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(PACKAGE)}
    script = SCRIPT.replace("#PRELUDE", textwrap.dedent(prelude)) + ending
    out = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert out.stdout.split("\n")[:3] == [WARM, "0", "4.0 True"], out.stderr


# --- names and identities ---------------------------------------------------------------------------------------


def make(factor: float, inner: object = None):  # type: ignore[no-untyped-def]  # returns a function of a closure
    def kernel(x: float) -> object:
        return x * factor, inner

    return kernel


def test_the_identity_sees_closures_constants_and_defaults() -> None:
    describe = _cache.describe_function
    assert describe(make(2.0)) == describe(make(2.0))
    assert describe(make(2.0)) != describe(make(3.0))
    assert describe(make(2)) != describe(make(2.0))
    assert describe(make(1.0, make(2.0))) != describe(make(1.0, make(3.0)))
    assert describe(make(1.0, {"a", "b", "c"})) == describe(make(1.0, {"c", "b", "a"}))
    assert describe(make(1.0, np.arange(2000.0))) != describe(make(1.0, np.arange(2000.0) * (np.arange(2000) != 999)))
    assert describe(lambda x=1: x) != describe(lambda x=2: x)  # type: ignore[misc]  # lambdas cannot be annotated


def test_an_object_without_a_lasting_name_is_refused() -> None:
    with pytest.raises(_cache._UncacheableError, match="no name that holds"):
        _cache.describe_function(make(1.0, object()))


def test_the_stamp_separates_closures_and_options_and_is_idempotent() -> None:
    a, b, c = (_cache.stamp(make(f), {"fastmath": o}) for f, o in ((1.0, True), (2.0, True), (1.0, False)))
    assert len({f.__qualname__ for f in (a, b, c)}) == 3
    assert a.__name__.startswith("kernel_")
    before = a.__qualname__
    assert _cache.stamp(a, {"fastmath": True}).__qualname__ == before
    assert isinstance(a, types.FunctionType)


def test_info_and_clear(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy(filled, tmp_path)
    (tmp_path / "mine.txt").write_text("not a kernel")
    monkeypatch.setenv("FASTGMM_CACHE_DIR", str(tmp_path))
    info = _cache.cache_info()
    assert info["enabled"]
    assert (info["files"], info["directory"]) == (2, str(tmp_path))
    assert info["bytes"] > 1000
    assert _cache.clear_cache() == 2
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    assert _cache.cache_info()["files"] == 0


def test_old_sources_are_dropped(tmp_path: Path) -> None:
    for i in range(10):
        old = tmp_path / f"{i:020x}"
        old.mkdir()
        os.utime(old, (i, i))
    _cache._make_directory(tmp_path / ("f" * 20) / "leaf")
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == [f"{i:020x}" for i in range(4, 10)] + ["f" * 20]


def test_the_sources_are_read_once_a_process(monkeypatch) -> None:
    """Every source is read for the digest of what runs, each once, and none for the second kernel that is looked up."""
    read = []
    plain = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path.name) or plain(path))
    _cache._source_digest.cache_clear()
    assert len(_cache._source_digest(_cache._SOURCES)) == 20
    assert {"full.py", "simd.py", "constants.py"} < set(read)
    assert len(read) == len(list(_cache._SOURCES.rglob("*.py"))) + 1
    read.clear()
    _cache.kernel_digest()
    assert not read


@pytest.mark.parametrize("collecting", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_a_compilation_leaves_the_garbage_collector_as_it_was(collecting, fails, monkeypatch) -> None:
    class Block:
        address = 5

        def __init__(self, *_, **__) -> None:
            pass

        def compile(self) -> None:
            assert not gc.isenabled()
            if fails:
                raise MemoryError

    monkeypatch.setattr(_jit, "CFunc", Block)
    monkeypatch.setattr(_jit, "attach", lambda _: None)
    monkeypatch.setattr(_jit, "_keep", [])
    before = gc.isenabled()
    (gc.enable if collecting else gc.disable)()
    try:
        with pytest.raises(MemoryError) if fails else nullcontext():
            assert _jit.compile_block.__wrapped__(print, "float64") == 5
        assert gc.isenabled() is collecting
    finally:
        (gc.enable if before else gc.disable)()
