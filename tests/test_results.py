"""Results written as they are computed: the values of the array methods, in bounded memory, in a file that is whole."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastgmm
from fastgmm import GaussianMixture, InvalidParameterError, open_rows
from fastgmm.cli import main
from fastgmm.data import results
from fastgmm.data.formats.parquet import RUN_BYTES
from tests import sources
from tests.test_sources import BLOCK, rows

TOP = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def model():
    return GaussianMixture(3, random_state=0).fit(rows())


def read(path):
    return open_rows(path).to_array()


@pytest.mark.parametrize("suffix", results.WRITERS)
@pytest.mark.parametrize("method", ["predict", "predict_proba", "score_samples"])
def test_the_same_values_as_the_array(tmp_path, monkeypatch, model, method, suffix):
    monkeypatch.setattr(results, "PIECE_BYTES", 8 * 4000)
    x = rows()
    expected = getattr(model, method)(x)
    path = sources.write(tmp_path, "npy", x)
    out = tmp_path / f"out{suffix}"
    for given in (x, np.asfortranarray(x), path, open_rows(path, block_bytes=BLOCK)):
        assert getattr(model, method)(given, out=out) == out
        np.testing.assert_array_equal(read(out), expected.reshape(len(x), -1))
        out.unlink()
    if suffix == ".npy":
        getattr(model, method)(str(path), out=str(out))
        found = np.load(out)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    if suffix == ".parquet":
        getattr(model, method)(path, out=out)
        names = {"predict": ("label",), "predict_proba": ("p0", "p1", "p2"), "score_samples": ("log_density",)}
        assert open_rows(out).names == names[method]


def test_a_row_of_weight_zero_has_a_result(tmp_path, model):
    x = rows()
    source = open_rows(sources.write(tmp_path, "zarr", x, np.arange(len(x)) % 2 + 0.0), weights=3)
    model.predict(source, out=tmp_path / "o.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "o.npy"), model.predict(x))


@pytest.mark.parametrize("suffix", results.WRITERS)
def test_a_failure_leaves_the_old_file(tmp_path, model, suffix):
    out = tmp_path / f"out{suffix}"
    out.write_text("old")
    reader = sources.FaultyReader(np.array_split(rows(), 9), 7)
    source = open_rows(reader, block_bytes=BLOCK)
    part = source._parts[0]
    part.n_rows = len(rows())  # known, so that the failure comes after the first results
    with pytest.raises(RuntimeError, match="on fire"):
        model.predict_proba(source, out=out)
    assert reader.handed_out > 4
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_wrong_targets(tmp_path, model):
    path = sources.write(tmp_path, "npy", rows())
    with pytest.raises(InvalidParameterError, match=r"cannot tell the format of 'x\.xyz'; expected .*\.npy"):
        model.predict(path, out="x.xyz")
    with pytest.raises(InvalidParameterError, match="out must be the path of a file"):
        model.predict(path, out=np.empty(5))
    with pytest.raises(InvalidParameterError, match="out must not be a file that is read"):
        model.predict(path, out=path)
    with pytest.raises(FileNotFoundError):
        model.predict(path, out=tmp_path / "none" / "x.npy")


# -- the shell ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*sources.WRITERS, "folder"])
def test_the_shell_reads_every_format(tmp_path, monkeypatch, capsys, kind):
    monkeypatch.chdir(tmp_path)
    x = rows()
    if kind == "folder":
        Path("data").mkdir()
        for i, part in enumerate(np.array_split(x, 3)):
            sources._parquet(1000)(Path("data", f"{i}.parquet"), part, None)
        path = Path("data")
    else:
        path = sources.write(tmp_path, kind, x)
    found = {}
    for how in ("--stream", "--no-stream"):
        assert main(["fit", str(path), "-k", "3", "--out", "m.npz", how]) == 0
        assert main(["predict", "m.npz", str(path), "--out", "labels.npy", "--proba", how]) == 0
        assert main(["score", "m.npz", str(path), "--out", "density.npy", "--json", how]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        fitted = fastgmm.load("m.npz")
        found[how] = [fitted.means_.tobytes(), Path("labels.npy").read_bytes(), Path("density.npy").read_bytes()]
        assert '"n_rows": 9000' in out.splitlines()[-1]
        assert fitted.means_.tobytes() == GaussianMixture(3, random_state=0).fit(x).means_.tobytes()
    assert found["--stream"] == found["--no-stream"]


def test_the_shell_streams_what_is_too_large_and_says_so(tmp_path, monkeypatch, capsys):
    from fastgmm.cli import inputs

    monkeypatch.chdir(tmp_path)
    sources.write(tmp_path, "parquet-777", rows(), np.ones(9000))
    monkeypatch.setattr(inputs, "available_memory", lambda: 10 * 9000 * 4 * 8)
    assert main(["fit", "p777.parquet", "-k", "2", "--weights", "w"]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(inputs, "available_memory", lambda: 9000 * 4 * 8)
    assert main(["fit", "p777.parquet", "-k", "2", "--weights", "w"]) == 0
    assert "more than 25% of the" in capsys.readouterr().err
    assert inputs.available_memory() > 0


# -- memory ------------------------------------------------------------------------------------------------------------

MEMORY = """
import sys
sys.path.insert(0, {top!r})
import resource, warnings
import fastgmm
from benchmarks.memory import _status, peak_resident, reset_peak, resident
warnings.simplefilter("ignore")
def work(what):
    rows = fastgmm.open_rows(what, block_bytes=1 << 20)
    model = fastgmm.GaussianMixture(4, random_state=0, tol=0.0, max_iter=1).fit(rows)
    model.predict_proba(rows, out=what + ".out.npy")
    return rows
for small in {small}:
    work(small)
resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + {space}, resource.RLIM_INFINITY))
for large in {large}:
    before = resident()
    reset_peak()
    print(work(large).n_rows, peak_resident() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of a process is read from /proc")
def test_memory_does_not_grow_with_the_rows(tmp_path, monkeypatch):
    """Data of 96 MB where the address space may grow by 80: (2 + 1) blocks of 1 MiB, the decoder, the results.

    Parquet in row groups of a million rows, read in step, and in groups that are decoded whole, `RUN_BYTES` (16 MiB) at
    a time, for which there is room beside the 64 that do for the others.

    pyarrow's allocator takes memory in segments of 32 MiB, so one more of these may come at any moment, whatever is
    read.
    """
    monkeypatch.setattr(sources, "NAMES", tuple("abcdef"))
    large, small = tmp_path / "large", tmp_path / "small"
    large.mkdir()
    small.mkdir()
    x = np.random.default_rng(0).normal(size=(2_000_000, 6))
    monkeypatch.setitem(sources.WRITERS, "parquet-runs", ("runs.parquet", sources._parquet(150_000)))
    kinds = ("npy", "parquet-one", "parquet-runs", "feather", "hdf5-plain")
    paths = [[str(sources.write(f, kind, part)) for kind in kinds] for f, part in ((small, x[:100_000]), (large, x))]
    code = MEMORY.format(top=str(TOP), small=paths[0], large=paths[1], space=(64 << 20) + RUN_BYTES)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert [n for n, _ in found] == [2_000_000] * len(kinds)
    assert max(grown for _, grown in found) < 48 << 20
