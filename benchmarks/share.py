"""Useful operations as a share of what the machine's multiply-add units can do, found in the same run.

    python -m benchmarks.share                    # every case, both dtypes; writes benchmarks/figures/share.json

One row is one problem in one dtype: a pass of the fit on one and on two threads, in turn with `score_samples`,
`predict` and `predict_proba`. The operations counted are those a fit needs (`Case.flops`), whatever it does: where
components are separated a pass may leave some out, so these shapes are measured again with components on top of one
another ("dense"), where nothing can be left out. The limit is the loop of `peak`, run before and after each row.
Density operations are half of a fit's (tied covariances: 2/3 at D=32, K=16).
"""

from __future__ import annotations

import argparse
import os
import statistics
from dataclasses import replace
from typing import Any

from benchmarks.clock import alternate, ratio
from benchmarks.data import CASES, SMALL, Case, build, by_name
from benchmarks.kernels import bind
from benchmarks.peak import peak
from benchmarks.record import circumstances, load, save

WARM = 0.03  # seconds of short passes before the one that is timed: in a fit, too, one follows another
DENSE = {"kind": "overlapping", "distance": 2.0, "difference": 0.01}


def problems() -> list[tuple[str, Case]]:
    """Return every case, and a dense one for each that is not."""
    out = []
    for case in CASES:
        if case.kind in {"overlapping", "ubm"}:
            out.append((case.name, by_name(case.name)))
        else:
            out.append((f"{case.name} dense", replace(by_name(case.name), **DENSE)))
            out.append((f"{case.name} {case.kind}", by_name(case.name)))
    return out


def measure(case: Case, dtype: str, threads: int, seconds: float) -> dict[str, Any]:
    """Return the row of one problem."""
    from fastgmm import passes

    rows, density, scatter = bind(build(case, dtype))
    several = passes.Accumulator(rows, scatter, n_threads=threads)
    single = passes.Accumulator(rows, scatter, n_threads=1)
    calls = {
        "pass": lambda: several(density),
        "one": lambda: single(density),
        "score_samples": lambda: passes.score_samples(rows, density),
        "predict": lambda: passes.predict(rows, density),
        "predict_proba": lambda: passes.predict_proba(rows, density),
    }

    def limits() -> tuple[float, float]:
        return peak(dtype, 1, seconds=0.05, rounds=3), peak(dtype, threads, seconds=0.05, rounds=3)

    before = limits()
    times = alternate(calls, seconds, warm=WARM)
    one, many = (max(pair) for pair in zip(before, limits(), strict=True))
    part = case.density_flops / case.flops
    median = {name: statistics.median(values) for name, values in times.items()}
    rate = {name: case.flops / median[name] / 1e9 for name in ("pass", "one")}
    return {
        "repetitions": len(times["pass"]),
        "ms": {name: 1e3 * value for name, value in median.items()},
        "gflops": rate,
        "peak": {"one": one, "pass": many},
        "share": {"one": rate["one"] / one, "pass": rate["pass"] / many},
        "scaling": ratio(times, "one", "pass"),
        "pairs_per_second": case.n * case.k / median["one"],
        # so many of the operations in this share of the pass's time
        "density": {name: part * ratio(times, "pass", name) for name in ("score_samples", "predict", "predict_proba")},
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.share", description=__doc__.split("\n")[0])
    parser.add_argument("--cases", help="comma-separated: only problems whose name begins so")
    parser.add_argument("--dtypes", default="float64,float32")
    parser.add_argument("--seconds", type=float, default=1.5, help="for a row's repetitions (default: %(default)s)")
    options = parser.parse_args(arguments)
    threads = min(2, os.cpu_count() or 1)
    figures = load("share") or {}
    head = f"{'problem':34} {'dtype':8} {'ms':>9} {'GFLOP/s':>8} {'1 thread':>8} {'2':>6} {'2 over 1':>8}"
    print(f"{head} {'score':>6} {'label':>6} {'proba':>6}  repetitions")
    for name, case in problems():
        if options.cases and not name.startswith(tuple(options.cases.split(","))):
            continue
        for dtype in options.dtypes.split(","):
            row = measure(case, dtype, threads, options.seconds)
            density = " ".join(f"{value:6.1%}" for value in row["density"].values())
            print(
                f"{name:34} {dtype:8} {row['ms']['pass']:9.2f} {row['gflops']['pass']:8.1f} {row['share']['one']:8.1%} "
                f"{row['share']['pass']:6.1%} {row['scaling']:8.2f} {density}  {row['repetitions']}",
                flush=True,
            )
            figures.setdefault(name, {})[dtype] = row
            figures[name]["where"] = circumstances(threads=threads)
            if not SMALL:
                save("share", figures)


if __name__ == "__main__":
    main()
