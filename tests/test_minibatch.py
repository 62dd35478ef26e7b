"""First passes in mini-batches: the same bits however the rows are stored, and exact EM's fixed point at the end."""

import numpy as np
import pytest
from sklearn.base import clone

import fastgmm
from fastgmm import GaussianMixture, MiniBatch
from fastgmm.data import ArrayRows, as_rows
from fastgmm.errors import DegenerateComponentWarning, InvalidParameterError, SingularCovarianceError
from fastgmm.minibatch import batches
from fastgmm.typing import RowBlock

TYPES = ("full", "tied", "diag", "spherical")
CENTERS = np.array([[0.0, 0.0], [3.0, 1.0], [1.0, 4.0]])


def data(n=3000, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return (CENTERS[rng.integers(0, 3, n)] + rng.normal(size=(n, 2))).astype(dtype)


def same_bits(a, b):
    return all(
        getattr(a.mixture_, name).tobytes() == getattr(b.mixture_, name).tobytes()
        for name in ("weights", "means", "covariances")
    )


class Cut:
    """Rows that come in blocks of an odd multiple of what is asked for, with weights."""

    def __init__(self, x, weight=None, factor=3):
        self.x, self.weight, self.factor = x, weight, factor
        self.n_rows, self.n_features, self.dtype, self.weighted = *x.shape, x.dtype, weight is not None

    def blocks(self, multiple):
        size = self.factor * multiple
        for first in range(0, self.n_rows, size):
            part = slice(first, first + size)
            yield RowBlock(first, self.x[part].copy(), None if self.weight is None else self.weight[part])


@pytest.mark.parametrize(("n", "size"), [(10, 3), (12, 4), (5, 7), (7, 1), (1000, 64)])
def test_batches_cover_the_rows_once_in_order(n, size):
    x, w = np.arange(2.0 * n).reshape(n, 2), np.arange(1.0, n + 1.0)
    for source in (ArrayRows(x, w), Cut(x, w)):
        parts = [(block.x.copy(), block.weight.copy()) for part in batches(source, size) for block in part.blocks(1)]
        assert [len(part) for part, _ in parts[:-1]] == [size] * ((n - 1) // size)
        np.testing.assert_array_equal(np.concatenate([part for part, _ in parts]), x)
        np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), w)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", TYPES)
def test_the_fit_ends_where_exact_em_ends(name, dtype):
    x = data(dtype=dtype)
    tol, near = (1e-9, 1e-6) if dtype == np.float64 else (1e-6, 1e-4)  # log-likelihoods of float32 rows are rounded
    options = {"n_components": 3, "covariance_type": name, "random_state": 0, "tol": tol, "max_iter": 2000}
    plain = GaussianMixture(**options).fit(x)
    quick = GaussianMixture(first_passes=MiniBatch(batch_size=100), **options).fit(x)
    assert quick.converged_
    assert quick.result_.initial_log_likelihood > plain.result_.initial_log_likelihood + 1.0
    assert quick.lower_bound_ == pytest.approx(plain.lower_bound_, abs=near)
    bounds = np.array(quick.lower_bounds_)
    assert (np.diff(bounds) > -1e-6).all()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", TYPES)
def test_same_bits_from_an_array_a_memory_map_and_a_copy_in_another_order(tmp_path, name, weighted):
    x = data()
    w = np.random.default_rng(2).uniform(0.5, 2.0, len(x)) if weighted else None
    np.save(tmp_path / "x.npy", x)
    options = {"n_components": 3, "covariance_type": name, "random_state": 0, "first_passes": MiniBatch(1, 128)}
    fits = [
        GaussianMixture(**options).fit(rows, sample_weight=w)
        for rows in (x, np.load(tmp_path / "x.npy", mmap_mode="r"), np.asfortranarray(x), x.tolist())
    ]
    assert all(same_bits(fits[0], fit) for fit in fits[1:])


def test_the_order_of_the_rows_is_the_order_of_the_batches():
    """The first batch alone decides where one pass over one batch and a bit begins."""
    x = data(200)
    options = {"n_components": 2, "random_state": 0, "max_iter": 0, "first_passes": MiniBatch(1, 128)}
    assert not same_bits(GaussianMixture(**options).fit(x), GaussianMixture(**options).fit(x[::-1].copy()))


def test_one_batch_is_no_mini_batch():
    x = data(300)
    plain = GaussianMixture(3, random_state=0).fit(x)
    assert same_bits(plain, GaussianMixture(3, random_state=0, first_passes=MiniBatch(5, 300)).fit(x))
    assert same_bits(plain, GaussianMixture(3, random_state=0, first_passes=MiniBatch(5)).fit(x))
    assert not same_bits(plain, GaussianMixture(3, random_state=0, first_passes=MiniBatch(5, 299)).fit(x))


@pytest.mark.parametrize(
    ("n_rows", "k", "d", "expected"), [(100, 2, 2, 4096), (10**7, 2, 2, 156250), (10**6, 100, 99, 40000)]
)
def test_size_of_a_batch(n_rows, k, d, expected):
    assert MiniBatch().rows_of(n_rows, k, d) == expected
    assert MiniBatch(batch_size=17).rows_of(n_rows, k, d) == 17


def test_rows_in_order_of_their_cluster_kill_no_component():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(c, 0.5, (500, 2)) for c in 3.0 * CENTERS])
    model = GaussianMixture(3, random_state=0, tol=1e-6, max_iter=500, first_passes=MiniBatch(2, 50)).fit(x)
    assert model.result_.empty == ()
    np.testing.assert_allclose(np.sort(model.weights_), [1 / 3] * 3, atol=1e-3)


def test_every_start_is_improved_and_a_warm_one_is_left_alone():
    x = data()
    model = GaussianMixture(3, random_state=0, n_init=3, init_params="random", first_passes=MiniBatch(1, 200)).fit(x)
    assert len(model.starts_) == 3
    assert len({start.lower_bound for start in model.starts_}) == 3
    again = GaussianMixture(3, random_state=0, warm_start=True, first_passes=MiniBatch(1, 200)).fit(x)
    bound = again.lower_bound_
    assert again.fit(x).result_.initial_log_likelihood / len(x) == pytest.approx(bound, rel=1e-12)


def test_a_start_without_a_density_is_repaired_or_refused():
    x = np.concatenate([data(500), np.full((200, 2), 30.0)])
    options = {"n_components": 2, "means_init": [[0, 0], [30, 30]], "reg_covar": 0.0, "first_passes": MiniBatch(1, 100)}
    with pytest.warns(fastgmm.DegenerateComponentWarning):
        model = GaussianMixture(**options).fit(x)
    assert np.isfinite(model.lower_bound_)
    with pytest.raises(fastgmm.SingularCovarianceError):
        GaussianMixture(degenerate="raise", **options).fit(x)


def test_bad_values_are_named_as_the_user_counts_them():
    x = data(1000)
    x[777, 1] = np.inf
    with pytest.raises(fastgmm.NonFiniteDataError, match="row 777, column 1"):
        GaussianMixture(
            3, means_init=CENTERS, precisions_init=[np.eye(2)] * 3, weights_init=[0.2, 0.3, 0.5],
            first_passes=MiniBatch(1, 100),
        ).fit(x)  # fmt: skip


def test_schedules_are_checked_cloned_and_saved(tmp_path):
    for bad in ({"n_passes": 0}, {"batch_size": 0}, {"n_passes": 1.5}, {"batch_size": "many"}):
        with pytest.raises(InvalidParameterError, match=f"{next(iter(bad))} must be an integer >= 1"):
            MiniBatch(**bad)
    for wrong in (3, "mini-batch", True):
        with pytest.raises(InvalidParameterError, match=r"first_passes must be a fastgmm.MiniBatch or None"):
            GaussianMixture(2, first_passes=wrong).fit(data(50))
    model = GaussianMixture(2, random_state=0, first_passes=MiniBatch(3, 40))
    assert clone(model).first_passes == MiniBatch(3, 40)
    assert "first_passes=MiniBatch(n_passes=3, batch_size=40)" in repr(model)
    model.fit(data(100)).save(tmp_path / "m")
    assert fastgmm.load(tmp_path / "m").first_passes == MiniBatch(3, 40)
    GaussianMixture(2, random_state=0).fit(data(100)).save(tmp_path / "m")
    assert fastgmm.load(tmp_path / "m").first_passes is None


def test_a_source_of_rows_is_cut_at_the_batch_size():
    """`run_passes` over any source, not only what `as_rows` makes."""
    from fastgmm.estimators._engine import PassHere
    from fastgmm.minibatch import run_passes
    from fastgmm.online import StepSize

    x = data(1000)
    start = GaussianMixture(3, random_state=0, max_iter=0).fit(x).mixture_.params

    def accumulate(part, scatter):
        return PassHere(part, scatter, x[0])

    def improved(rows):
        return run_passes(
            rows, start, MiniBatch(2, 90), accumulate=accumulate, scatter="full", step_size=StepSize(),
            reg_covar=1e-6, reference_variance=1.0, floor=True,
        )  # fmt: skip

    a, b = improved(as_rows(x)), improved(Cut(x))
    for name in ("weights", "means", "covariances"):
        assert getattr(a, name).tobytes() == getattr(b, name).tobytes()


def nearly_flat(n=3000):
    """float32 rows in a plane but for 1e-5: of that, float32 keeps noise."""
    x = np.random.default_rng(0).normal(size=(n, 4))
    x[:, 3] = x[:, 0] + x[:, 1] + 1e-5 * x[:, 2]
    return x.astype(np.float32)


ON_FLOAT32 = {
    "first passes": lambda model, x: model.set_params(first_passes=MiniBatch(2, 500)).fit(x),
    "partial_fit": lambda model, x: model.partial_fit(x[:1000]).partial_fit(x[1000:2000]),
    "partial_fit after float64": lambda model, x: model.partial_fit(x[:1000].astype(float)).partial_fit(x[1000:]),
    "partial_fit after a fit of float64": lambda model, x: model.fit(x[:1000].astype(float)).partial_fit(x[1000:]),
}


@pytest.mark.parametrize("way", ON_FLOAT32)
def test_covariances_that_are_noise_to_float32_rows_get_the_floor(way):
    x = nearly_flat()
    with pytest.warns(DegenerateComponentWarning, match="collapsed onto"):
        model = ON_FLOAT32[way](GaussianMixture(2, reg_covar=0.0, random_state=0), x)
    assert np.linalg.eigvalsh(model.covariances_).min() > 1e-7  # a part of the floor, which is 1e-6 of the variance
    assert np.isfinite(model.score_samples(x)).all()
    with pytest.raises(SingularCovarianceError):
        ON_FLOAT32[way](GaussianMixture(2, reg_covar=0.0, random_state=0, degenerate="raise"), x)


def test_a_batch_that_weighs_nothing_beside_those_before():
    x = data(300)
    model = GaussianMixture(2, random_state=0).partial_fit(x, sample_weight=np.full(300, 1e300))
    before = model.means_.copy()
    for weight in (1e-300, 5e-324):
        model.partial_fit(x[:50] + 100.0, sample_weight=np.full(50, weight))
        np.testing.assert_allclose(model.means_, before, rtol=1e-12)
        assert np.isfinite(model.score_samples(x)).all()
    assert np.isfinite(model.partial_fit(x).means_).all()
