"""Files of every released format load with the numbers they were written with; damaged ones end in `ModelFileError`.

The golden files are made by ``tests/golden/models/make.py`` once for each format version and never again.
"""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import fastgmm
from fastgmm.archive import read_archive
from fastgmm.errors import FastgmmWarning, ModelFileError
from fastgmm.persist import FORMAT_VERSION, read_header
from tests.golden.models import make
from tests.tools import mutations

FOLDER = Path(make.__file__).parent
FILES = sorted(FOLDER.glob("*/*.npz"))
SMALL = FOLDER / "1" / "mixture-diag.npz"


def test_every_format_version_has_its_files():
    assert {file.parent.name for file in FILES} == {str(n + 1) for n in range(FORMAT_VERSION)}
    assert len(FILES) >= 12 * FORMAT_VERSION
    for file in FILES:
        assert read_header(file)["format_version"] == int(file.parent.name)


@pytest.mark.parametrize("file", FILES, ids=lambda f: f"{f.parent.name}-{f.stem}")
def test_golden_file_loads_with_exact_values(file):
    expected = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    model = fastgmm.load(file)
    found = make.contents(model)
    assert {key: found[key] for key in expected} == expected
    mixture = getattr(model, "mixture_", model)
    assert np.isfinite(mixture.logpdf(mixture.means)).all()
    if type(model).__name__ == "GaussianMixture" and expected["status"] is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FastgmmWarning)  # the degenerate one
            model.fit(np.random.default_rng(0).normal(size=(60, model.n_features_in_)))  # its settings still work


def test_mutations(tmp_path):
    """The short version of ``python -m tests.tools.mutations``."""
    ended = mutations.run(1500, 1, tmp_path)
    assert sum(ended.values()) == 1500
    assert {how for _, how in ended if how.startswith("DEFECT")} == set()
    for mutate in mutations.MUTATIONS:
        assert ended[mutate.__name__, "refused"] > 30


def test_truncation_at_every_length(tmp_path):
    content, good = SMALL.read_bytes(), mutations.numbers(fastgmm.load(SMALL))
    ended = {mutations.outcome(tmp_path / "short.npz", content[:length], good) for length in range(len(content))}
    assert ended == {"refused"}


def test_a_bit_in_every_byte(tmp_path):
    content, good = SMALL.read_bytes(), mutations.numbers(fastgmm.load(SMALL))
    ended = set()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << (position % 8)
        ended.add(mutations.outcome(tmp_path / "flipped.npz", bytes(changed), good))
    assert ended == {"refused", "unharmed"}


@pytest.mark.parametrize("only_header", [False, True])
def test_sizes_that_are_lies_allocate_nothing(tmp_path, only_header):
    """Also where the system would grant it: the address space leaves room for less than the directory claims."""
    content = bytearray(SMALL.read_bytes())
    entry = content.index(b"PK\x01\x02")
    for offset in (20, 24):  # compressed and uncompressed size of the first member
        content[entry + offset : entry + offset + 4] = (0x7FFFFFFF).to_bytes(4, "little")
    (tmp_path / "lie.npz").write_bytes(content)
    code = (
        "import resource, sys; from fastgmm.archive import read_archive; from fastgmm.errors import ModelFileError\n"
        "import numpy, zipfile, json\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 50_000_000,) * 2)\n"
        f"try: read_archive({str(tmp_path / 'lie.npz')!r}, only_header={only_header})\n"
        "except ModelFileError as error: print('refused')"
    )
    if sys.platform != "linux":
        with pytest.raises(ModelFileError):
            read_archive(tmp_path / "lie.npz", only_header=only_header)
        return
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "refused", done.stderr


def test_loading_runs_no_code():
    """Whatever could run code from a file ends the process; the model comes back."""
    code = (
        "import builtins, pickle, fastgmm\n"
        f"fastgmm.load({str(FOLDER / '1' / 'given.npz')!r}).weights_.shape  # what is imported on first use\n"
        "def stop(*a, **k): raise SystemExit('code of the file was run')\n"
        "for name in ('load', 'loads', 'Unpickler', '_Unpickler', '_loads', '_load'): setattr(pickle, name, stop)\n"
        "builtins.eval = builtins.exec = builtins.compile = stop\n"
        f"print(fastgmm.load({str(SMALL)!r}).weights.shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "(3,)", done.stderr
