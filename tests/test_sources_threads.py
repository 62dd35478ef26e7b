"""The reading thread: it ends with the pass however that ends, and what goes wrong in it arrives at the caller."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from fastgmm import GaussianMixture, open_rows
from fastgmm.data import as_rows
from fastgmm.data.formats.parquet import ParquetPart
from tests import sources
from tests.test_sources import BLOCK, N, rows

TOP = Path(__file__).parents[1]


def fit(X):
    return GaussianMixture(2, random_state=0).fit(X)


def no_threads():
    """No reader is alive (zarr keeps threads of its own)."""
    return not any(thread.name == "fastgmm-reader" for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def _no_thread_stays():
    yield
    assert no_threads()


@pytest.mark.parametrize("prefetch", [0, 1, 2])
def test_a_reader_that_fails_at_every_block(prefetch):
    parts = np.array_split(rows(2000), 8)
    for n in range(len(parts)):
        reader = sources.FaultyReader(parts, n)

        def read(reader=reader):
            for _ in open_rows(reader, block_bytes=4000, prefetch=prefetch).blocks(1):
                pass

        with pytest.raises(RuntimeError, match=f"disk on fire at block {n}") as caught:
            read()
        assert any("sources.py" in str(entry.path) for entry in caught.traceback)  # with its cause
        assert no_threads()
    whole = sources.FaultyReader(parts, len(parts))
    np.testing.assert_array_equal(open_rows(whole, block_bytes=4000).to_array(), rows(2000))


@pytest.mark.parametrize("fail_in", range(6))
def test_a_reader_that_fails_in_the_middle_of_a_fit(fail_in):
    """Whatever pass it is: the error arrives, and the estimator stays unfitted."""
    x, calls = rows(), []

    def blocks():
        calls.append(0)
        for number, part in enumerate(np.array_split(x, 9)):
            if len(calls) == fail_in + 2 and number == 4:
                raise OSError(5, "Input/output error")
            yield part

    model = GaussianMixture(2, tol=0.0, max_iter=9, random_state=0)
    with pytest.raises(OSError, match="Input/output error"):
        model.fit(open_rows(blocks, block_bytes=BLOCK))
    assert not hasattr(model, "mixture_")


def test_threads_end_with_the_pass(tmp_path):
    path = sources.write(tmp_path, "parquet-777", rows())
    source = open_rows(path, block_bytes=BLOCK)
    for stop in (1, 3):
        blocks = source.blocks(1)
        for _ in range(stop):
            next(blocks)
        assert not no_threads()
        blocks.close()
        assert no_threads()
    blocks = source.blocks(1)
    next(blocks)
    del blocks
    gc.collect()
    assert no_threads()

    def stop_at_once(info):  # noqa: ARG001 - the signature of a callback
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        GaussianMixture(2, random_state=0).fit(source, callback=stop_at_once)
    assert no_threads()
    fit(source)


def test_two_passes_at_once(tmp_path):
    """Two generators of one source, advanced in turns: each has its own file and buffers."""
    x = rows()
    source = open_rows(sources.write(tmp_path, "npy", x), block_bytes=BLOCK)
    for (first, a, _), (_, b, _) in zip(source.blocks(1), source.blocks(1), strict=True):
        np.testing.assert_array_equal(a, x[first : first + len(a)])
        np.testing.assert_array_equal(b, a)


def test_ctrl_c_ends_a_slow_reader():
    code = f"""
import sys, time, threading
sys.path.insert(0, {str(TOP)!r})
import numpy as np, fastgmm
x = np.random.default_rng(0).normal(size=(5000, 2))
def blocks():
    for part in np.array_split(x, 500):
        time.sleep(0.01)
        yield part
rows = fastgmm.open_rows(blocks, block_bytes=800)
print("ready", flush=True)
try:
    fastgmm.GaussianMixture(2, tol=0.0, max_iter=10**6).fit(rows)
except KeyboardInterrupt:
    print("interrupted", [t.name for t in threading.enumerate()], flush=True)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.5)
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=60)
    finally:
        child.kill()
    assert out == "interrupted ['MainThread']\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_source_works_in_a_forked_child(tmp_path):
    source = open_rows(sources.write(tmp_path, "hdf5", rows()), block_bytes=BLOCK)
    expected = [part.x.sum() for part in source.blocks(1)]
    code = f"""
import sys, os
sys.path.insert(0, {str(TOP)!r})
import fastgmm
source = fastgmm.open_rows({str(tmp_path / "x.h5")!r}, block_bytes={BLOCK})
expected = [b.x.sum() for b in source.blocks(1)]
child = os.fork()
if child == 0:
    os._exit(0 if [b.x.sum() for b in source.blocks(1)] == expected else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(expected))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == f"0 {len(expected)}\n"


def test_reading_starts_where_it_is_told(tmp_path):
    """Row groups before the start, and behind the end, are not decoded: a part of a large file costs a part."""
    path = sources.write(tmp_path, "parquet-777", rows())
    part = ParquetPart(path)
    asked = []

    class Spy:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def iter_batches(self, *args, row_groups, **options):
            asked.append(row_groups)
            return self.file.iter_batches(*args, row_groups=row_groups, **options)

    opened = part._open
    part._open = lambda *args: Spy(opened(*args))
    pieces = list(part.pieces((0,), None, 777 * 4 + 5))
    assert asked == [list(range(4, 12))]
    assert sum(piece.n_rows for piece in pieces) == N - 777 * 4 - 5
    pieces = list(part.until(777 * 6 + 1).pieces((0,), None, 777 * 4 + 5))
    assert asked[1:] == [[4, 5, 6]]
    assert sum(piece.n_rows for piece in pieces) == 777 * 2 - 4


def test_as_rows_of_an_array_is_as_it_was():
    x = rows(50)
    assert next(as_rows(x).blocks(1)).x is x


NO_ROOM = """
import resource, sys, threading
import numpy as np
from fastgmm.data import pump
from fastgmm.typing import RowBlock

def read(take):
    for start in range(0, 12, 3):
        buffer = take()
        buffer.x[:] = start
        ways.add(threading.current_thread().name)
        yield RowBlock(start, buffer.x, None), buffer

def numbers():
    buffers = [pump.make_buffer(3, 2, np.dtype(float), weighted=False) for _ in range(2)]
    return [float(block[1][0, 0]) for block in pump.pumped(read, buffers)]

ways = set()
assert numbers() == [0.0, 3.0, 6.0, 9.0] and ways == {"fastgmm-reader"}
page = resource.getpagesize()
stack = resource.getrlimit(resource.RLIMIT_STACK)[0]
ways.clear()
for extra in [0, *range(stack - 8 * page, stack + 40 * page, page), stack + (4 << 20)]:
    used = int(open("/proc/self/statm").read().split()[0]) * page
    resource.setrlimit(resource.RLIMIT_AS, (used + extra, resource.RLIM_INFINITY))
    found = numbers()
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert found == [0.0, 3.0, 6.0, 9.0]
print(*sorted(ways))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are Linux's")
def test_where_there_is_no_room_for_a_thread_the_caller_reads():
    """With room for the stack and hardly more, CPython would wait for ever for the thread to begin."""
    env = {**os.environ, "PYTHONPATH": str(TOP)}
    command = ["bash", "-c", f"ulimit -S -s 8192; exec {sys.executable} -c '{NO_ROOM}'"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["MainThread", "fastgmm-reader"]
