"""Pictures: what is drawn is right, files are really written, and mistakes are told."""

import sys

import numpy as np
import pytest
from scipy import stats

from fastgmm.datasets import load_faithful
from fastgmm.errors import InvalidDataError, InvalidParameterError
from fastgmm.mixture import Mixture

pytest.importorskip("matplotlib", reason="plots need matplotlib")
from fastgmm.plotting import plot_format, plot_mixture
from fastgmm.plotting.draw import CONTOUR_MASS
from fastgmm.plotting.view import contour_levels, log_densities, make_view

SHAPES = {"full": (3, 4, 4), "tied": (4, 4), "diag": (3, 4), "spherical": (3,)}


def mixture(covariance_type="full", n_components=3, n_features=4, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n_components, n_features, 2 * n_features))
    full = a @ a.transpose(0, 2, 1) / n_features
    covariances = {
        "full": full,
        "tied": full[0],
        "diag": np.diagonal(full, axis1=1, axis2=2),
        "spherical": full[:, 0, 0],
    }[covariance_type]
    weights = rng.dirichlet(np.full(n_components, 5.0))
    return Mixture(weights, rng.normal(0, 5, (n_components, n_features)), covariances, covariance_type)


def pixels(path):
    from matplotlib.image import imread

    return imread(path)[..., :3]


@pytest.mark.parametrize(("n_features", "features"), [(1, None), (2, None), (4, None), (4, [0, 2]), (4, [3, 0, 1])])
def test_a_png_is_really_drawn(tmp_path, n_features, features):
    m = mixture(n_features=n_features)
    path = tmp_path / "out.png"
    plot_mixture(m, m.sample(500, random_state=0)[0], path, features=features)
    image = pixels(path)
    assert min(image.shape[:2]) > 500
    colorful = np.ptp(image, axis=2) > 0.2
    assert 0.002 < colorful.mean() < 0.5  # rows and ellipses, on a white ground
    assert (image.min(axis=2) > 0.99).mean() > 0.3
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("extension", ["pdf", "svg", "PNG"])
def test_formats(tmp_path, extension):
    plot_mixture(mixture(n_features=2), None, tmp_path / f"out.{extension}")
    start = (tmp_path / f"out.{extension}").read_bytes()[:8]
    assert start.startswith({"pdf": b"%PDF", "svg": b"<?xml", "PNG": b"\x89PNG"}[extension])


def test_unknown_format_lists_the_known_and_writes_nothing(tmp_path):
    with pytest.raises(InvalidParameterError, match=r"plot\.xyz.*\.png"):
        plot_mixture(mixture(), None, tmp_path / "plot.xyz")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InvalidParameterError, match="expected a name that ends in"):
        plot_format("noextension")


def test_pyplot_is_left_alone():
    plot_mixture(mixture(n_features=2))
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_draws_into_given_axes():
    from matplotlib.figure import Figure

    figure = Figure()
    ax = figure.add_subplot()
    assert plot_mixture(mixture(n_features=2), ax=ax) is figure
    assert len(ax.patches) == 6  # two ellipses for each of three components
    assert ax.get_legend() is not None
    with pytest.raises(InvalidParameterError, match="ax: one Axes cannot hold"):
        plot_mixture(mixture(), ax=ax, features=[0, 1, 2])


@pytest.mark.parametrize("covariance_type", SHAPES)
def test_principal_axes_show_the_exact_projection(covariance_type):
    m = mixture(covariance_type)
    view = make_view(m, m.sample(5, random_state=0)[0], None, None, 100)
    x, _ = m.sample(100_000, random_state=1)
    big = make_view(m, x, None, None, 10**6)
    # moments of the projected draws are those of the projected mixture
    total = np.einsum("k,kij->ij", view.weights, view.covariances)
    spread = view.means - view.weights @ view.means
    total += (spread.T * view.weights) @ spread
    np.testing.assert_allclose(np.cov(big.x.T), total, atol=0.03 * total.max())
    np.testing.assert_allclose(big.x.mean(axis=0), 0, atol=0.02)
    assert abs(total[0, 1]) < 1e-10 * total[0, 0]  # principal axes are uncorrelated
    assert total[0, 0] > total[1, 1]
    assert "principal axis 1" in view.names[0]


@pytest.mark.parametrize("covariance_type", SHAPES)
def test_chosen_features_are_the_marginal(covariance_type):
    m = mixture(covariance_type)
    view = make_view(m, None, [2, 0], ["a", "b", "c", "d"], 100)
    assert view.names == ("c", "a")
    np.testing.assert_array_equal(view.means, m.means[:, [2, 0]])
    np.testing.assert_allclose(view.covariances, m.covariances_dense[:, [2, 0]][:, :, [2, 0]])


def test_densities_equal_scipy():
    view = make_view(mixture(n_features=2), None, None, None, 100)
    points = np.random.default_rng(0).normal(0, 5, (50, 2))
    expected = [
        np.log(w) + stats.multivariate_normal(mean, cov).logpdf(points)
        for w, mean, cov in zip(view.weights, view.means, view.covariances, strict=True)
    ]
    np.testing.assert_allclose(log_densities(view, points), np.transpose(expected), rtol=1e-9)


def test_contours_enclose_the_mass_they_claim():
    axis = np.linspace(-6, 6, 400)
    density = np.exp(-0.5 * (axis[:, None] ** 2 + axis[None, :] ** 2))
    levels = contour_levels(density, CONTOUR_MASS)
    enclosed = [density[density >= level].sum() / density.sum() for level in levels]
    np.testing.assert_allclose(enclosed, CONTOUR_MASS, atol=2e-3)
    # the level of a two-dimensional normal is known: mass inside radius r is 1 - exp(-r^2 / 2)
    np.testing.assert_allclose(levels, 1.0 - np.asarray(CONTOUR_MASS), rtol=0.02)


def test_large_data_are_thinned_the_same_way_each_time():
    m = mixture(n_features=2)
    x = m.sample(5000, random_state=0)[0]
    first, second = (make_view(m, x, None, None, 100) for _ in range(2))
    assert first.x.shape == (100, 2)
    np.testing.assert_array_equal(first.x, second.x)
    assert "100 of 5,000 rows" in first.title
    np.testing.assert_array_equal(first.component, m.predict(first.x))


def test_names_of_a_table_are_the_labels():
    pandas = pytest.importorskip("pandas", reason="names of features come from a pandas table")
    table = pandas.DataFrame(load_faithful(), columns=["eruptions", "waiting"])
    m = Mixture([1.0], [[3.5, 71.0]], [[[1.3, 14.0], [14.0, 185.0]]])
    ax = plot_mixture(m, table).axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("eruptions", "waiting")


def test_degenerate_pictures_do_not_fail():
    flat = Mixture([0.5, 0.5, 0.0], [[1e8, 0.0], [1e8, 0.0], [0, 0]], [[[1e-12, 0], [0, 1e-300]]] * 3)
    plot_mixture(flat, np.array([[1e8, 0.0], [1e8, 0.0]])).canvas.draw()
    tiny = Mixture([1.0], [[0.0]], [[[1e-300]]])
    plot_mixture(tiny, np.zeros((3, 1))).canvas.draw()
    many = mixture(n_components=30, n_features=2)
    plot_mixture(many).canvas.draw()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": [4]}, "there is no 4; expected 0 to 3"),
        ({"features": ["x"]}, "there is no 'x'"),
        ({"features": []}, "expected 1 to 8 features, got 0"),
        ({"feature_names": ["a"]}, "expected 4 names, got 1"),
    ],
)
def test_wrong_choices_are_told(options, message):
    with pytest.raises(InvalidParameterError, match=message):
        plot_mixture(mixture(), **options)


def test_wrong_data_are_told():
    with pytest.raises(InvalidDataError, match="X has 2 features, but the mixture has 4"):
        plot_mixture(mixture(), np.zeros((3, 2)))


def test_missing_matplotlib_says_how_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InvalidDataError, match=r"pip install 'fastgmm\[plot\]'"):
        plot_mixture(mixture())
