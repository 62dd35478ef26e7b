"""What a checkpoint holds: damaged, foreign or half-known ones are refused in words; settings are told apart."""

import json
import os

import numpy as np
import pytest

from fastgmm import GaussianMixture
from fastgmm.archive import Archive
from fastgmm.checkpoint import snapshot as snapshots
from fastgmm.checkpoint.generator import pack_generator, unpack_generator
from fastgmm.checkpoint.store import Store
from fastgmm.errors import CheckpointError, FastgmmWarning, InvalidParameterError
from fastgmm.estimators import _journal
from tests.test_checkpoint import X, fit


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Header and arrays of a real checkpoint, of the second of two starts."""
    path = tmp_path_factory.mktemp("fit")
    fit(checkpoint=path, n_init=2)
    archive = Store(path).read()
    return archive.header, archive.arrays


def test_a_snapshot_comes_back_whole(written):
    header, arrays = written
    snapshot = snapshots.unpack(Archive(*written))
    again_header, again_arrays = snapshots.pack(snapshot)
    assert json.loads(json.dumps(again_header)) == header
    assert {name: array.tobytes() for name, array in again_arrays.items()} == {
        name: array.tobytes() for name, array in arrays.items()
    }
    result = snapshot.best.result()
    assert (result.status, result.log_map) == (snapshot.best.status, snapshot.best.log_map)
    assert result.log_likelihood == snapshot.best.state.log_likelihood
    assert result.params is snapshot.best.state.params


def test_other_files_and_later_releases_are_refused(written):
    header, arrays = written
    with pytest.raises(CheckpointError, match=r"no checkpoint: its format is 'fastgmm model', expected 'fastgmm check"):
        snapshots.unpack(Archive({**header, "format": "fastgmm model"}, arrays))
    with pytest.raises(CheckpointError, match=r"format_version 99, and this release .* reads 1; resume with"):
        snapshots.unpack(Archive({**header, "format_version": 99}, arrays))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda file: file.header.pop("starts"), "KeyError 'starts'"),
        (lambda file: file.header["starts"].pop(), "ValueError"),
        (lambda file: file.header.update(tol="much"), "ValueError"),
        (lambda file: file.header["best"].update(status="ASLEEP"), "KeyError 'ASLEEP'"),
        (lambda file: file.header.update(settings=3), "TypeError"),
        (lambda file: file.arrays.pop("best.means"), "KeyError 'best.means'"),
        (lambda file: file.arrays.update(history_ends=np.empty(0, np.int64)), "ValueError"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(written, change, word):
    header, arrays = {**written[0]}, {**written[1]}
    header["starts"], header["best"] = list(header["starts"]), {**header["best"]}
    file = Archive(header, arrays)
    change(file)
    with pytest.raises(CheckpointError, match=f"the checkpoint is not complete: {word}"):
        snapshots.unpack(file)


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_file_is_no_directory(tmp_path):
    path = tmp_path / "fit"
    path.write_text("mine")
    with pytest.raises(InvalidParameterError, match=r"checkpoint must be the path of a directory; .*fit is a file"):
        Store(path)
    assert path.read_text() == "mine"


def test_left_over_files_go_and_foreign_ones_stay(tmp_path):
    (tmp_path / ".fastgmm-0123456789abcdef.tmp").write_text("half")
    (tmp_path / "notes.txt").write_text("mine")
    store = Store(tmp_path)
    for _ in range(3):
        store.write({"n": 1}, {"x": np.arange(3.0)})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fit-00000002.npz", "fit-00000003.npz", "notes.txt"]
    assert store.numbers() == [3, 2]


@pytest.mark.parametrize("length", [0, 5, 31])
def test_a_file_shorter_than_its_check_sum_is_damaged(tmp_path, length):
    """The one before it is used, with a warning; without one, an error says what to do."""
    store = Store(tmp_path)
    store.write({"n": 1}, {"x": np.arange(3.0)})
    store.write({"n": 2}, {"x": np.arange(3.0)})
    os.truncate(tmp_path / "fit-00000002.npz", length)
    with pytest.warns(
        FastgmmWarning, match=r"newest checkpoint cannot be read, and the one before is used: .*00000002"
    ):
        assert store.read().header["n"] == 1
    os.truncate(tmp_path / "fit-00000001.npz", length)
    with pytest.raises(
        CheckpointError, match=r"none of the checkpoints in .* can be read: .*; .* remove the directory"
    ):
        store.read()


# -- random numbers ----------------------------------------------------------------------------------------------------


class Foreign(np.random.PCG64):
    """A bit generator that no release of NumPy can make again."""


def test_foreign_bit_generators_are_refused_before_the_fit(tmp_path):
    rng = np.random.Generator(Foreign(3))
    with pytest.raises(InvalidParameterError, match=r"needs one of NumPy's bit generators \(PCG64, .*; got Foreign"):
        pack_generator(rng)
    with pytest.raises(InvalidParameterError, match="got Foreign"):
        fit(checkpoint=tmp_path / "fit", random_state=rng)
    assert not (tmp_path / "fit").exists()


def test_a_state_of_no_generator_is_an_error():
    packed = pack_generator(np.random.default_rng(0))
    with pytest.raises(KeyError, match="Dice"):
        unpack_generator({**packed, "bit_generator": "Dice"})
    with pytest.raises((KeyError, TypeError, ValueError)):
        unpack_generator({**packed, "state": 5})


# -- settings ----------------------------------------------------------------------------------------------------------


class Odd:
    """No array, no number."""

    def __array__(self, dtype=None, copy=None):
        msg = "no"
        raise ValueError(msg)

    def __repr__(self):
        return "Odd()"


@pytest.mark.parametrize(
    ("value", "described"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.bool_(False), False),
        (float("inf"), "inf"),
        ("kmeans", "kmeans"),
        (np.random.RandomState(0), "a RandomState"),
        (np.random.default_rng(0), "a Generator"),
        (np.random.SeedSequence(1), "a SeedSequence"),
        (fit, "function tests.test_checkpoint.fit"),
        (Odd(), "Odd()"),
        (["a", "b"], "['a', 'b']"),
    ],
)
def test_settings_are_described_so_that_json_holds_them(value, described):
    assert _journal._described(value) == described


def test_arrays_are_told_apart_by_their_numbers_alone():
    described = _journal._described(np.arange(6.0).reshape(2, 3))
    assert described.startswith("array of shape (2, 3), ")
    assert _journal._described([[0, 1, 2], [3, 4, 5]]) == described
    assert _journal._described(np.arange(6.0).reshape(3, 2)) != described
    assert _journal._described(np.arange(1.0, 7.0).reshape(2, 3)) != described


def test_a_callable_start_is_a_setting_by_its_name(tmp_path):
    def one(X, n_components, rng):
        return rng.integers(n_components, size=len(X))

    def other(X, n_components, rng):
        return rng.integers(n_components, size=len(X))

    fit(checkpoint=tmp_path, init_params=one)
    with pytest.raises(CheckpointError, match=r"init_params .*<locals>\.one"):
        fit(checkpoint=tmp_path, resume=True, init_params=other)


def test_settings_without_a_meaning_here_do_not_count(tmp_path):
    """`verbose` and the like decide nothing, so a fit with others is the same fit."""
    first = fit(checkpoint=tmp_path, max_iter=3)
    with pytest.raises(CheckpointError):
        fit(checkpoint=tmp_path, resume=True, max_iter=3, reg_covar=1e-3)
    again = fit(checkpoint=tmp_path, resume=True, max_iter=3, verbose=0)
    np.testing.assert_array_equal(again.means_, first.means_)
    assert isinstance(again, GaussianMixture)
    assert len(X) == again.result_.total_weight
