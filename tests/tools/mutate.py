"""Mutation testing: change one operator, comparison, constant or name of a module at a time; do its tests notice?

    python -m tests.tools.mutate stats            every mutant of fastgmm/stats.py
    python -m tests.tools.mutate families --every 3
    python -m tests.tools.mutate em --only care
    python -m tests.tools.mutate em 2>left.txt ... python -m tests.tools.mutate em --again left.txt

The tests are collected once and run once, to see which lines each of them runs and how long it takes. Every mutant then
lives in a forked child, which runs the tests that reach the changed line, the quickest first, up to the first failure.
A mutant is caught by a failing test, an error where its module is loaded, or a limit of time (an endless loop): ten
seconds of the processor and five times what its tests take. Those that no test notices are listed with line and
change on the standard error; docs/reliability.md explains those that are left. Once there are tests for them, --again
tries only these. Hypothesis tries 20 examples at most and shrinks nothing.
"""

import argparse
import contextlib
import os
import pickle
import re
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

# Before NumPy is loaded: children that each start a pool of threads for matrices of 3 x 3 only wait for one another.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import coverage
import hypothesis
import pytest
from _pytest.runner import runtestprotocol

from tests.tools.mutants import Mutant, mutants, take_effect

TOP = Path(__file__).parents[2]

TARGETS = {
    "stats": (["fastgmm/stats.py"], ["tests/test_stats_laws.py"]),
    "families": (
        [
            f"fastgmm/covariance/{name}.py"
            for name in ("full", "tied", "diag", "spherical", "_triangular", "base", "components", "__init__")
        ],
        [f"tests/test_{name}.py" for name in ("family_contract", "family_messages", "family_values", "em", "em_care")],
    ),
    "em": (
        [f"fastgmm/em/{name}.py" for name in ("loop", "care", "account", "packing")],
        [f"tests/test_{name}.py" for name in ("em", "em_state", "em_care", "monotone", "degenerate_policies")],
    ),
}
EXAMPLES = 20
SECONDS = 900
"""Until a child that does not use the processor either is given up."""


class Map:
    """Which tests run which lines, and how long each takes."""

    def __init__(self, items: list[pytest.Item], files: list[str]) -> None:
        """Run all tests once, in a child, so that this process stays as it is."""
        self.items = {item.nodeid: item for item in items}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "map"
            if wait_for(fork(lambda: self._record(files, path))) != 0:
                sys.exit("the tests fail without a mutant")
            self.seconds, self.lines = pickle.loads(path.read_bytes())  # its own

    def _record(self, files: list[str], path: Path) -> int:
        tracer = coverage.Coverage(data_file=None, include=[str(TOP / file) for file in files], config_file=False)
        seconds: dict[str, float] = {}
        tracer.start()
        for name, item in self.items.items():
            tracer.switch_context(name)
            started = time.process_time()
            if not passes(item):
                print(f"{name} fails", file=sys.stderr)
                return 1
            seconds[name] = time.process_time() - started
        tracer.stop()
        data = tracer.get_data()
        path.write_bytes(pickle.dumps((seconds, {str(f): data.contexts_by_lineno(f) for f in data.measured_files()})))
        return 0

    def reaching(self, mutant: Mutant) -> list[str]:
        """Tests that may notice, the quickest first."""
        lines = self.lines.get(str(mutant.path), {})
        names = {name for line in (mutant.lines or lines) for name in lines.get(line, ()) if name}
        return sorted(names, key=lambda name: self.seconds[name])


def passes(item: pytest.Item) -> bool:
    return not any(report.failed for report in runtestprotocol(item, log=False, nextitem=None))


def fork(work: Callable[[], int]) -> int:
    """Let a child do it; return the child's id."""
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            code = work()
        sys.stderr.flush()
        os._exit(code)
    return pid


def wait_for(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def try_mutant(mutant: Mutant, tests: Map, names: list[str]) -> int:
    limit = int(10 + 5 * sum(tests.seconds[name] for name in names))
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    with Path(os.devnull).open("w") as sink, contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        take_effect(mutant, module_name(mutant.path))
        return 0 if all(passes(tests.items[name]) for name in names) else 1


def name_of(mutant: Mutant) -> str:
    return f"{mutant.path.relative_to(TOP)}:{mutant.line}: {mutant.what}"


def without_line(name: str) -> str:
    """Lines move when a file is edited above them."""
    return re.sub(r":\d+:", ":", name, count=1)


def module_name(path: Path) -> str:
    parts = path.relative_to(TOP).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def next_end(running: dict[int, tuple[Mutant, float]]) -> tuple[Mutant, str]:
    """Wait for one child to end, or end it; how it went."""
    while True:
        for pid, (mutant, started) in list(running.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if not done and time.monotonic() - started > SECONDS:
                os.kill(pid, 9)
                done, status = os.waitpid(pid, 0)
            if done:
                del running[pid]
                code = os.waitstatus_to_exitcode(status)
                return mutant, "survived" if code == 0 else "killed" if code > 0 else "out of time"
        time.sleep(0.005)


class Campaign:
    """A plugin of pytest: runs mutants instead of tests."""

    def __init__(self, files: list[str], every: int, jobs: int, again: set[str] | None) -> None:
        self.files, self.every, self.jobs, self.again = files, every, jobs, again
        self.ends: Counter[str] = Counter()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        for item in session.items:
            # What a test says of itself goes before the profile.
            test = getattr(item, "obj", None)
            own = getattr(test, "_hypothesis_internal_use_settings", None)
            if own is not None:
                few = hypothesis.settings(own, max_examples=min(own.max_examples, EXAMPLES))
                getattr(test, "__func__", test)._hypothesis_internal_use_settings = few
        tests = Map(session.items, self.files)
        todo = [m for file in self.files for m in mutants(TOP / file)][:: self.every]
        if self.again is not None:
            todo = [mutant for mutant in todo if without_line(name_of(mutant)) in self.again]
        running: dict[int, tuple[Mutant, float]] = {}
        while todo or running:
            while todo and len(running) < self.jobs:
                mutant = todo.pop(0)
                names = tests.reaching(mutant)
                if names:
                    pid = fork(lambda m=mutant, n=names: try_mutant(m, tests, n))
                    running[pid] = mutant, time.monotonic()
                else:
                    self.count(mutant, "not run by any test")
            if running:
                self.count(*next_end(running))
        return True

    def count(self, mutant: Mutant, how: str) -> None:
        self.ends[how] += 1
        if how in ("survived", "not run by any test"):
            print(f"{name_of(mutant)}  ({how})", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--every", type=int, default=1, help="only every n-th mutant")
    parser.add_argument("--only", nargs="*", help="only these files of the target, by their names without .py")
    parser.add_argument("--again", type=Path, help="only those that this file lists: the standard error of another run")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    files, tests = TARGETS[args.target]
    files = [file for file in files if args.only is None or Path(file).stem in args.only]
    hypothesis.settings.register_profile(
        "mutate",
        derandomize=True,
        deadline=None,
        max_examples=EXAMPLES,
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    # Hypothesis was loaded before pytest, which this project's settings would make an error.
    options = ["-q", "-s", "-p", "no:cacheprovider", "-p", "no:doctest", "-p", "no:xdist"]
    options += ["--hypothesis-profile=mutate", "-o", "addopts=", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    again = None
    if args.again is not None:
        lines = args.again.read_text(encoding="utf-8").splitlines()
        again = {without_line(line.rpartition("  (")[0]) for line in lines}
    campaign = Campaign(files, args.every, args.jobs, again)
    with Path(os.devnull).open("w") as sink, contextlib.redirect_stdout(sink):
        code = pytest.main([*options, *tests], plugins=[campaign])
    if code:
        sys.exit(int(code))
    total = sum(campaign.ends.values())
    caught = campaign.ends["killed"] + campaign.ends["out of time"]
    print(f"{args.target}: {caught} of {total} mutants caught ({100.0 * caught / total:.1f} %); {dict(campaign.ends)}")


if __name__ == "__main__":
    main()
