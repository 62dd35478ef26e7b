"""What a mutant is: one operator, comparison, constant or name of a module changed; and how it takes effect.

A mutant is not imported in place of its module: the code of the module's functions is replaced where it lies, with the
defaults and the plain constants beside it. So tests that were collected before see it at once.
"""

import ast
import copy
import functools
import inspect
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

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
UNSEEN = {"annotation", "returns", "decorator_list", "type_comment", "type_params"}
"""Fields of nodes that no run looks at."""


class Mutant(NamedTuple):
    """One change of one file.

    Attributes
    ----------
    path : Path
    line : int
    what : str
        For the reader: the code before and after.
    tree : ast.Module
        The whole module, changed.
    lines : range
        Those of which a test has to run one, or it cannot notice; empty if every test of the file may.
    """

    path: Path
    line: int
    what: str
    tree: ast.Module
    lines: range


def skipped(node: ast.AST) -> bool:
    """Whether a node is a type, a message, or the list of a module's names, which no result depends on."""
    if isinstance(node, ast.JoinedStr):
        return True
    if isinstance(node, ast.ClassDef):
        return any(ast.unparse(base) == "Protocol" for base in node.bases)
    if isinstance(node, ast.AnnAssign):
        return ast.unparse(node.annotation) == "TypeAlias"
    if isinstance(node, ast.Assign):
        return any(isinstance(t, ast.Name) and t.id in ("__all__", "__slots__", "msg") for t in node.targets)
    return False


def sites(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes that may be changed, in order of the source."""
    for name, child in ast.iter_fields(node):
        if name in UNSEEN:
            continue
        children = child if isinstance(child, list) else [child]
        if isinstance(node, ast.Call) and name == "args" and ast.unparse(node.func) == "cast":
            children = children[1:]
        for item in children:
            if isinstance(item, ast.AST) and not skipped(item):
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
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "op", node.op, ast.UAdd()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "operand", node.operand, ast.UnaryOp(ast.Not(), node.operand)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "value", node.value, not node.value
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield "value", node.value, node.value + 1
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
        yield "value", node.value, node.value + "_"


def statements(tree: ast.Module) -> dict[int, range]:
    """For each node's `id`, the lines that a test has to run one of to notice a change of it."""
    found: dict[int, range] = {}

    def walk(node: ast.AST, lines: range, *, inside: bool) -> None:
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = body[0].lineno - 1 if body else node.end_lineno
            lines = range(node.lineno, max(last or 0, node.lineno) + 1) if inside else range(0)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):  # its defaults matter to whoever calls it
            lines = range(node.body[0].lineno, (node.end_lineno or 0) + 1)
            inside = True
        found[id(node)] = lines
        for child in ast.iter_child_nodes(node):
            walk(child, lines, inside=inside)

    walk(tree, range(0), inside=False)
    return found


def mutants(path: Path) -> Iterator[Mutant]:
    """All mutants of a file."""
    source = ast.parse(path.read_text(encoding="utf-8"))
    lines = statements(source)
    for index, node in enumerate(sites(source)):
        for number, _ in enumerate(changes(node)):
            tree = copy.deepcopy(source)
            place = list(sites(tree))[index]
            field, _, after = list(changes(place))[number]
            setattr(place, field, after)
            ast.fix_missing_locations(tree)
            was, now = ast.unparse(node), ast.unparse(place)
            yield Mutant(path, getattr(node, "lineno", 0), f"{was[:60]}  ->  {now[:60]}", tree, lines[id(node)])


def functions(value: Any, name: str, module: str) -> Iterator[tuple[str, types.FunctionType]]:
    """Functions that a module's or a class's entry consists of, each with a name that its twin has, too."""
    if isinstance(value, types.FunctionType):
        wrapped = inspect.unwrap(value)
        if wrapped.__module__ == module:
            yield name, wrapped
    elif isinstance(value, (staticmethod, classmethod)):
        yield from functions(value.__func__, name, module)
    elif isinstance(value, property):
        for part in (value.fget, value.fset):
            yield from functions(part, f"{name}.{getattr(part, '__name__', '')}", module)
    elif isinstance(value, functools.cached_property):
        yield from functions(value.func, name, module)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from functions(item, f"{name}[{key!r}]", module)
    elif inspect.isclass(value) and value.__module__ == module:
        for key, item in list(vars(value).items()):
            yield from functions(item, f"{name}.{key}", module)


def plain(name: str, value: Any) -> bool:
    """Whether an entry of a module or a class is a constant."""
    return isinstance(value, (int, float, str, tuple, frozenset)) and not name.startswith("__")


def summary(table: dict[Any, Any]) -> list[tuple[Any, Any]]:
    """Return what of a table can be compared: its keys, and the values that are constants."""
    return [(key, value if plain("", value) else None) for key, value in table.items()]


def take_effect(mutant: Mutant, name: str) -> None:
    """Change the loaded module `name` into the mutant, for the rest of this process.

    Raises whatever the mutant raises on import.
    """
    module = sys.modules[name]
    twin = types.ModuleType(name)
    twin.__dict__.update(__file__=module.__file__, __package__=module.__package__, __spec__=module.__spec__)
    sys.modules[name] = twin  # dataclasses look their module up
    try:
        exec(compile(mutant.tree, str(mutant.path), "exec"), twin.__dict__)
    finally:
        sys.modules[name] = module
    old = {key: f for entry, value in vars(module).items() for key, f in functions(value, entry, name)}
    new = {key: f for entry, value in vars(twin).items() for key, f in functions(value, entry, name)}
    for key, function in old.items():
        if key in new:
            other = new[key]
            function.__code__, function.__defaults__ = other.__code__, other.__defaults__
            function.__kwdefaults__ = other.__kwdefaults__
    for key, value in vars(twin).items():
        before = vars(module).get(key)
        if inspect.isclass(value) and value.__module__ == name:
            for entry, attribute in vars(value).items():
                if plain(entry, attribute) and vars(before).get(entry) != attribute:
                    setattr(before, entry, attribute)
        if isinstance(value, dict) and not key.startswith("__") and summary(value) != summary(before):
            before.clear()
            before.update(value)
        if plain(key, value) and before != value:
            for holder in list(sys.modules.values()):
                if vars(holder).get(key) is before:
                    setattr(holder, key, value)
