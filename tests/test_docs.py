"""The documentation's examples run, its links lead somewhere, and its figures are the code's."""

import doctest
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastgmm import covariance, passes
from fastgmm.kernels import arguments, fold, programs, runner
from fastgmm.kernels.workspace import workspace_bytes

TOP = Path(__file__).parents[1]
PAGES = sorted([*TOP.glob("*.md"), *(TOP / "docs").glob("*.md")])


def test_there_are_pages():
    assert {"README.md", "CONTRIBUTING.md", "numerics.md", "memory.md", "shell.md"} <= {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples(page):
    failed, _ = doctest.testfile(str(page), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def test_the_readme_has_examples():
    assert doctest.DocTestParser().get_examples((TOP / "README.md").read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_stated_constants():
    numerics, memory = ((TOP / "docs" / name).read_text() for name in ("numerics.md", "memory.md"))
    assert f"e^{programs.CUT:.0f}" in numerics
    assert passes.CANCELLATION == {"float64": 1e5, "float32": 1e3}
    assert "above a ratio of 1e5 (float32: 1e3)" in numerics.lower()
    assert passes.SEPARATION == {"float64": 1e8, "float32": 3e3}
    assert "1e8 standard\ndeviations in float64, 3e3 in float32" in numerics
    assert f"at most {runner.SLOT_BYTES >> 20} MB" in memory
    assert f"log{fold.RADIX}" in memory
    assert f"{arguments.TILE} rows" in memory
    assert sorted(covariance.FAMILIES) == ["diag", "full", "spherical", "tied"]


@pytest.mark.parametrize(("k", "d"), [(8, 16), (100, 64), (64, 128), (1000, 8)])
def test_stated_workspace(k, d):
    """`about 8 * 192 * (3 D + K + 16)` bytes."""
    stated = 8 * arguments.TILE * (3 * d + k + 16)
    assert workspace_bytes(k, d, d, 8, 0) == pytest.approx(stated, rel=0.25)


@pytest.mark.skipif(importlib.util.find_spec("PIL") is None, reason="the photographs need pillow")
def test_image_patches(tmp_path):
    command = [sys.executable, str(TOP / "examples" / "image_patches.py"), "--rows=3000", "--components=3"]
    out = tmp_path / "model.npz"
    env = {**os.environ, "PYTHONPATH": str(TOP)}
    done = subprocess.run(
        [*command, "--iterations=2", f"--out={out}"], capture_output=True, text=True, timeout=300, check=False, env=env
    )
    assert done.returncode == 0, done.stderr
    assert "3000 patches of 64 pixels, 3 components" in done.stdout
    assert out.exists()
