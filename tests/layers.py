"""Numba's threading layers as they are found here, and the environment in which a process gets a certain one."""

import functools
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

TOP = Path(__file__).parents[1]
LAYERS = ("workqueue", "omp", "tbb")
LIMIT = 400  # seconds, of a subprocess: only a hang takes so long, also on a machine that is busy


@functools.cache
def tbb_folder():
    """Where ``pip install tbb`` has put the library, which is no place where a loader looks; None without it."""
    try:
        files = metadata.files("tbb") or ()
    except metadata.PackageNotFoundError:
        return None
    return next((str(Path(file.locate()).resolve().parent) for file in files if file.name == "libtbb.so.12"), None)


def environment(layer=None, threads=4):
    """Variables of a process of so many threads on a layer; its children inherit them."""
    env = {**os.environ, "NUMBA_NUM_THREADS": str(threads), "PYTHONPATH": str(TOP)}
    if layer is not None:
        env["NUMBA_THREADING_LAYER"] = layer
    if layer == "tbb" and (folder := tbb_folder()):
        env["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, (folder, os.environ.get("LD_LIBRARY_PATH"))))
    return env


@functools.cache
def available(layer):
    """Whether Numba can load a layer; omp needs the system's libgomp, tbb the package of that name."""
    code = "import numba\n@numba.njit(parallel=True)\ndef f():\n    for i in numba.prange(4):\n        pass\nf()"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment(layer), capture_output=True, timeout=LIMIT).returncode == 0
