"""Model files: the same bits back, and one documented error for everything that is not a good model file."""

import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgmm import persist
from fastgmm.archive import read_archive, write_archive
from fastgmm.datasets import load_faithful
from fastgmm.em import FitStatus
from fastgmm.errors import FastgmmWarning, InvalidParameterError, ModelFileError, NotFittedError
from fastgmm.estimators.gaussian import GaussianMixture
from fastgmm.mixture import Mixture

FAMILIES = ("full", "tied", "diag", "spherical")


def fitted(**options):
    return GaussianMixture(2, random_state=0, **options).fit(load_faithful())


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def rewrite(path, **changes):
    """Change entries of the header, or arrays where the value is one; None removes."""
    archive = read_archive(path)
    for name, value in changes.items():
        target = archive.arrays if name in archive.arrays else archive.header
        target.pop(name, None)
        if isinstance(value, np.ndarray):
            archive.arrays[name] = value
        elif value is not None:
            archive.header[name] = value
    write_archive(path, archive.header, archive.arrays)


@pytest.fixture
def path(tmp_path):
    """A saved estimator."""
    path = tmp_path / "model.npz"
    persist.save(fitted(), path)
    return path


@pytest.mark.parametrize("covariance_type", FAMILIES)
def test_a_mixture_comes_back_to_the_bit(tmp_path, covariance_type):
    mixture = fitted(covariance_type=covariance_type).mixture_
    persist.save(mixture, tmp_path / "m")
    loaded = persist.load(tmp_path / "m")
    assert type(loaded) is Mixture
    assert loaded.covariance_type == covariance_type
    for name in ("weights", "means", "covariances"):
        assert same_bits(getattr(loaded, name), getattr(mixture, name))
        assert not getattr(loaded, name).flags.writeable
    x = load_faithful()
    assert same_bits(loaded.logpdf(x), mixture.logpdf(x))
    persist.save(loaded, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "m").read_bytes()


@given(st.lists(st.floats(1e-8, 1.0), min_size=1, max_size=6), st.floats(-1e100, 1e100))
def test_weights_that_do_not_sum_to_one_exactly_keep_their_bits(tmp_path_factory, weights, mean):
    weights = np.array(weights) / np.sum(weights)
    mixture = Mixture(weights, np.full((len(weights), 1), mean), np.ones(len(weights)), "spherical")
    file = tmp_path_factory.getbasetemp() / "bits"
    persist.save(mixture, file)
    assert same_bits(persist.load(file).weights, mixture.weights)


@pytest.mark.parametrize("covariance_type", FAMILIES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_estimator_comes_back_whole(tmp_path, covariance_type, dtype):
    x = load_faithful().astype(dtype)
    model = GaussianMixture(3, covariance_type=covariance_type, n_init=2, random_state=5, tol=1e-5, max_iter=300).fit(x)
    persist.save(model, tmp_path / "m.npz")
    loaded = persist.load(tmp_path / "m.npz")
    assert type(loaded) is GaussianMixture
    assert loaded.get_params() == model.get_params()
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        assert same_bits(getattr(loaded, name), getattr(model, name))
    for name in ("converged_", "n_iter_", "lower_bound_", "lower_bounds_", "n_features_in_"):
        assert getattr(loaded, name) == getattr(model, name)
    assert same_bits(loaded.score_samples(x), model.score_samples(x))
    for name in ("status", "n_iter", "log_likelihood", "log_map", "total_weight", "history", "events", "empty"):
        assert getattr(loaded.result_, name) == getattr(model.result_, name)
    assert [start.history for start in loaded.starts_] == [start.history for start in model.starts_]
    assert [start.lower_bound for start in loaded.starts_] == [start.lower_bound for start in model.starts_]
    # and it is a working estimator
    assert loaded.fit(x).lower_bound_ == model.lower_bound_


def test_array_settings_and_names_come_back(tmp_path):
    pandas = pytest.importorskip("pandas", reason="names of features come from a pandas table")
    table = pandas.DataFrame(load_faithful(), columns=["eruptions", "Wartezeit (ß)"])
    means = [[2, 50], [4, 80]]
    model = GaussianMixture(2, means_init=means, weights_init=np.array([0.4, 0.6]), reg_covar=np.float64(1e-4)).fit(
        table
    )
    persist.save(model, tmp_path / "m.npz")
    loaded = persist.load(tmp_path / "m.npz")
    np.testing.assert_array_equal(loaded.means_init, means)
    np.testing.assert_array_equal(loaded.weights_init, [0.4, 0.6])
    assert loaded.reg_covar == 1e-4
    assert loaded.feature_names_in_.tolist() == ["eruptions", "Wartezeit (ß)"]
    loaded.predict(table)  # no complaint about names


def test_models_that_were_not_fitted_here(tmp_path):
    model = GaussianMixture.from_parameters([0.5, 0.5], [[0.0], [4.0]], [1.0, 1.0], "spherical", random_state=3)
    persist.save(model, tmp_path / "m.npz")
    loaded = persist.load(tmp_path / "m.npz")
    assert loaded.result_ is None
    assert np.isnan(loaded.lower_bound_)
    assert loaded.get_params() == model.get_params()
    sklearn_mixture = pytest.importorskip("sklearn.mixture", reason="compares with scikit-learn")
    theirs = sklearn_mixture.GaussianMixture(2, random_state=0).fit(load_faithful())
    persist.save(GaussianMixture.from_sklearn(theirs), tmp_path / "t.npz")
    assert persist.load(tmp_path / "t.npz").lower_bound_ == theirs.lower_bound_


def test_degenerate_fits_come_back(tmp_path):
    """Components of weight zero, floors, events, failed starts, infinite numbers."""
    x = np.repeat([[0.0, 0.0], [1.0, 1.0]], 10, axis=0)
    with pytest.warns(FastgmmWarning):
        model = GaussianMixture(3, random_state=0, reg_covar=0.0).fit(x)
    persist.save(model, tmp_path / "m.npz")
    loaded = persist.load(tmp_path / "m.npz")
    assert same_bits(loaded.covariances_, model.covariances_)
    assert loaded.result_.events == model.result_.events
    assert loaded.result_.status in FitStatus
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))


def test_code_and_generators_are_left_out_with_a_warning(tmp_path):
    def labels(x, n_components, _rng):
        return np.arange(len(x)) % n_components

    model = GaussianMixture(2, init_params=labels, random_state=np.random.default_rng(0), tol=0.1).fit(load_faithful())
    with pytest.warns(FastgmmWarning, match="init_params, random_state: functions and random generators") as caught:
        persist.save(model, tmp_path / "m.npz")
    assert caught[0].filename == __file__
    loaded = persist.load(tmp_path / "m.npz")
    assert loaded.init_params == "kmeans"
    assert loaded.random_state is None
    assert loaded.tol == 0.1


def test_save_refuses_what_it_cannot_save(tmp_path):
    with pytest.raises(NotFittedError):
        persist.save(GaussianMixture(), tmp_path / "m")
    with pytest.raises(InvalidParameterError, match="Mixture or a fitted GaussianMixture; got dict"):
        persist.save({}, tmp_path / "m")
    with pytest.raises(FileNotFoundError):
        persist.save(fitted(), tmp_path / "missing" / "m")
    assert list(tmp_path.iterdir()) == []


def test_header_tells_the_story_without_the_arrays(path):
    header = persist.read_header(path)
    assert (header["kind"], header["covariance_type"]) == ("GaussianMixture", "full")
    assert (header["n_components"], header["n_features"]) == (2, 2)
    assert header["fit"]["result"]["status"] == "CONVERGED"
    json.dumps(header, allow_nan=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "is not a model file of fastgmm: its format is 'other'"),
        ({"format": None}, "is not a model file of fastgmm: its format is None"),
        ({"format_version": 99}, r"written by a newer fastgmm: its format_version is 99.* reads up to 1; upgrade"),
        ({"format_version": "1"}, "format_version is '1'"),
        ({"kind": "Oracle"}, "holds a 'Oracle'; this release .* reads Mixture, GaussianMixture"),
        ({"kind": None}, "its header has no kind"),
        ({"kind": None, "covariance_type": None}, "its header has no kind, covariance_type"),
        ({"covariance_type": "oval"}, "covariance_type"),
        ({"covariance_type": "diag"}, "covariances"),
        ({"weights": None, "covariances": None}, "it has no weights, covariances"),
        ({"weights": np.array([0.5, 0.6])}, "weights"),
        ({"weights": np.array([0.5, np.nan])}, "weights"),
        ({"weights": np.array([0.5, 0.5], np.float32)}, "weights must be float64; got float32"),
        ({"means": np.full((2, 2), np.inf)}, "means must be finite"),
        ({"means": np.zeros((3, 2))}, "means has shape|weights"),
        ({"covariances": -np.ones((2, 2, 2))}, "positive definite|symmetric"),
        ({"n_components": 3}, "header states"),
        ({"settings": None}, "settings"),
        ({"settings": {"tol": [1]}}, "setting tol must be"),
        ({"settings": {"tol": "small"}}, "small"),
        ({"settings": 3}, "damaged"),
        ({"fit": {}}, "dtype|result"),
        ({"feature_names": ["a"]}, "feature_names must be 2 names"),
        ({"history": None}, "it has no 'history'"),
        ({"history_ends": np.array([1, 2])}, "history_ends must ascend"),
    ],
)
def test_every_wrong_content_is_a_model_file_error(path, changes, message):
    rewrite(path, **changes)
    with pytest.raises(ModelFileError, match=message) as caught:
        persist.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_of_later_releases_are_ignored(path):
    rewrite(path, settings={**read_archive(path).header["settings"], "later": 1})
    with pytest.warns(FastgmmWarning, match="does not know the settings later") as caught:
        persist.load(path)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", pickle.dumps([1, 2]), b"a,b\n1,2\n"])
def test_foreign_files_are_refused(tmp_path, content):
    (tmp_path / "m.npz").write_bytes(content)
    with pytest.raises(ModelFileError, match=r"m\.npz"):
        persist.load(tmp_path / "m.npz")


def test_foreign_npz_is_refused(tmp_path):
    np.savez(tmp_path / "m.npz", weights=np.ones(1), header=np.array([1, 2]))
    with pytest.raises(ModelFileError):
        persist.load(tmp_path / "m.npz")


@given(position=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_changes_no_number(tmp_path_factory, position, bit):
    base = tmp_path_factory.getbasetemp()
    good = base / "good"
    if not good.exists():
        persist.save(fitted().mixture_, good)
    content = bytearray(good.read_bytes())
    content[position % len(content)] ^= 1 << bit
    (base / "bad").write_bytes(content)
    try:
        loaded = persist.load(base / "bad")
    except ModelFileError:
        return
    assert same_bits(loaded.covariances, persist.load(good).covariances)


def test_loading_imports_no_pickle_code(path):
    """Beside NumPy's own imports: no unpickler is ever called. (The cache of kernels has one for its own files.)"""
    code = (
        "import pickle, sys, fastgmm\n"
        "def stop(*a, **k): raise SystemExit('unpickled')\n"
        "pickle.load = pickle.loads = pickle.Unpickler = stop\n"
        f"print(type(fastgmm.load({str(path)!r})).__name__)\n"
    )
    env = {**os.environ, "FASTGMM_CACHE": "0"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "GaussianMixture", done.stderr
