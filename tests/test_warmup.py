"""`fastgmm warmup` leaves nothing to compile for later."""

import json
import re

import pytest

from fastgmm.cli import main
from fastgmm.kernels import each, matrix_units, programs, runner

TYPES = ("float64", "float32")


@pytest.fixture
def used(monkeypatch):
    """Kernels that were asked for, and their element types."""
    found, real = set(), runner.compile_block

    def record(body, dtype):
        found.add((name_of(body), dtype))
        return real(body, dtype)

    for module in (runner, each):
        monkeypatch.setattr(module, "compile_block", record)
    return found


def name_of(body):
    """Its name without the digest that compiling adds."""
    return re.sub("_[0-9a-f]{10}$", "", body.__name__)


def test_every_kernel_is_used(used, capsys):
    assert main(["warmup"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("Kernels ready after")
    rare = {"small", "scatter", "matrix full"}
    passes = {name_of(body) for name, body in programs.BODIES.items() if name not in rare}
    wanted = {(name, dtype) for name in (*passes, "small_block", "triangle_block") for dtype in TYPES}
    wanted |= {(f"{name}_block", "float64") for name in ("scatter", "unpack", "divide", "fold")}
    if matrix_units.available():
        wanted |= {("matrix_full_block", "float32"), ("tiles_block", "float32")}
    assert wanted <= used


def test_json(capsys):
    assert main(["warmup", "--json"]) == 0
    assert json.loads(capsys.readouterr()[0])["seconds"] > 0
