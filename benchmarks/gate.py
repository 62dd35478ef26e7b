"""Does this commit make fits slower? Fails on a loss of 30 % against the parent that a second run confirms.

    python -m benchmarks.gate                     # HEAD against HEAD~1
    python -m benchmarks.gate --base v0.1 --loss 0.2

The parent's tree is unpacked beside the checkout, and both libraries run in this environment, each in a process of its
own that fits the same problems in turn. A benchmark's figure is the median over its rounds of the new time over the old
time in the same round. Only if one is above the limit are all measured again, by new processes, and only a benchmark
that is above it both times fails. Without a parent, as in a shallow clone, there is nothing to compare and all is well.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).parents[1]
PROBLEMS = {  # rows, features, components, type: a few hundredths of a second a fit; small D, large D, another family
    "full, D=2": (150_000, 2, 8, "full"),
    "full, D=32": (20_000, 32, 16, "full"),
    "diag, D=32": (60_000, 32, 16, "diag"),
}
ITERATIONS = 4

WORKER = """
import json, sys, time, warnings
sys.path.insert(0, sys.argv[1])
import numpy as np
import fastgmm
assert fastgmm.__file__.startswith(sys.argv[1]), fastgmm.__file__
warnings.simplefilter("ignore")
fits = {}
for name, (n, d, k, kind) in json.loads(sys.argv[2]).items():
    rng = np.random.default_rng(0)
    means = rng.standard_normal((k, d))
    X = rng.standard_normal((n, d)) + means[rng.integers(0, k, n)]
    precisions = {"full": np.repeat(np.eye(d)[None], k, axis=0), "diag": np.ones((k, d))}[kind]
    model = fastgmm.GaussianMixture(k, covariance_type=kind, tol=0.0, max_iter=int(sys.argv[3]),
        weights_init=np.full(k, 1 / k), means_init=means, precisions_init=precisions)
    model.fit(X)
    fits[name] = lambda model=model, X=X: model.fit(X)
print("ready", flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    fitted = fits[line.strip()]()
    print(json.dumps([time.perf_counter() - start, float(fitted.lower_bound_)]), flush=True)
"""


class Tree:
    """A process that fits with the library of one tree."""

    def __init__(self, tree: Path) -> None:
        command = [sys.executable, "-P", "-W", "ignore", "-c", WORKER, str(tree), json.dumps(PROBLEMS), str(ITERATIONS)]
        env = {**os.environ, "PYTHONPATH": ""}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.communicate()

    def ready(self) -> bool:
        """Wait until all problems are built and their kernels compiled; False if the library cannot do them."""
        assert self._process.stdout
        return self._process.stdout.readline().strip() == "ready"

    def fit(self, name: str) -> float:
        """Return the seconds of one fit."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(name + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())[0]


def compare(old: Path, new: Path, rounds: int) -> dict[str, float] | None:
    """Return, for each problem, the median ratio of the new tree's time to the old one's; None if a tree cannot run."""
    with Tree(old) as before, Tree(new) as after:
        if not before.ready() or not after.ready():
            return None
        ratios: dict[str, list[float]] = {name: [] for name in PROBLEMS}
        for round_ in range(rounds):
            for name, values in ratios.items():
                if round_ % 2:
                    second, first = after.fit(name), before.fit(name)
                else:
                    first, second = before.fit(name), after.fit(name)
                values.append(second / first)
    return {name: statistics.median(values) for name, values in ratios.items()}


def confirmed(measure, loss: float) -> tuple[list[str], list[dict[str, float]]]:
    """Return the names whose ratio is above 1 + loss in a run and in its repetition, and the runs.

    Parameters
    ----------
    measure : callable
        Returns name -> ratio; called a second time only if the first gives cause.
    loss : float
    """
    runs = [measure()]
    suspects = [name for name, ratio in runs[0].items() if not ratio <= 1 + loss]  # NaN is suspect too
    if suspects:
        runs.append(measure())
    return [name for name in suspects if not runs[1][name] <= 1 + loss], runs


def unpack(commit: str, folder: Path) -> bool:
    """Write a commit's tree into a folder; False if there is no such commit here."""
    git = ["git", "-C", str(TOP)]
    try:
        known = subprocess.run([*git, "rev-parse", "--verify", "--quiet", f"{commit}^{{tree}}"], capture_output=True)
    except OSError:  # no git
        return False
    if known.returncode:
        return False
    archive = subprocess.run([*git, "archive", "--format=tar", commit], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return True


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=__doc__.split("\n")[0])
    parser.add_argument("--base", default="HEAD~1", help="commit to compare with (default: %(default)s)")
    parser.add_argument("--loss", type=float, default=0.3, help="fail above this (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="default: %(default)s")
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        old = Path(name).resolve()
        if not unpack(options.base, old):
            print(f"no commit {options.base} here (a shallow clone, a first commit, no git): nothing to compare with")
            return 0

        class CannotRun(Exception):
            pass

        def measure() -> dict[str, float]:
            ratios = compare(old, TOP, options.rounds)
            if ratios is None:
                raise CannotRun
            print("time over the parent's: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))
            return ratios

        try:
            slower, runs = confirmed(measure, options.loss)
        except CannotRun:
            print(f"{options.base} or this checkout cannot fit these problems: nothing to compare")
            return 0
    verdict = f"slower by more than {options.loss:.0%} in both runs: {', '.join(slower)}" if slower else "no loss"
    again = " that a second run confirms" if len(runs) == 2 and not slower else ""
    print(f"{verdict}{again} ({time.perf_counter() - start:.0f} s)")
    return int(bool(slower))


if __name__ == "__main__":
    raise SystemExit(main())
