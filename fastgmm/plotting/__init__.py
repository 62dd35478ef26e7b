"""Pictures of a mixture: rows, component ellipses and density contours. Needs matplotlib, imported when drawing.

Read this file first, then `view` (what is shown, in which coordinates) and `draw` (how).

1. A linear image of a Gaussian mixture is a Gaussian mixture. So whatever plane is shown (two features, or the first
   two principal axes), the ellipses and contours in it are those of the exact marginal distribution, not a slice.
2. Contours are labelled by what they mean: the share of the probability they enclose.
3. Figures are made without pyplot: no global state, no window, nothing to close.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastgmm.errors import InvalidParameterError
from fastgmm.files import replacing
from fastgmm.plotting.draw import draw_legend, draw_line, draw_pairs, draw_plane, new_figure
from fastgmm.plotting.view import make_view

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_format", "plot_mixture"]


def plot_mixture(
    mixture: Any,
    X: Any = None,
    path: str | os.PathLike[str] | None = None,
    *,
    features: Sequence[int | str] | None = None,
    feature_names: Sequence[str] | None = None,
    max_points: int = 10_000,
    ax: Axes | None = None,
) -> Figure:
    """Draw a mixture, and the rows it describes.

    One feature gives the density, its components and a histogram; two give a scatter plot with the ellipses that hold
    50 % and 95 % of each component and contours of the density; more give the plane of the first two principal axes of
    the standardised features, or, with `features`, the marginal of the chosen ones (a grid of all pairs from three up).

    Parameters
    ----------
    mixture : Mixture or fitted GaussianMixture
        What to draw.
    X : array-like of shape (n, D), optional
        Rows to draw; anything `GaussianMixture.fit` takes. Coloured by the component they most probably belong to.
    path : str or os.PathLike, optional
        File to write, in the format of its extension (png, pdf, svg, ...), completely or not at all.
    features : sequence of int or str, optional
        Features to show, by position from 0 or by name: at most eight.
    feature_names : sequence of str, optional
        Labels of the D features; taken from the estimator or the table where they have names.
    max_points : int, default 10_000
        Rows drawn at most; more are thinned evenly at random, the same way each time.
    ax : matplotlib.axes.Axes, optional
        Axes to draw into instead of a new figure; not for three or more `features`.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; notebooks show it.

    Raises
    ------
    InvalidDataError
        If matplotlib is missing, or the rows have another number of features than the mixture.
    InvalidParameterError
        If `features`, `feature_names` or the extension of `path` is not usable.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgmm import Mixture
    >>> from fastgmm.plotting import plot_mixture
    >>> mixture = Mixture([0.5, 0.5], np.array([[0.0, 0.0], [4.0, 1.0]]), np.array([1.0, 2.0]), "spherical")
    >>> figure = plot_mixture(mixture, mixture.sample(500, random_state=0)[0])  # doctest: +SKIP
    """
    view = make_view(mixture, X, features, feature_names, max_points)
    file_format = None if path is None else plot_format(path)
    n_shown = view.means.shape[1]
    figure: Any  # an Axes may also belong to a SubFigure, which has the same methods
    if n_shown > 2 and ax is not None:
        msg = f"ax: one Axes cannot hold a grid of {n_shown} features; leave ax out, or give two features."
        raise InvalidParameterError(msg)
    if n_shown > 2:
        figure = draw_pairs(view)
        draw_legend(figure, view, loc="upper right", frameon=False)
    else:
        figure = new_figure(8.6, 5.0) if ax is None else ax.figure
        target = figure.add_subplot() if ax is None else ax
        (draw_line if n_shown == 1 else draw_plane)(target, view)
        target.set_title(view.title, loc="left", fontsize=10)
        if ax is None:  # beside the data, which may be anywhere
            draw_legend(figure, view, loc="outside right upper", frameon=False)
        else:
            draw_legend(ax, view, loc="best")
    if path is not None:
        with replacing(path) as file:
            figure.savefig(file, format=file_format, dpi=150)
    drawn: Figure = figure
    return drawn


def plot_format(path: str | os.PathLike[str]) -> str:
    """Return the picture format a file name asks for.

    Parameters
    ----------
    path : str or os.PathLike
        A file name with an extension.

    Returns
    -------
    str
        One of matplotlib's formats, such as "png".

    Raises
    ------
    InvalidDataError
        If matplotlib is missing.
    InvalidParameterError
        If matplotlib does not write such files; the message lists those it does.
    """
    known = sorted(new_figure(1, 1).canvas.get_supported_filetypes())
    extension = Path(path).suffix.lower().removeprefix(".")
    if extension not in known:
        msg = f"path: cannot draw into '{os.fspath(path)}'; expected a name that ends in one of .{', .'.join(known)}."
        raise InvalidParameterError(msg)
    return extension
