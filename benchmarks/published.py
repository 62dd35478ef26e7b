"""Published tables that fit a small machine, run again with this library: the same shapes, iterations and precision.

    python -m benchmarks.published                # writes benchmarks/figures/published.json

The published seconds stand beside ours with their source and hardware; they were not measured here. Data are drawn by
`data.build`, the start is given, the number of iterations is fixed (tolerance 0), and the time is that of `fit` as a
user calls it. A table whose hardware is not ours says how two machines with their programs compare, not two programs:
for that there is `compare`.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import dataclass
from typing import Any

from benchmarks.data import SMALL, Case, build
from benchmarks.record import circumstances, save

PYCAVE = "PyCave's table, which TorchGMM's documentation repeats; Xeon E5-2630 v4, 4 cores, and a GTX 1080 Ti; float32"
GMMX = "gmmx's plots (read off, divided by their 10 repetitions); Xeon Gold 6338, 32 cores, and an L40S; float64"
BUCK = "NVIDIA and Buck, 2009, one iteration; Quadro FX 5800; about 43 s in naive C on one core"


@dataclass(frozen=True)
class Row:
    """One row of a published table."""

    source: str
    case: Case
    iterations: int
    dtype: str
    seconds: tuple[tuple[str, float], ...]  # who, published seconds of the whole run
    reg_covar: float = 0.0


def _pycave(kind: str, n: int, d: int, k: int, **seconds: float) -> Row:
    return Row(PYCAVE, Case(n, d, k, kind), 100, "float32", tuple(seconds.items()), 1e-3)


def _gmmx(n: int, d: int, k: int, **seconds: float) -> Row:
    return Row(GMMX, Case(n, d, k), 20, "float64", tuple(seconds.items()))


TABLE = (
    _pycave("diag", 10_000, 8, 4, sklearn=0.352, cpu=0.649, gpu=0.358),
    _pycave("diag", 100_000, 32, 16, sklearn=18.4, cpu=4.3, gpu=0.527),
    _pycave("diag", 1_000_000, 64, 64, sklearn=730, cpu=196, gpu=7.7),
    _pycave("tied", 10_000, 8, 4, sklearn=0.699, cpu=0.570, gpu=0.356),
    _pycave("tied", 100_000, 32, 16, sklearn=72.2, cpu=12.1, gpu=0.919),
    _pycave("tied", 1_000_000, 64, 64, gpu=63.4),
    _pycave("full", 10_000, 8, 4, sklearn=1.1, cpu=0.679, gpu=0.648),
    _pycave("full", 100_000, 32, 16, sklearn=110, cpu=13.5, gpu=2.4),
    _gmmx(65_536, 32, 2, sklearn=2.9, cpu=0.19, gpu=0.37),
    _gmmx(65_536, 32, 32, sklearn=18, cpu=2.9, gpu=0.48),
    _gmmx(65_536, 32, 64, sklearn=31, cpu=6.2, gpu=0.60),
    _gmmx(8_192, 32, 64, sklearn=3.4, cpu=0.85, gpu=0.12),
    _gmmx(65_536, 2, 64, sklearn=7.5, cpu=1.4, gpu=0.37),
    Row(BUCK, Case(230_000, 32, 32), 1, "float32", (("gpu", 0.264),)),
)


def fit(row: Row, iterations: int, rows: int | None = None) -> float:
    """Return the seconds of a fit."""
    from fastgmm import GaussianMixture

    problem = build(row.case, row.dtype)
    model = GaussianMixture(
        row.case.k,
        covariance_type=row.case.covariance_type,
        weights_init=problem.weights,
        means_init=problem.means,
        precisions_init=problem.precisions,
        tol=0.0,
        reg_covar=row.reg_covar,
        max_iter=iterations,
    )
    start = time.perf_counter()
    model.fit(problem.X[:rows])
    seconds = time.perf_counter() - start
    if model.n_iter_ != iterations:
        msg = f"{model.n_iter_} iterations instead of {iterations}"
        raise RuntimeError(msg)
    return seconds


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.published", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--longest", type=float, default=float("inf"), help="leave out rows of more operations, in 1e12"
    )
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")  # a fixed number of iterations never converges
    figures: list[dict[str, Any]] = []
    for row in TABLE:
        if SMALL or row.case.flops * row.iterations > options.longest * 1e12:
            continue
        fit(row, 1, 20_000)  # compiles, starts the threads
        seconds = min(fit(row, row.iterations) for _ in range(3 if row.case.flops * row.iterations < 1e11 else 1))
        published = ", ".join(f"{who} {value:g} s" for who, value in row.seconds)
        print(f"{row.case.name:22} {row.dtype} {row.iterations:3} iterations {seconds:8.3f} s; {published}", flush=True)
        figures.append(
            {
                "source": row.source,
                "case": row.case.name,
                "iterations": row.iterations,
                "dtype": row.dtype,
                "published": dict(row.seconds),
                "seconds": seconds,
                "gflops": row.case.flops * row.iterations / seconds / 1e9,
            }
        )
    if figures:
        save("published", {"rows": figures, "where": circumstances()})


if __name__ == "__main__":
    main()
