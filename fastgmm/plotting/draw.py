"""How a `View` is drawn: lines for one feature, ellipses and contours for two, a grid of pairs for more."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fastgmm.errors import InvalidDataError
from fastgmm.plotting.view import View, contour_levels, limits_of, log_densities
from fastgmm.typing import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6a3d9a", "#8c6d31")
"""Told apart with any colour vision (after Okabe and Ito, without their yellow, which vanishes on white)."""

ELLIPSE_MASS: Final = (0.5, 0.95)
"""Share of a component that its two ellipses enclose."""

CONTOUR_MASS: Final = (0.99, 0.95, 0.75, 0.5, 0.25)
"""Share of the whole mixture that the contours enclose, from the outermost."""

GRID: Final = 240  # points along each axis at which the density is drawn; finer than a screen resolves
MOST_NAMED: Final = 10  # components up to which a legend helps
GREY: Final = "#404040"


def new_figure(width: float, height: float) -> Figure:
    """Make a figure of this size in inches, or say how to install matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        msg = "drawing needs matplotlib, which is not installed; run: pip install 'fastgmm[plot]'."
        raise InvalidDataError(msg) from error
    return Figure(figsize=(width, height), layout="constrained")


def draw_line(ax: Axes, view: View, *, decorate: bool = True) -> None:
    """Draw one feature: histogram, components, density."""
    low, high = limits_of(view, 0)
    grid = np.linspace(low, high, 4 * GRID)
    parts = np.exp(log_densities(view, grid[:, None]))
    if view.x is not None:
        ax.hist(view.x[:, 0], bins=_n_bins(view.x), density=True, color="#d9d9d9", edgecolor="white", linewidth=0.5)
    for k in view.shown:
        ax.fill_between(grid, parts[:, k], color=_color(view, k), alpha=0.25, linewidth=0)
        ax.plot(grid, parts[:, k], color=_color(view, k), linewidth=1.3)
    ax.plot(grid, parts.sum(axis=1), color=GREY, linewidth=1.6)
    ax.set_xlim(low, high)
    ax.set_ylim(bottom=0)
    if decorate:
        ax.set_xlabel(view.names[0])
        ax.set_ylabel("density")
    _tidy(ax)


def draw_plane(ax: Axes, view: View, *, decorate: bool = True) -> None:
    """Draw two features: rows, contours of the density, ellipses of the components."""
    limits = [limits_of(view, 0), limits_of(view, 1)]
    if view.x is not None and view.component is not None:
        n_rows = len(view.x)
        size, alpha = (14.0, 0.75) if n_rows <= 1000 else (7.0, 0.5) if n_rows <= 4000 else (3.0, 0.4)
        colors = np.array([_color(view, k) for k in range(len(view.weights))])
        ax.scatter(
            view.x[:, 0], view.x[:, 1], s=size, c=colors[view.component], alpha=alpha, linewidths=0, rasterized=True
        )
    axes = [np.linspace(low, high, GRID) for low, high in limits]
    points = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    density = np.exp(log_densities(view, points)).sum(axis=1).reshape(GRID, GRID)
    levels = contour_levels(density, CONTOUR_MASS)
    if len(levels):
        shades = [str(0.97 - 0.05 * i) for i in range(len(levels))]  # greys: colour belongs to the components
        ax.contourf(*axes, density, levels=[*levels, np.inf], colors=shades, zorder=-2)
        ax.contour(*axes, density, levels=levels, colors=GREY, linewidths=0.5, alpha=0.5, zorder=-1)
    for k in view.shown:
        _draw_ellipses(ax, view, k)
    if decorate:
        _draw_numbers(ax, view)
        ax.set_xlabel(view.names[0])
        ax.set_ylabel(view.names[1])
    ax.set_xlim(*limits[0])
    ax.set_ylim(*limits[1])
    _tidy(ax)


def _draw_ellipses(ax: Axes, view: View, k: int) -> None:
    """Draw the ellipses that enclose given shares of component `k`."""
    from matplotlib.patches import Ellipse

    values, vectors = np.linalg.eigh(view.covariances[k])
    values = np.maximum(values, 0.0)
    angle = math.degrees(math.atan2(vectors[1, 1], vectors[0, 1]))
    for mass, width, style in zip(ELLIPSE_MASS, (1.2, 1.8), ("--", "-"), strict=True):
        radius = math.sqrt(-2.0 * math.log1p(-mass))  # of chi-squared with two degrees of freedom
        long, short = 2.0 * radius * np.sqrt(values[[1, 0]])
        center = (float(view.means[k, 0]), float(view.means[k, 1]))
        line = {"edgecolor": _color(view, k), "linewidth": width, "linestyle": style}
        ax.add_patch(Ellipse(center, long, short, angle=angle, fill=False, **line))


def _draw_numbers(ax: Axes, view: View) -> None:
    """Write each component's number at its mean, legible on any ground."""
    if len(view.shown) > MOST_NAMED:
        return
    from matplotlib.patheffects import withStroke

    for k in view.shown:
        x, y = map(float, view.means[k])
        text = ax.text(x, y, str(k), color=_color(view, k), ha="center", va="center", fontweight="bold")
        text.set_path_effects([withStroke(linewidth=3, foreground="white")])


def draw_pairs(view: View) -> Figure:
    """Draw three or more features: each pair below the diagonal, each feature on it."""
    n_shown = len(view.names)
    figure = new_figure(2.1 * n_shown + 1.0, 2.1 * n_shown + 0.4)
    axes = figure.subplots(n_shown, n_shown, squeeze=False)
    for i in range(n_shown):
        for j in range(n_shown):
            ax = axes[i, j]
            if j > i:
                ax.remove()
                continue
            if i == j:
                draw_line(ax, view.pick([i]), decorate=False)
                ax.set_yticks([])
            else:
                draw_plane(ax, view.pick([j, i]), decorate=False)
            if i == n_shown - 1:
                ax.set_xlabel(view.names[j])
            else:
                ax.tick_params(labelbottom=False)
            if j == 0 and i > 0:
                ax.set_ylabel(view.names[i])
            elif j > 0:
                ax.tick_params(labelleft=False)
    figure.align_labels()
    figure.suptitle(view.title, fontsize=11, x=0.02, ha="left")
    return figure


def draw_legend(target: Any, view: View, **options: Any) -> None:
    """List the components with their weights, and what the lines mean; `target` is an Axes or a Figure."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    if len(view.shown) <= MOST_NAMED:
        for k in sorted(view.shown):
            label = f"component {k}, weight {view.weights[k]:.3f}"
            handles.append(Line2D([], [], color=_color(view, k), linewidth=1.8, label=label))
    if len(view.names) > 1:
        for mass, style in zip(ELLIPSE_MASS, ("--", "-"), strict=True):
            label = f"{100 * mass:g} % of a component"
            handles.append(Line2D([], [], color="black", linewidth=1.2, linestyle=style, label=label))
        masses = ", ".join(f"{100 * mass:g}" for mass in reversed(CONTOUR_MASS))
        handles.append(Patch(facecolor="0.85", edgecolor=GREY, linewidth=0.5, label=f"{masses} % of the mixture"))
    else:
        handles.append(Line2D([], [], color=GREY, linewidth=1.6, label="density of the mixture"))
    target.legend(handles=handles, fontsize=8, **options)


def _color(view: View, k: int) -> Any:
    """Colour of component `k`: red, green, blue, alpha."""
    import matplotlib
    from matplotlib.colors import to_rgba

    n_components = len(view.weights)
    return (
        to_rgba(PALETTE[k]) if n_components <= len(PALETTE) else matplotlib.colormaps["turbo"]((k + 0.5) / n_components)
    )


def _n_bins(x: FloatArray) -> int:
    """Number of bars by the rule of Freedman and Diaconis, within what a reader can use."""
    low, first, third, high = np.quantile(x, [0.0, 0.25, 0.75, 1.0])
    width = 2.0 * (third - first) / len(x) ** (1.0 / 3.0)
    return int(np.clip((high - low) / width, 10, 100)) if width > 0.0 else 20


def _tidy(ax: Axes) -> None:
    """Remove the frame's upper and right side, which carry nothing."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=9)
