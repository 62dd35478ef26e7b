"""partial_fit: its state on disk, batches that leave it alone, and two streams put together."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest

import fastgmm
from fastgmm import GaussianMixture, online
from fastgmm.errors import InvalidDataError, InvalidParameterError, ModelFileError, NonFiniteDataError
from tests.test_online import TYPES, batch, same_bits, same_state


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", TYPES)
def test_saving_between_calls_changes_no_bit(tmp_path, name, dtype):
    plain = GaussianMixture(3, covariance_type=name, random_state=0)
    saved = GaussianMixture(3, covariance_type=name, random_state=0)
    pickled = GaussianMixture(3, covariance_type=name, random_state=0)
    for i, n in enumerate((200, 1, 64, 301)):
        x = batch(n, i, dtype=dtype)
        for model in (plain, saved, pickled):
            model.partial_fit(x)
        saved.save(tmp_path / "m")
        saved = fastgmm.load(tmp_path / "m")
        pickled = pickle.loads(pickle.dumps(pickled))
        for model in (saved, pickled):
            assert same_bits(model, plain)
            assert same_state(model.online_, plain.online_)
            assert (model.n_iter_, model.converged_) == (i + 1, False)
            assert model.means_.dtype == dtype
    again = tmp_path / "again"
    saved.save(again)
    assert again.read_bytes() == (tmp_path / "m").read_bytes()


def test_a_file_without_online_state_loads_and_a_damaged_one_is_refused(tmp_path):
    from fastgmm.archive import read_archive, write_archive

    path = tmp_path / "m"
    GaussianMixture(3, random_state=0).partial_fit(batch(200, 0)).save(path)
    archive = read_archive(path)

    def rewritten(header=None, **changes):
        write_archive(path, {**archive.header, **(header or {})}, {**archive.arrays, **changes})
        return path

    old = {k: v for k, v in archive.header.items() if k not in ("online", "first_passes")}
    write_archive(path, old, {k: v for k, v in archive.arrays.items() if not k.startswith("online.")})
    assert fastgmm.load(path).online_ is None

    scatter = archive.arrays["online.scatter"].copy()
    scatter[0, 0, 0] = np.nan
    state = archive.header["online"]
    for header, changes, match in (
        (None, {"online.scatter": scatter}, "finite"),
        (None, {"online.mean": np.zeros((3, 1))}, r"shape \(3, 2\)"),
        (None, {"online.weight": -archive.arrays["online.weight"]}, ">= 0"),
        ({"online": {**state, "n_batches": -1}}, {}, "n_batches"),
        ({"online": {**state, "total_weight": "nan"}}, {}, "total_weight"),
        ({"online": {k: v for k, v in state.items() if k != "score"}}, {}, "score"),
        ({"online": [1, 2]}, {}, "damaged"),
        ({"first_passes": {"n_passes": 0, "batch_size": None}}, {}, "n_passes"),
    ):
        with pytest.raises(ModelFileError, match=match):
            fastgmm.load(rewritten(header, **changes))


def test_a_bad_batch_leaves_the_model_as_it_was():
    model = GaussianMixture(3, random_state=0).partial_fit(batch(200, 0))
    before, state = model.mixture_, model.online_
    bad = batch(100, 1)
    bad[17, 1] = np.nan
    for x, w, error, match in (
        (bad, None, NonFiniteDataError, "row 17, column 1"),
        (bad[:, :1], None, InvalidDataError, "X has 1 features, but GaussianMixture is expecting 2 features"),
        (batch(3, 0), [1.0, -1.0, 0.0], InvalidDataError, "negative"),
        (batch(3, 0), [0.0, 0.0, 0.0], InvalidDataError, "at least one weight > 0"),
        (np.empty((0, 2)), None, InvalidDataError, "0 sample"),
    ):
        with pytest.raises(error, match=match):
            model.partial_fit(x, sample_weight=w)
        assert model.mixture_ is before
        assert model.online_ is state
    model.set_params(n_components=4)
    with pytest.raises(InvalidParameterError, match=r"they were, \(3, 'full'\); got \(4, 'full'\)"):
        model.partial_fit(batch(10, 0))
    model.set_params(n_components=3, covariance_type="diag")
    with pytest.raises(InvalidParameterError, match="covariance_type must stay"):
        model.partial_fit(batch(10, 0))


def test_the_first_batch_needs_a_row_for_every_component():
    for n in (1, 2):
        with pytest.raises(InvalidDataError, match=r"a minimum of 2|n_samples = 2"):
            GaussianMixture(3).partial_fit(batch(n, 0))
    model = GaussianMixture(3)
    assert "mixture_" not in model.__dict__


def test_feature_names_and_precision():
    frame = pd.DataFrame(batch(100, 0, dtype=np.float32), columns=["a", "b"])
    model = GaussianMixture(2, random_state=0).partial_fit(frame)
    assert list(model.feature_names_in_) == ["a", "b"]
    assert model.means_.dtype == np.float32
    with pytest.raises(ValueError, match="same order"):
        model.partial_fit(frame[["b", "a"]])
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        model.partial_fit(batch(10, 1))
    assert model.means_.dtype == np.float64
    assert list(model.feature_names_in_) == ["a", "b"]


def test_files_are_batches_too(tmp_path):
    arrays, paths = (GaussianMixture(3, random_state=0) for _ in range(2))
    for i, n in enumerate((300, 1, 50)):
        path = tmp_path / f"{i}.npy"
        np.save(path, batch(n, i))
        arrays.partial_fit(batch(n, i))
        paths.partial_fit(path)
    assert same_bits(arrays, paths)
    assert same_state(arrays.online_, paths.online_)


@pytest.mark.parametrize("name", TYPES)
def test_streams_that_began_from_one_model_merge(name):
    """With equal weight to all rows the sum is that of one stream over both, and the past once more."""
    x = batch(4000, 0)
    model = GaussianMixture(3, covariance_type=name, random_state=0, learning_decay=1.0).partial_fit(x[:1000])
    here, there = (copy.deepcopy(model).partial_fit(part).online_.stats for part in (x[1000:2000], x[2000:]))
    both = here.merge(there)
    expected = copy.deepcopy(model).partial_fit(x[1000:]).online_.stats.merge(model.online_.stats)
    assert both.n_rows == expected.n_rows == 5000
    for part in ("weight", "mean", "scatter"):
        np.testing.assert_allclose(getattr(both, part), getattr(expected, part), rtol=1e-9, atol=1e-9)


def test_the_state_is_a_public_value():
    assert fastgmm.OnlineState is online.OnlineState
