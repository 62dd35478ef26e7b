"""Do mini-batch passes before a fit pay? Time until the log-likelihood is as near to its final value as one likes.

    python -m benchmarks.online                   # both problems
    python -m benchmarks.online --decays 0.55 0.6 0.7 1
    python -m benchmarks.online --problems separated --rows 5000000

A problem is fitted with and without ``first_passes=MiniBatch()`` from the same start (k-means), until the gain of an
iteration is below 1e-10 nats a row. The clock starts with `fit`, so it includes the start and the mini-batch passes.
The final value is the best of these fits'; where they end in different optima, the table shows it. "1e-6" is the first
iteration, and its time, whose log-likelihood lies within 1e-6 of the final one, relative.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import replace

from benchmarks.data import SMALL, Case, build

PROBLEMS = {
    "overlapping": Case(1_000_000, 8, 16, distance=5.0, difference=0.3),
    "separated": Case(1_000_000, 8, 16, kind="separated", distance=12.0, difference=0.3),
}
CLOSE = (1e-4, 1e-5, 1e-6)


def trace(problem, schedule, max_iter: int, decay: float = 0.6) -> tuple[list[tuple[float, float]], float, int]:
    """Fit; return (seconds since the call, log-likelihood) after each iteration, the same for the start, iterations."""
    import fastgmm

    seen: list[tuple[float, float]] = []
    model = fastgmm.GaussianMixture(
        problem.case.k,
        covariance_type=problem.case.covariance_type,
        tol=1e-10,
        max_iter=max_iter,
        random_state=0,
        first_passes=schedule,
        learning_decay=decay,
    )
    begin = time.perf_counter()
    model.fit(problem.X, callback=lambda info: seen.append((time.perf_counter() - begin, info.log_likelihood)))
    return seen, model.result_.initial_log_likelihood, model.n_iter_


def main() -> None:
    """Print the table."""
    from fastgmm import MiniBatch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=tuple(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--rows", type=int)
    parser.add_argument("--max-iter", type=int, default=300)
    parser.add_argument("--passes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--decays", type=float, nargs="+", help="only compare starts after two passes with these steps")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.decays:
        for name in args.problems:
            problem = build(replace(PROBLEMS[name], n=args.rows or PROBLEMS[name].n))
            starts = {decay: trace(problem, MiniBatch(2), 1, decay)[1] / problem.case.n for decay in args.decays}
            print(name, ", ".join(f"{decay:g}: {start:.4f}" for decay, start in starts.items()), flush=True)
        return
    heads = "".join(f"{f'to {close:g}: iteration, s':>26}" for close in CLOSE)
    print(f"{'problem':12} {'passes':>6} {'start, nats/row':>15} {'end, nats/row':>14}{heads}")
    for name in args.problems:
        case = PROBLEMS[name]
        case = case.small() if SMALL else replace(case, n=args.rows or case.n)
        problem = build(case)
        trace(problem, MiniBatch(1), 1)  # compiles, starts the threads
        fits = {n: trace(problem, MiniBatch(n) if n else None, args.max_iter) for n in (0, *args.passes)}
        best = max(seen[-1][1] for seen, _, _ in fits.values())
        for n, (seen, start, _) in fits.items():
            cells = "".join(f"{reached(seen, best, close):>26}" for close in CLOSE)
            print(f"{name:12} {n:6} {start / case.n:15.6f} {seen[-1][1] / case.n:14.8f}{cells}", flush=True)


def reached(seen: list[tuple[float, float]], best: float, close: float) -> str:
    """Say in which iteration and when the log-likelihood came so close to `best`."""
    first = next((i for i, (_, value) in enumerate(seen) if abs(value - best) <= close * abs(best)), None)
    return f"never of {len(seen)}" if first is None else f"{first + 1}, {seen[first][0]:.2f}"


if __name__ == "__main__":
    main()
