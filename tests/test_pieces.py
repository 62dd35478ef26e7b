"""Long arrays are worked on in pieces, so that Ctrl-C is not held up; nobody may see that in a result."""

import warnings

import numpy as np
import pytest

from fastgmm import GaussianMixture, load, pieces
from fastgmm.pieces import piecewise


@pytest.mark.parametrize("shape", [(7, 3, 3), (1, 9), (5,), (0, 4)])
@pytest.mark.parametrize("numbers", [1, 4, 10, 1000])
def test_pieces_cover_everything_once(shape, numbers, monkeypatch):
    monkeypatch.setattr(pieces, "NUMBERS", numbers)
    array = np.arange(np.prod(shape), dtype=float).reshape(shape)
    seen = np.zeros(shape)
    for some in pieces.pieces(array):
        seen[some] += 1
        assert seen[some].size <= max(numbers, array[:1].size)
    assert (seen == 1).all()
    factor = np.arange(shape[0]).reshape(-1, *[1] * (array.ndim - 1))
    np.testing.assert_array_equal(piecewise(np.multiply, array, factor), array * factor)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("d", [3, 70])
def test_models_have_the_same_bits(covariance_type, d, monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(900, d)) * rng.uniform(0.5, 2.0, (900, 1)) + 3.0 * rng.integers(0, 5, (900, 1))
    found = []
    for numbers in (pieces.NUMBERS, 2 * d * d + 1, 7):
        monkeypatch.setattr(pieces, "NUMBERS", numbers)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = GaussianMixture(5, covariance_type=covariance_type, max_iter=4, random_state=0, tol=0.0).fit(x)
            online = GaussianMixture(5, covariance_type=covariance_type, random_state=0)
            online.partial_fit(x[:450]).partial_fit(x[450:])
        model.save(tmp_path / f"{numbers}")
        again = load(tmp_path / f"{numbers}")
        assert again.covariances_.tobytes() == model.covariances_.tobytes()
        parts = (
            model.covariances_,
            model.precisions_,
            model.precisions_cholesky_,
            model.mixture_.covariances_dense,
            model.score_samples(x),
            online.covariances_,
            GaussianMixture.from_parameters(model.weights_, model.means_, model.covariances_, covariance_type).predict(
                x
            ),
        )
        found.append([part.tobytes() for part in parts] + [model._flat])
    assert found[0] == found[1] == found[2]
