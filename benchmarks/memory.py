"""Peak memory of a fit beyond the data, in a process of its own, against the bound that the documentation states.

The growth is the peak of the resident set during a fit minus the resident set before it, with kernels loaded (a short
fit runs first). ``python -m benchmarks.memory`` checks every case and ends with status 1 if one is above the bound.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

from benchmarks.data import CASES, SMALL, Case, build, by_name
from benchmarks.record import circumstances, save

TOP = Path(__file__).parents[1]


def bound(case: Case, threads: int) -> float:
    """Return the stated bound in bytes."""
    return 64e6 + 8.0 * threads * case.k * case.d**2


def resident() -> int:
    """Return the resident set of this process in bytes."""
    return _status("VmRSS")


def reset_peak() -> None:
    """Make the peak of the resident set start again at its present value."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_resident() -> int:
    """Return the peak of the resident set since `reset_peak`, in bytes."""
    return _status("VmHWM")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    msg = f"/proc/self/status has no {field}"
    raise OSError(msg)


def growth_here(case: Case, dtype: str, iterations: int = 2) -> int:
    """Fit in this process and return by how many bytes its resident set grew at most."""
    import fastgmm

    problem = build(case, dtype)
    warnings.simplefilter("ignore")  # tol=0 never converges

    def fit(X) -> None:
        fastgmm.GaussianMixture(
            case.k,
            covariance_type=case.covariance_type,
            weights_init=problem.weights,
            means_init=problem.means,
            precisions_init=problem.precisions,
            tol=0.0,
            reg_covar=1e-6,
            max_iter=iterations,
        ).fit(X)

    fit(problem.X[: 4 * case.k + 100])
    before = resident()
    reset_peak()
    fit(problem.X)
    return peak_resident() - before


def growth(name: str, dtype: str = "float64", threads: int | None = None) -> int:
    """Return the growth in bytes of a fit of the named case in a new process."""
    env = dict(os.environ)
    if threads:
        env["NUMBA_NUM_THREADS"] = str(threads)
    # The checkout comes last on the path: an installed fastgmm, as in asv's environments, is the one to measure.
    code = f"""import sys; sys.path.append({str(TOP)!r})
from benchmarks import data, memory; print(memory.growth_here(data.by_name({name!r}), {dtype!r}))"""
    done = subprocess.run([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout)


def main() -> int:
    threads = int(os.environ.get("NUMBA_NUM_THREADS", os.cpu_count() or 1))
    print(f"{'case':24} {'dtype':8} {'X, MB':>8} {'growth, MB':>10} {'bound, MB':>10}")
    above, figures = 0, []
    for name in (c.name for c in CASES):
        case = by_name(name)
        for dtype in ("float64", "float32"):
            bytes_ = growth(name, dtype)
            limit = bound(case, threads)
            above += bytes_ > limit
            size = case.n * case.d * (8 if dtype == "float64" else 4)
            figures.append({"case": case.name, "dtype": dtype, "data": size, "growth": bytes_, "bound": limit})
            mark = "  ABOVE" if bytes_ > limit else ""
            print(
                f"{case.name:24} {dtype:8} {size / 1e6:8.1f} {bytes_ / 1e6:10.1f} {limit / 1e6:10.1f}{mark}", flush=True
            )
    if not SMALL:
        save("memory", {"rows": figures, "where": circumstances(threads=threads)})
    return 1 if above else 0


if __name__ == "__main__":
    raise SystemExit(main())
