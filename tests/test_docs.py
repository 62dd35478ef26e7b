"""The documentation's examples run, its links lead somewhere, and its figures are the code's."""

import doctest
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastgmm import GaussianMixture, Mixture, covariance, passes
from fastgmm.data import as_rows
from fastgmm.kernels import arguments, fold, programs, schedule
from fastgmm.kernels.matrix_full import extra_bytes
from fastgmm.kernels.workspace import workspace_bytes
from tests.test_many_components import overlapping, program_of

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
        if "://" not in target and not target.startswith("_build/"):  # there once a command has made it
            assert (page.parent / target).exists(), target


def test_stated_constants():
    numerics, memory = ((TOP / "docs" / name).read_text() for name in ("numerics.md", "memory.md"))
    assert {f"e^{cut:.0f}" in numerics for cut in programs.CUT.values()} == {True}
    assert passes.CANCELLATION == {"float64": 1e5, "float32": 1e3}
    assert "above a ratio of 1e5 (float32: 1e3)" in numerics.lower()
    assert passes.SEPARATION == {"float64": 1e8, "float32": 3e3}
    assert "1e8 standard\ndeviations in float64, 3e3 in float32" in numerics
    assert f"at most {schedule.SLOT_BYTES >> 20} MB" in memory
    assert f"log{fold.RADIX}" in memory
    assert f"{arguments.TILE} rows" in memory
    assert sorted(covariance.FAMILIES) == ["diag", "full", "spherical", "tied"]


@pytest.mark.parametrize(("k", "d"), [(8, 16), (100, 64), (64, 128), (1000, 8)])
def test_stated_workspace(k, d):
    """`about 8 * 192 * (3 D + K + 32)` bytes."""
    stated = 8 * arguments.TILE * (3 * d + k + 32)
    assert workspace_bytes(k, d, d, 8, 0) == pytest.approx(stated, rel=0.25)


@pytest.mark.parametrize("d", [49, 64, 65, 784])
def test_stated_workspace_of_matrix_units(d):
    """85 KiB, 36 KiB for every 32 features begun, and the lower triangles of K components in float32, as tiles."""
    whole, k = -(-d // 16) * 16, 10
    sums = extra_bytes(k, d) - extra_bytes(0, d)
    assert extra_bytes(0, d) == (85 + 36 * -(-d // 32)) << 10
    assert sums == 2 * k * whole * (whole + 16)
    stated = (
        "85 KiB, 36 KiB for every 32 features begun, and the sums of tiles in float32: 2 K D (D + 16), "
        "D rounded up to a multiple of 16"
    )
    assert stated in (TOP / "docs" / "memory.md").read_text()


@pytest.mark.parametrize("d", [5, 8, 12, 16, 24, 32, 40, 48, 49, 56])
@pytest.mark.parametrize("k", [programs.WHOLE_TILE_COMPONENTS - 1, programs.WHOLE_TILE_COMPONENTS])
def test_stated_workspace_of_products_of_whole_tiles(k, d):
    """`at most 8 * 192 * (3 D / 2 + 20)` bytes, and none for other shapes."""
    program = program_of(overlapping(k, d), np.float64)
    extra = program.numbers.get(arguments.EXTRA, 0)
    stated = 8 * arguments.TILE * (1.5 * d + 20) if d in range(8, 49, 8) and k >= 64 else 0
    assert 0.7 * stated <= extra <= stated
    page = (TOP / "docs" / "memory.md").read_text()
    assert "the same with D = 8, 16, ..., 48 and 64 components or more near one another" in page
    assert f"at most 8 * {arguments.TILE} * (3 D / 2 + 20) more" in page


@pytest.mark.skipif(importlib.util.find_spec("PIL") is None, reason="the photographs need pillow")
def test_image_patches(tmp_path):
    command = [sys.executable, str(TOP / "examples" / "image_patches.py"), "--rows=3000", "--components=3"]
    out, plot = tmp_path / "model.npz", tmp_path / "patches.png"
    env = {**os.environ, "PYTHONPATH": str(TOP)}
    done = subprocess.run(
        [*command, "--iterations=2", f"--out={out}", f"--plot={plot}"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    assert "3000 patches of 64 pixels, 3 components" in done.stdout
    assert out.exists()
    assert plot.exists()


@pytest.mark.parametrize(("dtype", "end"), [("float64", 700.0), ("float32", 80.0)])
def test_stated_cut(dtype, end):
    """What numerics.md says is dropped is dropped, and what it says stays stays: log r_1 = x - 1/2 for r_0 near 1."""
    mixture = Mixture([0.5, 0.5], [[0.0], [1.0]], [1.0, 1.0], "spherical")

    def smaller(x, kept):
        row = np.array([[x + 0.5]], dtype)
        if kept == "fit":
            return passes.accumulate(as_rows(row), mixture.density, "trace").weight[1]
        return mixture.responsibilities(row)[0, 1]

    limit = np.log(0.5) + programs.CUT[np.dtype(dtype).itemsize]
    assert smaller(limit + 0.1, "fit") == pytest.approx(np.exp(limit + 0.1), rel=1e-4)
    assert smaller(limit - 0.1, "fit") == 0.0
    assert smaller(0.1 - end, "proba") == pytest.approx(np.exp(0.1 - end), rel=1e-3)
    assert smaller(-0.1 - end, "proba") == 0.0


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_stated_effect_of_the_cut(covariance_type, dtype):
    """With c the cut, N_k moves by at most e^c of it, the scatter by e^c d^2, a log-density by e^c nats."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(m, 1.0, (200, 2)) for m in (0.0, 6.0, 14.0)])
    fit = GaussianMixture(3, covariance_type=covariance_type, random_state=0).fit(x)
    mixture, bound = fit.mixture_, np.exp(programs.CUT[np.dtype(dtype).itemsize])
    r = mixture.responsibilities(x)  # cut at e^-700 only
    dropped = np.where(r < bound * mixture.weights, r, 0.0)
    assert dropped.any()
    u = x[:, None] - mixture.means
    distance = np.einsum("nki,kij,nkj->nk", u, np.linalg.inv(mixture.covariances_dense), u)  # squared
    assert (dropped.sum(axis=0) <= bound * mixture.weights * len(x)).all()
    assert ((dropped * distance).sum(axis=0) <= bound * mixture.weights * len(x) * distance.max()).all()
    assert dropped.sum(axis=1).max() <= bound
    stats = passes.accumulate(as_rows(x), mixture.density, covariance.FAMILIES[covariance_type].scatter)
    if dtype == "float64":
        np.testing.assert_allclose(stats.weight, r.sum(axis=0), rtol=1e-14)
    else:
        single = passes.accumulate(
            as_rows(x.astype(dtype)), mixture.density, covariance.FAMILIES[covariance_type].scatter
        )
        np.testing.assert_allclose(single.weight, r.sum(axis=0), rtol=1e-6)
