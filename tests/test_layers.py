"""The architecture, checked: who may import whom, where optional packages and Numba may appear, and how long a file is.

Upper layers import lower ones. Sideways and upward imports need an entry with its reason below. Everything is read from
the syntax trees, so nothing here depends on what is installed.
"""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

TOP = Path(__file__).parents[1]
PACKAGE = TOP / "fastgmm"

# From the ground up; a unit is a module or a folder directly under fastgmm/.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "constants", "typing", "validation", "files", "pieces", "threads"}),
    frozenset({"archive", "kernels"}),
    frozenset({"stats", "density", "params"}),
    frozenset({"covariance", "nearest"}),
    frozenset({"passes", "partials"}),
    frozenset({"data", "mixture", "clusters"}),
    frozenset({"em", "initialize", "online"}),
    frozenset({"checkpoint", "minibatch"}),  # online EM over the batches of a source
    frozenset({"estimators", "selection"}),
    frozenset({"cli", "dask", "datasets", "persist", "plotting", "progress"}),
    frozenset({"__init__", "__main__"}),
)
EDGES = LAYERS[-2]

# Within a layer, at the top of a file: (who, whom).
SIDEWAYS = {
    ("errors", "constants"),
    ("validation", "constants"),
    ("validation", "errors"),
    ("validation", "typing"),
    ("files", "errors"),
    ("params", "density"),
    ("mixture", "data"),  # a mixture takes whatever the estimators take
    ("em", "initialize"),
    ("selection", "estimators"),  # a search is many fits
    ("cli", "dask"),
    ("cli", "datasets"),
    ("cli", "persist"),
    ("cli", "plotting"),
    ("cli", "progress"),
    ("__main__", "__init__"),
}
# Upward, inside a function only: methods that hand over to an edge, so that a user need not import it.
UPWARD = {
    ("estimators", "persist"),
    ("estimators", "plotting"),
    ("estimators", "progress"),
    ("mixture", "persist"),
    ("mixture", "plotting"),
}

CORE = {"numpy", "scipy"}  # anywhere; kernels take numpy only
JIT = {"numba", "llvmlite"}  # kernels only
OPTIONAL = {
    "dask",
    "distributed",
    "h5py",
    "matplotlib",
    "mpl_toolkits",
    "narwhals",
    "pandas",
    "polars",
    "pyarrow",
    "rich",
    "sklearn",
    "threadpoolctl",
    "tqdm",
    "zarr",
}

# What turns a Python function into machine code: one front door, so that options, cache and names are decided once.
JIT_ENTRIES = {"njit", "jit", "cfunc", "vectorize", "guvectorize", "stencil", "jitclass", "CFunc", "Dispatcher"}
JIT_FILES = {"kernels/_jit.py", "kernels/_cache.py"}

MAX_LINES = 450
MODULES = sorted(PACKAGE.rglob("*.py"))


class Import(NamedTuple):
    name: str  # dotted, absolute
    line: int
    inside: bool  # in a function, so it runs only when called
    typing_only: bool  # under `if TYPE_CHECKING:`


def unit(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def layer(name: str) -> int:
    for i, names in enumerate(LAYERS):
        if name in names:
            return i
    msg = f"fastgmm.{name} has no layer: put it into LAYERS in {Path(__file__).name}"
    raise LookupError(msg)


def walk(node: ast.AST, inside: bool = False, typing_only: bool = False) -> Iterator[tuple[ast.AST, bool, bool]]:
    for child in ast.iter_child_nodes(node):
        within = inside or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        unread = typing_only or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test))
        yield child, within, unread
        yield from walk(child, within, unread)


def imports(path: Path) -> list[Import]:
    found = []
    package = [*path.relative_to(TOP).parts[:-1]]
    for node, inside, typing_only in walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from fastgmm import stats` names a module only through its alias
            names = [f"{module}.{a.name}" for a in node.names] if module == "fastgmm" else [module]
        found += [Import(name, node.lineno, inside, typing_only) for name in names if isinstance(node, ast.stmt)]
    return found


def show(path: Path, found: Import, why: str) -> str:
    return f"{path.relative_to(TOP)}:{found.line}: imports {found.name}: {why}"


def targets(found: Import) -> str | None:
    """Return the unit of this package that an import means, if any."""
    first, _, rest = found.name.partition(".")
    if first != "fastgmm":
        return None
    name = rest.split(".")[0]
    return name if (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir() else "__init__"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_of_the_package_go_down(path: Path) -> None:
    me, wrong = unit(path), []
    for found in imports(path):
        other = targets(found)
        if other is None or other == me or found.typing_only:
            continue
        if me == "__init__" and found.inside:
            continue  # the lazy front door loads anything on demand
        if found.name == "fastgmm.__version__":
            continue  # a constant that the package has before any module is imported
        up = layer(other) - layer(me)
        if up < 0 or (up == 0 and (me, other) in SIDEWAYS):
            continue
        if found.inside and (me, other) in UPWARD | SIDEWAYS:
            continue
        wrong.append(show(path, found, "sideways" if up == 0 else "upwards"))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_packages_stay_in_their_place(path: Path) -> None:
    me, wrong = unit(path), []
    for found in imports(path):
        first = found.name.split(".")[0]
        if first in sys.stdlib_module_names or first == "fastgmm" or found.typing_only:
            continue
        if first in JIT:
            if me != "kernels":
                wrong.append(show(path, found, "only kernels/ may use Numba"))
        elif first in OPTIONAL:
            if me == "kernels" or (not found.inside and (me not in EDGES or first == "sklearn")):
                wrong.append(show(path, found, "an optional package: import it inside the function that needs it"))
        elif first not in CORE:
            wrong.append(show(path, found, "no dependency of this package"))
        elif first == "scipy" and me == "kernels":
            wrong.append(show(path, found, "kernels use NumPy and Numba only"))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_one_front_door_to_the_compiler(path: Path) -> None:
    if path.relative_to(PACKAGE).as_posix() in JIT_FILES:
        return
    wrong = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: set[str] = set()
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in JIT:
            names = {a.name for a in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in {"numba", "nb"}:
            names = {node.attr}
        wrong += [f"{path.relative_to(TOP)}:{node.lineno}: {n}" for n in names & JIT_ENTRIES]
    assert not wrong, "compile through fastgmm.kernels._jit: " + "; ".join(wrong)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_is_one_idea_and_says_which(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), f"{path.relative_to(TOP)} does not say what it is for"
    if unit(path) == "kernels" and path.name != "__init__.py":
        bare = [
            n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not ast.get_docstring(n)
        ]
        # a small private helper may speak for itself by its name; what others call may not
        assert not [n for n in bare if not n.startswith("_")], f"{path.relative_to(TOP)}: no docstring: {bare}"


SOURCES = sorted(
    path
    for folder in (PACKAGE, TOP / "tests", TOP / "benchmarks", TOP / "examples")
    for path in folder.rglob("*.py")
    if not any(part.startswith(".") for part in path.relative_to(TOP).parts)  # environments of other libraries
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(TOP)))
def test_files_are_short(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_LINES, f"{path.relative_to(TOP)} has {lines} lines: split it along its ideas"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(TOP)))
def test_every_ignore_and_every_skip_carries_its_reason(path: Path) -> None:
    mark = re.compile(
        r"#\s*(?:noqa(?::\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*)?|type:\s*ignore(?:\[[^]]*\])?|pragma:[\w ]*)(.*)"
    )
    text = path.read_text(encoding="utf-8")
    wrong = []
    for number, line in enumerate(text.splitlines(), 1):
        found = mark.search(line)
        if found and len(re.findall(r"[A-Za-z]{2,}", found[1])) < 2:
            wrong.append(f"{path.relative_to(TOP)}:{number}: {line.strip()}")
    for node in ast.walk(ast.parse(text)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        given = {keyword.arg for keyword in node.keywords}
        needs = {"importorskip": "reason", "skipif": "reason", "xfail": "reason"}.get(node.func.attr)
        if (needs and needs not in given) or (node.func.attr == "skip" and not (node.args or given)):
            wrong.append(f"{path.relative_to(TOP)}:{node.lineno}: {ast.unparse(node)}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_families_are_asked_not_recognised(path: Path) -> None:
    """`if covariance_type == "diag"` is how a fifth family becomes twelve edits; only the registry knows the names.

    Two kinds of scatter happen to be called like a family, hence the registries of kinds beside that of families.
    """
    if path.relative_to(PACKAGE).as_posix() in {"covariance/__init__.py", "stats.py", "passes.py"}:
        return
    if unit(path) == "kernels":
        return
    families, wrong = {"full", "tied", "diag", "spherical"}, []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Compare, ast.match_case)):
            inner = node.pattern if isinstance(node, ast.match_case) else node
            if any(isinstance(n, ast.Constant) and n.value in families for n in ast.walk(inner)):
                wrong.append(f"{path.relative_to(TOP)}:{inner.lineno}: {ast.unparse(inner)}")
    assert not wrong, "\n".join(wrong)


def test_the_oracle_is_independent() -> None:
    """An oracle that shares code with its subject proves nothing."""
    path = TOP / "tests" / "reference.py"
    first = {found.name.split(".")[0] for found in imports(path)}
    assert first - set(sys.stdlib_module_names) <= {"numpy", "scipy", "mpmath"}


def test_import_loads_nothing_heavy() -> None:
    """`import fastgmm` must be cheap: nobody pays for Numba, SciPy or an optional package before using it."""
    heavy = sorted({"numba", "llvmlite", "dask"} | OPTIONAL)
    code = f"import sys, fastgmm; print([m for m in {heavy} if m in sys.modules])"
    env = {**os.environ, "PYTHONPATH": str(TOP)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_every_package_used_is_declared() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = " ".join(requirement for requirements in lists for requirement in requirements)
    used = {found.name.split(".")[0] for path in MODULES for found in imports(path)} & (CORE | JIT | OPTIONAL)
    provided_by_another = {"llvmlite", "mpl_toolkits"}  # Numba and Matplotlib
    undeclared = {u for u in used - provided_by_another if {"sklearn": "scikit-learn"}.get(u, u) not in declared}
    assert not undeclared
