"""Time of an EM iteration on a cluster, from figures measured on one machine; draws docs/images/scaling.png.

    python benchmarks/scaling.py [--out docs/images/scaling.png]

The figures come from `benchmarks/cluster.py`; docs/scaling.md explains the model and says what it is good for.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

SLABS = 3  # slabs for each worker
ARITY = 8
FAN = 8  # workers that one process speaks to: fastgmm.dask.calls.FAN


@dataclass(frozen=True)
class Figures:
    """What was measured; times in seconds, sizes in bytes."""

    rows_per_second: float = 4.5e6  # of a core; K = 32, D = 16, full, float64, clusters that overlap little
    work: float = 66e3  # parameters of a pass, packed
    sums: float = 54e3  # one node of partial sums
    nodes: float = 10.0  # nodes that a slab sends
    m_step: float = 3.3e-4
    merge: float = 1.6e-5  # of two nodes
    answer: float = 3.5e-3  # a pass by messages on one or two workers, beyond its computing
    call: float = 1.2e-3  # each further worker that one process asks; upper bound, from four workers on two cores
    there_and_back: float = 0.7e-3  # an empty message to a worker and its answer
    latency: float = 9e-3  # of a task that does nothing, from submit to result
    task: float = 1.5e-3  # of each further task, in the scheduler
    bandwidth: float = 1e9  # of the scheduler and the caller, bytes a second
    hop: float = 1e-4  # of an MPI message between two hosts (assumed)


def direct_seconds(n_rows: float, workers: int, threads: int, f: Figures, fan: int = FAN) -> dict[str, float]:
    """Parts of the time of an iteration by messages: a tree of workers, of which each asks at most `fan` others."""
    asked, left = [], workers
    while left > 0:
        asked.append(min(left, fan))
        left = math.ceil(left / fan) - 1
    calls = sum(asked)  # one after the other, along the longest path
    return {
        "rows": n_rows / (workers * threads * f.rows_per_second),
        "messages": f.answer + f.call * max(calls - 2, 0) + f.there_and_back * (len(asked) - 1),
        "traffic": calls * (f.work + f.sums * f.nodes) / f.bandwidth,
        "merges": f.merge * f.nodes * calls,
        "M-step": f.m_step,
    }


def dask_seconds(n_rows: float, workers: int, threads: int, f: Figures, slabs: int = SLABS) -> dict[str, float]:
    """Parts of the time of an iteration by tasks, with one worker process of so many threads a machine."""
    tasks = slabs * workers
    level, merges, depth = tasks, 0, 0
    while level > ARITY:
        level = math.ceil(level / ARITY)
        merges += level
        depth += 1
    return {
        "rows": n_rows / (workers * threads * f.rows_per_second),
        "scheduler": f.latency * (1 + depth / 2) + f.task * (tasks + merges),
        "traffic": (f.work * tasks + f.sums * f.nodes * level) / f.bandwidth,
        "merges": f.merge * f.nodes * ARITY * (depth + 1),
        "M-step": f.m_step,
    }


def mpi_seconds(n_rows: float, workers: int, threads: int, f: Figures) -> dict[str, float]:
    """The same with an ordered tree of messages instead of a scheduler (not built)."""
    depth = math.ceil(math.log2(max(workers, 2)))
    size = f.sums * f.nodes + f.work
    return {
        "rows": n_rows / (workers * threads * f.rows_per_second),
        "tree": depth * (f.hop + size / (10 * f.bandwidth) + f.merge * f.nodes),
        "M-step": f.m_step,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/images/scaling.png"))
    args = parser.parse_args()
    f = Figures()
    for rows, workers, threads in (
        (4e6, 1, 1),
        (4e6, 2, 1),
        (5e6, 2, 1),
        (1e9, 100, 64),
        (1e12, 10_000, 64),
    ):
        for name, seconds in (("messages", direct_seconds), ("tasks", dask_seconds), ("MPI", mpi_seconds)):
            parts = seconds(rows, workers, threads, f)
            shown = ", ".join(f"{part} {value:.4g}" for part, value in parts.items())
            print(f"{rows:.0e} rows, {workers} x {threads}, {name}: {sum(parts.values()):.4g} s ({shown})")
    for rows in (1e9, 1e12):
        for name, seconds in (("messages", direct_seconds), ("tasks", dask_seconds)):
            best = min(COUNTS, key=lambda n: sum(seconds(rows, n, 64, f).values()))
            print(f"{rows:.0e} rows, {name}: fastest on {best}, {sum(seconds(rows, best, 64, f).values()):.3g} s")
    draw(args.out, f)


COUNTS = [int(10 ** (i / 10)) for i in range(41)]


def draw(out: Path, f: Figures) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    counts = COUNTS
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for axis, rows, title in ((axes[0], 1e9, "1e9 rows"), (axes[1], 1e12, "1e12 rows")):
        compute = [dask_seconds(rows, n, 64, f)["rows"] for n in counts]
        axis.loglog(counts, compute, "k:", label="rows alone")
        times = [sum(direct_seconds(rows, n, 64, f).values()) for n in counts]
        axis.loglog(counts, times, "C0-", label="Dask, by messages")
        times = [sum(dask_seconds(rows, n, 64, f).values()) for n in counts]
        axis.loglog(counts, times, "C1-", label="Dask, by tasks")
        axis.loglog(counts, [sum(mpi_seconds(rows, n, 64, f).values()) for n in counts], "C2--", label="MPI tree")
        axis.set(title=title, xlabel="machines of 64 cores")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("seconds an iteration")
    axes[1].legend(frameon=False)
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    main()
