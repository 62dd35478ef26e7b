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


@dataclass(frozen=True)
class Figures:
    """What was measured; times in seconds, sizes in bytes."""

    rows_per_second: float = 4.5e6  # of a core; K = 32, D = 16, full, float64, clusters that overlap little
    work: float = 66e3  # parameters of a pass, packed
    sums: float = 54e3  # one node of partial sums
    nodes: float = 10.0  # nodes that a slab sends
    m_step: float = 3.3e-4
    merge: float = 1.6e-5  # of two nodes
    latency: float = 9e-3  # of a task that does nothing, from submit to result
    task: float = 1.5e-3  # of each further task, in the scheduler
    bandwidth: float = 1e9  # of the scheduler and the caller, bytes a second
    hop: float = 1e-4  # of an MPI message between two hosts (assumed)


def dask_seconds(n_rows: float, workers: int, threads: int, f: Figures, slabs: int = SLABS) -> dict[str, float]:
    """Parts of the time of an iteration with one worker process of so many threads a machine."""
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
    for rows, workers, threads, slabs in (
        (4e6, 1, 1, 3),
        (5e6, 2, 1, 3),
        (1e9, 100, 64, 3),
        (1e9, 100, 64, 1),
        (1e12, 10_000, 64, 3),
        (1e12, 10_000, 64, 1),
    ):
        parts = dask_seconds(rows, workers, threads, f, slabs)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in parts.items())
        print(f"{rows:.0e} rows, {workers} x {threads}, {slabs} slabs: {sum(parts.values()):.4g} s ({shown})")
    for rows, workers in ((1e9, 100), (1e12, 10_000)):
        print(f"MPI, {rows:.0e} rows on {workers}: {sum(mpi_seconds(rows, workers, 64, f).values()):.4g} s")
    draw(args.out, f)


def draw(out: Path, f: Figures) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    counts = [int(10 ** (i / 10)) for i in range(41)]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for axis, rows, title in ((axes[0], 1e9, "1e9 rows"), (axes[1], 1e12, "1e12 rows")):
        compute = [dask_seconds(rows, n, 64, f)["rows"] for n in counts]
        axis.loglog(counts, compute, "k:", label="rows alone")
        for slabs, style in ((3, "C0-"), (1, "C1-")):
            times = [sum(dask_seconds(rows, n, 64, f, slabs).values()) for n in counts]
            axis.loglog(counts, times, style, label=f"Dask, {slabs} slab{'s' * (slabs > 1)} a machine")
        axis.loglog(counts, [sum(mpi_seconds(rows, n, 64, f).values()) for n in counts], "C2--", label="MPI tree")
        axis.set(title=title, xlabel="machines of 64 cores")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("seconds an iteration")
    axes[1].legend(frameon=False)
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    main()
