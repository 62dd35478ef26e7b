"""Mutation testing of kernels: as `tests.tools.mutate`, for code that is compiled.

    python -m tests.tools.mutate_kernels near_small normalise
    python -m tests.tools.mutate_kernels softmax --every 3 --from 1

What a kernel does is decided when it is compiled, and compiled code outlives a change of its source, so every mutant is
written into a copy of the checkout and tested by a process of its own, with a cache of kernels of its own: ten to
sixty seconds each. It is caught by a failing test, a crash, or a limit of time. Those that no test notices are listed
on the standard error; docs/reliability.md explains those that are left.
"""

import argparse
import ast
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.tools.mutants import Mutant, mutants
from tests.tools.mutate import TOP, name_of

KERNELS, NEAR, SMALL, SOFTMAX, PASSES = (
    f"tests/test_{name}.py" for name in ("kernels", "kernels_near", "small", "softmax", "passes")
)
TESTS = {
    "near_small": ((SMALL,), ""),
    "near_tiles": ((NEAR, PASSES), "tiles_of_near or (near_and_far or one_by_one and 17) and not full"),
    "normalise": ((KERNELS,), "normalise"),
    "entry": ((KERNELS,), "enter_rows"),
    "softmax": ((SOFTMAX, SMALL), "softmax or exp or log or density or panel"),
    "small": ((KERNELS, SMALL), "small"),
}
"""For each kernel file the tests that are about it, and which of those (`pytest -k`)."""

SECONDS = 150
"""Until a process is given up; the tests of a file take up to 30."""


def survives(copy: Path, tests: tuple[str, ...], chosen: str) -> bool:
    """Whether all tests pass in a copy of the checkout."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]
    command += ["-k", chosen] if chosen else []
    with tempfile.TemporaryDirectory() as cache:
        env = {**os.environ, "PYTHONPATH": str(copy), "FASTGMM_CACHE_DIR": cache}
        try:
            done = subprocess.run(command, cwd=copy, env=env, capture_output=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0


def try_mutant(copy: Path, mutant: Mutant, tests: tuple[str, ...], chosen: str) -> bool:
    """Whether no test notices."""
    target = copy / mutant.path.relative_to(TOP)
    original = target.read_text(encoding="utf-8")
    target.write_text(ast.unparse(mutant.tree), encoding="utf-8")
    try:
        return survives(copy, tests, chosen)
    finally:
        target.write_text(original, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", choices=TESTS)
    parser.add_argument("--every", type=int, default=1, help="only every n-th mutant")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first of them")
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # some mutants write where nothing is
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("fastgmm", "tests"):
            shutil.copytree(TOP / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(TOP / "pyproject.toml", copy)
        for name in args.files:
            tests, chosen = TESTS[name]
            if not survives(copy, tests, chosen):
                sys.exit(f"the tests of {name} fail without a mutant")
            ends: Counter[bool] = Counter()
            for mutant in list(mutants(TOP / "fastgmm" / "kernels" / f"{name}.py"))[args.first :: args.every]:
                survived = try_mutant(copy, mutant, tests, chosen)
                ends[survived] += 1
                if survived:
                    print(f"{name_of(mutant)}  (survived)", file=sys.stderr, flush=True)
            print(f"{name}: {ends[False]} of {ends.total()} mutants caught", flush=True)


if __name__ == "__main__":
    main()
