"""Mutation testing: change one operator, comparison or constant of a module at a time; do its tests notice?

    python -m tests.tools.mutate stats            every mutant of fastgmm/stats.py against tests/test_stats_laws.py
    python -m tests.tools.mutate families --every 3
    python -m tests.tools.mutate em

A mutant lives in a forked child that imports the changed source instead of the file and runs the focused tests up to
the first failure. It is killed by a failing test, an error on import, or the time limit (an endless loop). Survivors
are listed with line and change; docs/reliability.md explains those that are left.
"""

import argparse
import ast
import contextlib
import copy
import importlib.abc
import importlib.machinery
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import hypothesis
import hypothesis.extra.numpy
import numpy as np  # noqa: F401 - loaded once, before the forks
import pytest
import scipy.linalg
import scipy.stats  # noqa: F401

TOP = Path(__file__).parents[2]

TARGETS = {
    "stats": (["fastgmm/stats.py"], ["tests/test_stats_laws.py"]),
    "families": (
        [f"fastgmm/covariance/{name}.py" for name in ("full", "tied", "diag", "spherical", "_triangular", "base")],
        ["tests/test_family_contract.py"],
    ),
    "em": (
        ["fastgmm/em/loop.py", "fastgmm/em/care.py"],
        ["tests/test_em.py", "tests/test_monotone.py", "tests/test_degenerate_policies.py"],
    ),
}
SECONDS = 120
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


class Mutant(NamedTuple):
    path: Path
    line: int
    what: str
    tree: ast.Module


def sites(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes that may be changed, in order of the source; no annotations and no messages."""
    for name, child in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_comment"):
            continue
        for item in child if isinstance(child, list) else [child]:
            if isinstance(item, ast.JoinedStr) or not isinstance(item, ast.AST):
                continue
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.target.id == "Reference":
                continue
            yield item
            yield from sites(item)


def changes(node: ast.AST) -> Iterator[tuple[str, object, object]]:
    """(field, value before, value after) of each change of a node."""
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            if type(op) in SWAPS:
                yield "ops", op, [*node.ops[:i], SWAPS[type(op)](), *node.ops[i + 1 :]]
    elif isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)) and type(node.op) in SWAPS:
        yield "op", node.op, SWAPS[type(node.op)]()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not, ast.Invert)):
        yield "op", node.op, ast.UAdd() if isinstance(node.op, ast.USub) else None
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "value", node.value, not node.value
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield "value", node.value, node.value + 1


def mutants(path: Path) -> Iterator[Mutant]:
    """All mutants of a file."""
    source = ast.parse(path.read_text(encoding="utf-8"))
    for index, node in enumerate(sites(source)):
        for number, (field, before, _) in enumerate(changes(node)):
            tree = copy.deepcopy(source)
            place = list(sites(tree))[index]
            _, _, after = list(changes(place))[number]
            if after is None:  # drop the operator
                place.op, place.operand = ast.UAdd(), place.operand  # type: ignore[attr-defined]
                if isinstance(before, ast.Not):
                    place.op = ast.Not()  # type: ignore[attr-defined]
                    place.operand = ast.UnaryOp(ast.Not(), place.operand)  # type: ignore[attr-defined]
            else:
                setattr(place, field, after)
            ast.fix_missing_locations(tree)
            was, now = ast.unparse(node), ast.unparse(place)
            yield Mutant(path, getattr(node, "lineno", 0), f"{was[:60]}  ->  {now[:60]}", tree)


class Swapped(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Imports one module from a tree instead of its file."""

    def __init__(self, name: str, mutant: Mutant) -> None:
        self.name, self.mutant = name, mutant

    def find_spec(self, name, path=None, target=None):  # noqa: ARG002 - the protocol
        if name != self.name:
            return None
        return importlib.machinery.ModuleSpec(name, self, origin=str(self.mutant.path))

    def get_filename(self, fullname):  # noqa: ARG002
        return str(self.mutant.path)

    def get_data(self, path):  # noqa: ARG002
        return b""

    def get_code(self, fullname):  # noqa: ARG002
        return compile(self.mutant.tree, str(self.mutant.path), "exec")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(TOP).with_suffix("").parts)


def child(mutant: Mutant | None, tests: list[str]) -> int:
    """Run the tests with the mutant in place of its module; pytest's exit code."""
    if mutant is not None:
        sys.meta_path.insert(0, Swapped(module_name(mutant.path), mutant))
    hypothesis.settings.register_profile(
        "mutate",
        derandomize=True,
        deadline=None,
        max_examples=25,
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    # Hypothesis was loaded before the fork, which this project's settings would make an error.
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:doctest", "--hypothesis-profile=mutate"]
    options += ["-o", "addopts=", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    with Path(os.devnull).open("w") as sink, contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        return int(pytest.main([*options, *tests]))


def start(mutant: Mutant | None, tests: list[str]) -> int:
    """Fork; return the child's id."""
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            code = child(mutant, tests)
        os._exit(code)
    return pid


def wait(running: dict[int, tuple[Mutant, float]]) -> tuple[Mutant, str]:
    """Wait for one child to end, or end it; how it went."""
    while True:
        for pid, (mutant, started) in list(running.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                del running[pid]
                return mutant, "survived" if os.waitstatus_to_exitcode(status) == 0 else "killed"
            if time.monotonic() - started > SECONDS:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
                del running[pid]
                return mutant, "timed out"
        time.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--every", type=int, default=1, help="only every n-th mutant")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    files, tests = TARGETS[args.target]
    pid = start(None, tests)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
        sys.exit(f"the tests fail without a mutant: {' '.join(tests)}")
    todo = [m for file in files for m in mutants(TOP / file)][:: args.every]
    ends = {"killed": 0, "survived": 0, "timed out": 0}
    running: dict[int, tuple[Mutant, float]] = {}
    while todo or running:
        while todo and len(running) < args.jobs:
            mutant = todo.pop(0)
            running[start(mutant, tests)] = (mutant, time.monotonic())
        mutant, how = wait(running)
        ends[how] += 1
        if how == "survived":
            print(f"{mutant.path.relative_to(TOP)}:{mutant.line}: {mutant.what}", flush=True)
    caught, total = ends["killed"] + ends["timed out"], sum(ends.values())
    print(f"{args.target}: {caught} of {total} mutants caught ({100.0 * caught / total:.1f} %); {ends}")


if __name__ == "__main__":
    main()
