"""Cost as N and K grow: time per row and component, which should not depend on either.

    python -m benchmarks.growth                   # writes benchmarks/figures/growth.json and docs/images/growth.png

One pass of a fit with full covariances, all cores, for N from 1e4 to 1e7 at K = 16 and for K from 2 to 256 at 1e5 rows.
Sizes are measured in turn, several rounds, smallest first, and each is given as the median of its rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np

from benchmarks.data import SMALL, Case, build
from benchmarks.kernels import bind
from benchmarks.record import FIGURES, HERE, circumstances, folder, load, save

D = 8
ROWS = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
COMPONENTS = (2, 4, 8, 16, 32, 64, 128, 256)
AT = {"N": 100_000, "K": 16}  # the other size, while one grows
IMAGES = HERE.parent / "docs" / "images"


def passes(case: Case, X: np.ndarray):
    """Return a function that runs one pass over so many rows of X."""
    from fastgmm.data import as_rows
    from fastgmm.passes import Accumulator

    _, density, scatter = bind(build(case))
    accumulate = Accumulator(as_rows(X), scatter)
    return lambda: accumulate(density)


def nanoseconds(calls: dict[int, Any], pairs: dict[int, int], rounds: int) -> dict[str, list[float]]:
    """Return for each size the nanoseconds a row and component, one a round."""
    out: dict[str, list[float]] = {str(size): [] for size in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for size, call in calls.items():
            repeat = max(1, int(3e7 / pairs[size]))  # so that a short pass is measured for some 10 ms too
            times = []
            for _ in range(repeat):
                start = time.perf_counter()
                call()
                times.append(time.perf_counter() - start)
            out[str(size)].append(1e9 * statistics.median(times) / pairs[size])
    return out


def measure(rounds: int) -> dict[str, Any]:
    """Return nanoseconds per row and component as N grows and as K grows."""
    largest = ROWS[3] if SMALL else ROWS[-1]
    base = Case(AT["N"], D, AT["K"])
    X = np.tile(build(base).X, (-(-largest // base.n), 1))  # the same rows again and again: overlap does not change
    sizes = [n for n in ROWS if n <= largest]
    by_rows = nanoseconds({n: passes(base, X[:n]) for n in sizes}, {n: n * base.k for n in sizes}, rounds)
    cases = {k: Case(AT["N"], D, k) for k in COMPONENTS}
    calls = {k: passes(case, build(case).X) for k, case in cases.items()}
    return {"N": by_rows, "K": nanoseconds(calls, {k: case.n * k for k, case in cases.items()}, rounds)}


def spread(series: dict[str, list[float]]) -> dict[str, float]:
    """Return each size's median over the median of all sizes, minus one."""
    medians = {size: statistics.median(values) for size, values in series.items()}
    middle = statistics.median(medians.values())
    return {size: value / middle - 1 for size, value in medians.items()}


def off_line(series: dict[str, list[float]]) -> dict[str, float]:
    """Return each size's relative distance from the straight line, cost = a + b size, that fits all sizes best."""
    size = np.array([float(s) for s in series])
    cost = size * np.array([statistics.median(values) for values in series.values()])
    basis = np.stack([np.ones_like(size), size], axis=1) / cost[:, None]  # relative: every size counts alike
    (a, b), *_ = np.linalg.lstsq(basis, np.ones_like(size), rcond=None)
    return dict(zip(series, (cost / (a + b * size) - 1).tolist(), strict=True))


def plot(figures: dict[str, Any]) -> None:
    """Draw both series with a band of 10 % about the median."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis, (what, other) in zip(axes, (("N", "K"), ("K", "N")), strict=True):
        sizes = [int(size) for size in figures[what]]
        medians = [statistics.median(values) for values in figures[what].values()]
        low, high = np.percentile(list(figures[what].values()), [25, 75], axis=1)
        middle = statistics.median(medians)
        axis.axhspan(0.9 * middle, 1.1 * middle, color="0.9", label="median of the sizes, 10 % up and down")
        axis.vlines(sizes, low, high, color="C0", lw=1, label="quartiles of the rounds")
        axis.plot(sizes, medians, "o-", color="C0", label="median of the rounds")
        axis.set(
            xscale="log",
            xlabel={"N": "rows N", "K": "components K"}[what],
            ylabel="ns per row and component",
            ylim=(0, 1.4 * max(*high, 1.1 * middle)),
            title=f"{other} = {AT[other]:,}, D = {D}, full covariances",
        )
        if what == "K":
            axis.set_xscale("log", base=2)
            axis.set_xticks(sizes, [str(k) for k in sizes])
    axes[0].legend(loc="upper right", fontsize="small")
    IMAGES.mkdir(exist_ok=True)
    fig.savefig(IMAGES / ("growth.png" if folder() == FIGURES else f"growth-{folder().name}.png"), dpi=110)
    plt.close(fig)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--plot-only", action="store_true", help="draw what was measured before")
    options = parser.parse_args(arguments)
    figures = load("growth") if options.plot_only else {**measure(options.rounds), "where": circumstances()}
    for what in ("N", "K"):
        line = off_line(figures[what])
        for size, deviation in spread(figures[what]).items():
            median = statistics.median(figures[what][size])
            print(
                f"{what} {int(size):>10,}: {median:7.3f} ns a row and component, {deviation:+6.1%} off the median, "
                f"{line[size]:+6.1%} off a straight line"
            )
    if not SMALL:
        save("growth", figures)
        plot(figures)


if __name__ == "__main__":
    main()
