"""asv: what a new process waits for: the import, and the first fit with a warm and with a cold cache of kernels.

Python's bytecode is there, as after ``pip install``: new processes find it in a directory of their own, whatever this
source tree holds and whether or not the environment forbids to write it.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
import time

from benchmarks.data import SMALL
from benchmarks.record import circumstances, save

FIRST_FIT = """
import time; start = time.perf_counter()
import numpy as np
import fastgmm
X = np.random.default_rng(0).standard_normal(({n}, {d})) + np.arange({n})[:, None] % 2 * 5
fastgmm.GaussianMixture(2, covariance_type={kind!r}, random_state=0).fit(X)
print(time.perf_counter() - start)
"""


_bytecode = tempfile.TemporaryDirectory()


@functools.cache
def environment() -> dict[str, str]:
    """Return the environment of a new process whose imports find bytecode, its own and everybody's."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = _bytecode.name
    code = "import fastgmm; fastgmm.GaussianMixture(2).fit([[0.0], [1.0], [2.0]])"  # no fit of 16 features
    command = [sys.executable, "-W", "ignore", "-c", code]
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(2):  # with a cold cache and a warm one: they import different things
            subprocess.run(command, env={**env, "FASTGMM_CACHE_DIR": cache}, check=True)
    return env


def first_fit(cache: str, kind: str = "full", n: int = 2000, d: int = 2) -> float:
    """Return the seconds from the first import to the end of the first fit in a new process."""
    env = {**environment(), "FASTGMM_CACHE_DIR": cache}
    command = [sys.executable, "-W", "ignore", "-c", FIRST_FIT.format(n=n, d=d, kind=kind)]
    return float(subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout)


class Import:
    """``import fastgmm``: must not load Numba."""

    def timeraw_import(self) -> str:
        return "import fastgmm"

    def track_modules(self) -> int:
        code = "import sys; before = len(sys.modules); import fastgmm; print(len(sys.modules) - before)"
        return int(subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout)

    track_modules.unit = "modules"


class FirstFit:
    """The first fit of a process; D=16 takes other kernels than D=2."""

    params = (("full",), (2,)) if SMALL else (("full", "tied", "diag", "spherical"), (2, 16))
    param_names = ("covariance_type", "D")
    timeout = 120

    def setup(self, kind: str, d: int) -> None:
        self.folder = tempfile.TemporaryDirectory()

    def teardown(self, kind: str, d: int) -> None:
        self.folder.cleanup()

    def track_cold(self, kind: str, d: int) -> float:
        return first_fit(self.folder.name, kind, d=d)

    track_cold.unit = "seconds"

    def track_warm(self, kind: str, d: int) -> float:
        first_fit(self.folder.name, kind, d=d)
        return min(first_fit(self.folder.name, kind, d=d) for _ in range(3))

    track_warm.unit = "seconds"


def main() -> None:
    """Print the times without asv."""
    best = []
    environment()  # made before anything is timed
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import fastgmm"], env=environment(), check=True)
        middle = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import numpy"], env=environment(), check=True)
        best.append((middle - start, time.perf_counter() - middle))
    print(
        f"python -c 'import fastgmm': {min(b[0] for b in best):.3f} s; 'import numpy': {min(b[1] for b in best):.3f} s"
    )
    figures: dict = {"import fastgmm": min(b[0] for b in best), "import numpy": min(b[1] for b in best), "first": []}
    for kind in FirstFit.params[0]:
        for d in FirstFit.params[1]:
            with tempfile.TemporaryDirectory() as folder:
                cold = first_fit(folder, kind, d=d)
                warm = min(first_fit(folder, kind, d=d) for _ in range(3))
            figures["first"].append({"covariance_type": kind, "d": d, "cold": cold, "warm": warm})
            print(f"first fit, {kind:10} D={d:2}: {cold:6.2f} s cold, {warm:6.2f} s warm")
    if not SMALL:
        save("startup", {**figures, "where": circumstances()})


if __name__ == "__main__":
    main()
