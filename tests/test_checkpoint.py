"""Stop and resume: the same bits as never stopped, whatever stopped the fit, and a clear refusal of anything else."""

import errno
import re
import shutil
import warnings

import numpy as np
import pytest

from fastgmm import Checkpoint, CheckpointError, GaussianMixture
from fastgmm.checkpoint import store
from fastgmm.checkpoint.generator import pack_generator, unpack_generator
from fastgmm.em import FitStatus
from fastgmm.errors import FastgmmWarning, InvalidParameterError
from tests import reference
from tests.tools import checkpoint_mutations, kills

types = pytest.mark.parametrize("covariance_type", reference.TYPES)
RNG = np.random.default_rng(0)
X = np.concatenate([RNG.normal(m, 1.5, (150, 2)) for m in (0.0, 3.0, 6.0)])
W = RNG.uniform(0.5, 2.0, len(X))
OPTIONS = {"random_state": 3, "tol": 0.0, "max_iter": 12}


class Stopped(Exception):
    pass


def interrupt(after, error=Stopped):
    """A callback that raises in its call number `after`."""
    calls = []

    def callback(info):
        calls.append(info)
        if len(calls) == after:
            raise error

    return callback


def fit(*args, data=X, **options):
    """Fit, quiet about what is no matter here."""
    given = {name: options.pop(name) for name in ("checkpoint", "resume", "callback", "max_time") if name in options}
    weight = options.pop("sample_weight", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return GaussianMixture(*(args or (3,)), **(OPTIONS | options)).fit(data, sample_weight=weight, **given)


def with_stops(path, every, **options):
    """Fit, interrupted after every few iterations; return the model and the number of interruptions."""
    stops = 0
    while True:
        try:
            return fit(checkpoint=path, resume=True, callback=interrupt(every), **options), stops
        except Stopped:
            stops += 1


@types
@pytest.mark.parametrize("n_init", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_resumed_is_never_stopped(tmp_path, covariance_type, n_init, weighted):
    options = {"covariance_type": covariance_type, "n_init": n_init, "sample_weight": W if weighted else None}
    expected = kills.bits(fit(**options))
    model, stops = with_stops(tmp_path / "fit", 5, **options)
    assert stops > n_init
    assert kills.bits(model) == expected
    assert len(model.starts_) == n_init


@pytest.mark.parametrize("init_params", ["k-means++", "random", "random_from_data"])
@pytest.mark.parametrize("random_state", [None, 5])
def test_the_random_numbers_go_on(tmp_path, init_params, random_state):
    """Starts two and three are drawn after the interruption, with the numbers they would have had."""

    def seed():
        return np.random.Generator(np.random.MT19937(4)) if random_state is None else random_state

    options = {"init_params": init_params, "n_init": 3}
    expected = kills.bits(fit(**options, random_state=seed()))
    given = seed()
    with pytest.raises(Stopped):
        fit(**options, random_state=given, checkpoint=tmp_path, callback=interrupt(15))
    # A generator has moved on; the checkpoint knows where it was.
    assert kills.bits(fit(**options, random_state=given, checkpoint=tmp_path, resume=True)) == expected


@pytest.mark.parametrize(
    "kind", [np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64]
)
def test_generators_come_back(kind):
    rng = np.random.Generator(kind(7))
    rng.integers(10, size=3, dtype=np.uint32)
    copy = unpack_generator(pack_generator(rng))
    np.testing.assert_array_equal(copy.integers(1 << 62, size=100), rng.integers(1 << 62, size=100))


@pytest.mark.parametrize("degenerate", ["floor", "reseed", "drop"])
def test_policies_are_resumed(tmp_path, degenerate):
    data = np.concatenate([X, np.full((30, 2), 12.0)])
    options = {"reg_covar": 0.0, "degenerate": degenerate, "max_iter": 25, "data": data}
    expected = fit(5, **options)
    assert expected.result_.events
    stops = 0
    while True:
        try:
            model = fit(5, checkpoint=tmp_path, resume=True, callback=interrupt(4), **options)
            break
        except Stopped:
            stops += 1
    assert stops >= 5
    assert kills.bits(model) == kills.bits(expected)
    assert model.result_.dropped == expected.result_.dropped
    assert model.result_.reseeded == expected.result_.reseeded


def test_streams_and_files_are_resumed(tmp_path):
    np.save(tmp_path / "x.npy", X)
    expected = kills.bits(fit())
    with pytest.raises(Stopped):
        fit(data=str(tmp_path / "x.npy"), checkpoint=tmp_path / "fit", callback=interrupt(4))
    assert kills.bits(fit(data=str(tmp_path / "x.npy"), checkpoint=tmp_path / "fit", resume=True)) == expected
    # An array with the same rows is the same data.
    assert kills.bits(fit(checkpoint=tmp_path / "fit", resume=True)) == expected


# -- what a finished or stopped fit does -------------------------------------------------------------------------------


def test_a_finished_fit_comes_back_without_work(tmp_path):
    first = fit(checkpoint=tmp_path, tol=1e-3, max_iter=100)
    assert first.converged_
    before = sorted(path.name for path in tmp_path.iterdir())
    again = fit(checkpoint=tmp_path, resume=True, tol=1e-3, max_iter=100, callback=interrupt(1))  # never called
    assert kills.bits(again) == kills.bits(first)
    assert again.result_.status is FitStatus.CONVERGED
    assert again.result_.log_map == first.result_.log_map
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@types
def test_more_iterations_or_a_smaller_tolerance_go_on(tmp_path, covariance_type):
    options = {"covariance_type": covariance_type}
    fit(checkpoint=tmp_path, max_iter=3, **options)
    longer = fit(checkpoint=tmp_path, resume=True, max_iter=200, tol=1e-4, **options)
    assert longer.converged_
    assert kills.bits(longer) == kills.bits(fit(max_iter=200, tol=1e-4, **options))
    finer = fit(checkpoint=tmp_path, resume=True, max_iter=200, tol=1e-6, **options)
    assert finer.n_iter_ > longer.n_iter_
    assert kills.bits(finer) == kills.bits(fit(max_iter=200, tol=1e-6, **options))


def test_more_starts_go_on(tmp_path):
    fit(checkpoint=tmp_path, n_init=1, init_params="random")
    assert kills.bits(fit(checkpoint=tmp_path, resume=True, n_init=4, init_params="random")) == kills.bits(
        fit(n_init=4, init_params="random")
    )


def test_of_several_starts_the_best_goes_on(tmp_path):
    short = fit(checkpoint=tmp_path, n_init=3, init_params="random", max_iter=4)
    longer = fit(checkpoint=tmp_path, resume=True, n_init=3, init_params="random", max_iter=9)
    assert [start.n_iter for start in longer.starts_].count(9) == 1
    assert longer.lower_bound_ > short.lower_bound_
    assert longer.lower_bounds_[:3] == short.lower_bounds_[:3]


def test_a_fit_stopped_by_its_callback_or_by_time_goes_on(tmp_path):
    expected = kills.bits(fit(n_init=2))
    stopped = fit(n_init=2, checkpoint=tmp_path, callback=lambda info: info.iteration == 5)
    assert stopped.result_.status is FitStatus.CALLBACK_STOPPED
    late = fit(n_init=2, checkpoint=tmp_path, resume=True, max_time=0.0)
    assert late.result_.status is FitStatus.MAX_TIME
    assert late.n_iter_ == 6
    assert kills.bits(fit(n_init=2, checkpoint=tmp_path, resume=True)) == expected


# -- interruptions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, Stopped, MemoryError])
def test_an_interrupted_fit_leaves_the_estimator_and_a_checkpoint(tmp_path, error):
    model = GaussianMixture(3, **OPTIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X[:200])
        before = kills.bits(model)
        with pytest.raises(error):
            model.fit(X, checkpoint=tmp_path, callback=interrupt(7, error))
        assert kills.bits(model) == before
        seen = []
        model.fit(X, checkpoint=tmp_path, resume=True, callback=lambda info: seen.append(info.iteration))
    assert seen[0] == 8  # the last completed iteration was kept, though 30 seconds were not over
    assert kills.bits(model) == kills.bits(fit())


def test_kill_and_resume():
    """`python -m tests.tools.kills` is the long version."""
    report = kills.kill_and_resume(3)
    assert report.kills == 3
    assert report.lost == 0
    assert report.same_bits


def test_a_full_disk_is_one_warning_and_the_fit_goes_on(tmp_path, monkeypatch):
    writes, intact = [], []

    def full(file, header, arrays, write=store.write_archive):
        writes.append(header)
        if len(writes) > 3:
            file.write(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, header, arrays)
        intact.append(header["current"]["iteration"])

    monkeypatch.setattr(store, "write_archive", full)
    options = Checkpoint(tmp_path, every_seconds=0, every_iterations=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = GaussianMixture(3, **OPTIONS).fit(X, checkpoint=options)
    said = [str(w.message) for w in caught if "checkpoint" in str(w.message)]
    assert len(said) == 1
    assert re.search(r"no checkpoint could be written.*No space left.*Make room", said[0])
    assert len(writes) > 8  # it keeps trying
    assert kills.bits(model) == kills.bits(fit())
    monkeypatch.undo()
    assert not list(tmp_path.glob(".fastgmm*"))
    seen = []
    fit(checkpoint=tmp_path, resume=True, callback=lambda info: seen.append(info.iteration))
    assert seen[0] == intact[-1] + 1


def test_a_directory_that_cannot_be_written_is_an_error_at_once(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(store, "write_archive", refused)
    seen = []
    with pytest.raises(PermissionError):
        fit(checkpoint=tmp_path, callback=seen.append)
    assert not seen


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_an_old_checkpoint_is_not_overwritten(tmp_path):
    fit(checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match=r"holds the checkpoints of a fit already. Use resume=True"):
        fit(checkpoint=tmp_path)


def test_an_empty_or_missing_directory_begins_a_fit(tmp_path):
    for path in (tmp_path, tmp_path / "a" / "b"):
        assert kills.bits(fit(checkpoint=str(path), resume=True)) == kills.bits(fit())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"reg_covar": 1e-3}, r"reg_covar was 1e-06 and is 0.001"),
        ({"random_state": 4}, "random_state was 3 and is 4"),
        ({"covariance_type": "diag"}, "covariance_type was 'full' and is 'diag'"),
        ({"degenerate": "drop"}, "degenerate was 'floor' and is 'drop'"),
        ({"reg_scale": "relative"}, "reg_scale was 'absolute'"),
        ({"init_params": "random"}, "init_params was 'kmeans' and is 'random'"),
        ({"means_init": X[:3]}, r"means_init was None and is 'array of shape \(3, 2\)"),
        ({"data": X[:-1]}, "other data: n_rows was 450 and is 449"),
        ({"data": X.astype(np.float32)}, "dtype was 'float64' and is 'float32'"),
        ({"sample_weight": W}, "weighted was False and is True"),
        ({"data": X[::-1]}, "rows was 'sha256"),
        ({"data": np.where(X[7, 1] == X, X + 1e-9, X)}, "rows was 'sha256"),
    ],
)
def test_other_settings_and_other_data_are_refused(tmp_path, change, words):
    fit(checkpoint=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match=words):
        fit(**({"checkpoint": tmp_path, "resume": True} | change))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_changed_row_that_the_sample_does_not_hold_is_found_by_the_likelihood(tmp_path):
    data = np.random.default_rng(1).normal(size=(70_000, 2))
    options = {"max_iter": 4, "init_params": "random_from_data"}
    with pytest.raises(Stopped):
        fit(2, data=data, checkpoint=tmp_path, callback=interrupt(2), **options)
    refused = 0
    for row in range(60):  # most rows are in the sample of 65,536; some are not
        changed = data.copy()
        changed[row, 0] += 1e-3
        with pytest.raises(CheckpointError, match="cannot be resumed") as caught:
            fit(2, data=changed, checkpoint=tmp_path, resume=True, **options)
        if "log-likelihood" in str(caught.value):
            refused += 1
            break
    assert refused == 1


def test_arguments_are_checked(tmp_path):
    with pytest.raises(InvalidParameterError, match="resume=True needs checkpoint"):
        fit(resume=True)
    for wrong in (1, Checkpoint(None), np.zeros(2)):
        with pytest.raises(InvalidParameterError, match="checkpoint must be"):
            fit(checkpoint=wrong)
    with pytest.raises(InvalidParameterError, match="every_seconds"):
        fit(checkpoint=Checkpoint(tmp_path, every_seconds=-1))
    with pytest.raises(InvalidParameterError, match="every_iterations"):
        fit(checkpoint=Checkpoint(tmp_path, every_iterations=0))
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidParameterError, match="is a file"):
        fit(checkpoint=tmp_path / "file")


# -- files -------------------------------------------------------------------------------------------------------------


def files(directory):
    return sorted(directory.glob("fit-*.npz"))


def test_the_last_two_are_kept(tmp_path):
    fit(checkpoint=Checkpoint(tmp_path, every_iterations=1, every_seconds=0))
    first, second = files(tmp_path)
    assert int(second.stem[4:]) == int(first.stem[4:]) + 1
    assert int(second.stem[4:]) > 10


def test_every_flipped_bit_is_found_and_the_one_before_is_used(tmp_path):
    expected = kills.bits(fit())
    with pytest.raises(Stopped):
        fit(checkpoint=Checkpoint(tmp_path / "a", every_iterations=1), callback=interrupt(6))
    content = files(tmp_path / "a")[-1].read_bytes()
    places = np.random.default_rng(0).integers(len(content) * 8, size=150)
    for place in [*places, 0, len(content) * 8 - 1]:
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << (place % 8)
        files(tmp_path / "a")[-1].write_bytes(damaged)
        with pytest.warns(FastgmmWarning, match="newest checkpoint cannot be read, and the one before is used"):
            assert store.Store(tmp_path / "a").read() is not None
    for damaged in (b"", content[:40], content[:-1], content + b"\0"):
        files(tmp_path / "a")[-1].write_bytes(damaged)
        shutil.rmtree(tmp_path / "b", ignore_errors=True)
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        assert kills.bits(fit(checkpoint=tmp_path / "b", resume=True)) == expected
    for path in files(tmp_path / "a"):
        path.write_bytes(content[:100])
    with pytest.raises(CheckpointError, match=r"none of the checkpoints in .* can be read"):
        fit(checkpoint=tmp_path / "a", resume=True)


def test_mutated_checkpoints(tmp_path):
    """The short version of ``python -m tests.tools.checkpoint_mutations``."""
    ended = checkpoint_mutations.run(132, 5, tmp_path)
    assert not [how for _, _, how in ended if how.startswith("DEFECT")]
    assert {how for _, way, how in ended if way == "damaged"} <= {"refused", "unchanged"}
    assert sum(times for (_, _, how), times in ended.items() if how == "refused") > 100
    assert {how for _, way, how in ended if way == "sealed again"} >= {"refused", "unharmed"}
