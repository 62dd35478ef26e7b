"""This library against others: the same data, the same start, the same number of EM iterations.

    python -m benchmarks.compare --setup                # once: environments of the peers; or --setup tgmm gmmx ...
    python -m benchmarks.compare                        # every case, float64; writes benchmarks/figures
    python -m benchmarks.compare --cases full-1e6-2-8 --dtype float32 --peers scikit-learn,oneDAL --budget 1

What is measured: a whole fit, divided by its iterations, each library in a process of its own, several interleaved
rounds. A ratio is the median over the rounds of (peer's time / our time in the same round), so that a machine that
changes its speed between rounds does not favour anyone. Each result is held against EM in plain NumPy (`oracle`): a
peer that is fast because it did something else shows, and so does one that failed. Losses are printed like wins.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import oracle
from benchmarks.data import ALL, CASES, SMALL, Case, Problem, build, by_name
from benchmarks.peers import ENVIRONMENTS, OURS, PEERS, Worker
from benchmarks.record import circumstances, load, median_ratio, save
from benchmarks.schedule import rounds

if TYPE_CHECKING:
    from benchmarks.peers import Peer

Row = dict[str, Any]

SHORT, LONGER = 4, 12
"""EM iterations of a fit. What a fit does once, before and after them, weighs a third in the longer."""


def stem(dtype: str, iterations: int) -> str:
    """Name of the file of figures: longer fits have files of their own."""
    return f"compare-{dtype}" if iterations <= SHORT else f"compare-longer-{dtype}"


def run_case(case: Case, peers: list[Peer], options: argparse.Namespace, folder: Path) -> dict[str, Row]:
    """Run one case with every peer and return its rows of the table, by the peer's name."""
    problem = build(case, options.dtype)
    arrays = {}
    for field in ("X", "weights", "means", "covariances", "precisions"):
        arrays[field] = str(folder / f"{field}.npy")
        np.save(arrays[field], getattr(problem, field))

    rows: dict[str, Row] = {}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for peer in peers:
            reason = peer.cannot(case.covariance_type, options.dtype)
            if reason:
                rows[peer.name] = {"cannot": reason}
                continue
            worker = stack.enter_context(
                Worker(peer, options.threads, limit=options.limit, memory=options.memory * 1e9)
            )
            row = rows[peer.name] = worker.order("load", arrays=arrays, covariance_type=case.covariance_type)
            row |= {"times": {}, "memory": None, "threads": worker.threads}
            row |= worker.order("warm")
            if "error" not in row:
                workers[peer.name] = worker
        names = [name for name in workers if name == OURS.name] + [name for name in workers if name != OURS.name]
        for round_, name in rounds(names, options.rounds, options.budget * 60):
            out = str(folder / f"{name}.npz") if round_ == 0 else None
            reply = workers[name].order("fit", iterations=options.iterations, out=out)
            row = rows[name]
            if "error" in reply:
                row["error"] = reply["error"]
                names.remove(name)
                continue
            row["times"][str(round_)] = reply["seconds"] / options.iterations
            row["log_likelihood"] = reply.get("log_likelihood")
            if reply["memory"] is not None:
                row["memory"] = max(row["memory"] or 0, reply["memory"])
    if options.check:
        check(problem, peers, rows, options, folder)
    summarise(rows)
    for path in folder.iterdir():
        path.unlink()
    return rows


def summarise(rows: dict[str, Row]) -> None:
    """Add ``seconds``, the median of a row's times, and ``ratio``, the median of its ratios to ours."""
    ours = rows[OURS.name].get("times", {})
    for row in rows.values():
        if row.get("times") and "error" not in row:
            row["seconds"] = statistics.median(row["times"].values())
            row["ratio"] = median_ratio(row["times"], ours) if ours else None


def check(problem: Problem, peers: list[Peer], rows: dict[str, Row], options: argparse.Namespace, folder: Path) -> None:
    """Hold every peer's result against the oracle's; adds ``difference``, ``log_likelihood_error`` and ``same``."""
    reference = oracle.reference(problem, options.iterations, ENVIRONMENTS / "oracle")
    for peer in peers:
        path, row = folder / f"{peer.name}.npz", rows[peer.name]
        if not path.exists():
            continue
        if not peer.given_start:
            row["same"] = None
            continue
        with np.load(path) as fitted:
            theirs = oracle.State(*(fitted[f].astype(float) for f in oracle.State._fields))
        row["difference"] = oracle.difference(theirs, reference.state, problem.case.covariance_type)
        row["tolerance"] = peer.tolerance(options.dtype)
        row["same"] = reference.same(row["difference"], row["tolerance"], options.dtype)
        if row["log_likelihood"] is not None:
            # some libraries report the log-likelihood of the parameters before the last M-step; the table says which
            errors = [abs(row["log_likelihood"] / value - 1.0) for value in reference.history[:-3:-1]]
            row["log_likelihood_of"] = "the result" if errors[0] <= errors[1] else "the iteration before"
            row["log_likelihood_error"] = min(errors)


def show(case: Case, rows: dict[str, Row], peak: float) -> None:
    """Print the rows of one case."""
    for name, row in rows.items():
        head = f"{case.name if name == OURS.name else '':24} {name:28}"
        if "seconds" not in row:
            print(f"{head} {row.get('cannot') or 'failed: ' + row.get('error', 'no round fitted')}", flush=True)
            continue
        rate = case.flops / row["seconds"] / 1e9
        memory = "" if row["memory"] is None else f"{row['memory'] / 1e6:8.0f}"
        same = {True: "", None: "  own start", False: "  DIFFERENT"}[row.get("same", True)]
        if "difference" in row:
            same = f"{row['difference']:10.1e} {row.get('log_likelihood_error', np.nan):10.1e}{same}"
        print(
            f"{head} {row['seconds'] * 1e3:10.2f} {row['ratio'] or np.nan:9.2f} {len(row['times']):2} "
            f"{rate:8.1f} {rate / peak:7.1%} {memory:>8} {same}",
            flush=True,
        )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__.split("\n")[0])
    libraries = sorted({p.library for p in PEERS if p.steps})
    parser.add_argument(
        "--setup", nargs="*", metavar="LIBRARY", help=f"make environments, then stop; all, or of {', '.join(libraries)}"
    )
    parser.add_argument("--cases", help=f"comma-separated, of {', '.join(c.name for c in ALL)}")
    parser.add_argument(
        "--peers", help=f"comma-separated libraries, of {', '.join(dict.fromkeys(p.library for p in PEERS))}"
    )
    parser.add_argument("--dtype", default="float64", choices=("float64", "float32"))
    parser.add_argument(
        "--iterations",
        type=int,
        default=SHORT,
        help="EM iterations of a fit (default: %(default)s; more: another table)",
    )
    parser.add_argument("--rounds", type=int, default=3, help="at most so many rounds (default: %(default)s)")
    parser.add_argument(
        "--budget", type=float, default=np.inf, metavar="MINUTES", help="for the rounds of a case; a slow peer sits out"
    )
    parser.add_argument(
        "--limit", type=float, default=300.0, metavar="SECONDS", help="of one fit (default: %(default)s)"
    )
    parser.add_argument("--memory", type=float, default=10.0, metavar="GB", help="of one peer (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="default: %(default)s")
    parser.add_argument("--no-check", dest="check", action="store_false", help="do not run the oracle")
    parser.add_argument("--dry", action="store_true", help="print only, write no figures")
    options = parser.parse_args(arguments)

    known = {p.library for p in PEERS}
    chosen = set(options.peers.split(",")) if options.peers else known
    if chosen - known:
        parser.error(f"no peer {sorted(chosen - known)}; there are {sorted(known)}")
    if options.setup and set(options.setup) - set(libraries):
        parser.error(f"nothing to set up for {sorted(set(options.setup) - set(libraries))}; there are {libraries}")
    options.peers = [p for p in PEERS if p.library in chosen or p is OURS]
    options.cases = options.cases.split(",") if options.cases else [c.name for c in CASES]
    return options


def setup(libraries: list[str]) -> int:
    """Make environments; returns how many could not be made."""
    failed = 0
    for peer in {p.library: p for p in PEERS if p.steps and (not libraries or p.library in libraries)}.values():
        print(f"{peer.library} ...", flush=True)
        try:
            peer.setup()
        except Exception as error:  # the others can still be compared
            failed += 1
            print(f"{peer.library}: {error}", file=sys.stderr)
    return failed


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.setup is not None:
        return setup(options.setup)
    from benchmarks.peak import peak

    where = circumstances(threads=options.threads, dtype=options.dtype)
    print(", ".join(f"{key} {value}" for key, value in where.items()))
    print(f"one EM iteration: whole fit / {options.iterations}; at most {options.rounds} interleaved rounds")
    print("ratio: peer / fastgmm; params and loglik: largest relative differences from plain NumPy\n")
    titles = f"{'ms':>10} {'ratio':>9} {'n':>2} {'GFLOP/s':>8} {'of peak':>7} {'MB':>8} {'params':>10} {'loglik':>10}"
    print(f"{'case':24} {'library':28} {titles}")
    wrong = False
    for name in options.cases:
        case, limit = by_name(name), peak(options.dtype, options.threads)
        with tempfile.TemporaryDirectory() as folder:
            rows = run_case(case, options.peers, options, Path(folder))
        show(case, rows, limit)
        wrong = wrong or "seconds" not in rows[OURS.name] or rows[OURS.name].get("same") is False
        if not (options.dry or SMALL):
            keep(name, case, rows, {**where, "iterations": options.iterations, "peak_gflops": limit})
    if wrong:
        print("fastgmm's own result is not the oracle's", file=sys.stderr)
    return int(wrong)


def keep(name: str, case: Case, rows: dict[str, Row], where: dict[str, Any]) -> None:
    """Put a case's rows into the figures of its dtype; rows of peers that did not run this time stay, with their date.

    Their ratios stay too: each was taken within a round of its own run.
    """
    file = stem(where["dtype"], where["iterations"])
    figures = load(file) or {}
    entry = figures.setdefault(name, {"n": case.n, "d": case.d, "k": case.k, "flops": case.flops, "rows": {}})
    for peer, row in rows.items():
        before = entry["rows"].get(peer, {})
        if peer == OURS.name and before.get("commit") == where["commit"] and before["iterations"] > where["iterations"]:
            continue  # the pass beyond the iterations weighs less in it
        entry["rows"][peer] = {**row, **{key: where[key] for key in ("date", "commit", "iterations", "peak_gflops")}}
    entry["where"] = where
    save(file, figures)


if __name__ == "__main__":
    raise SystemExit(main())
