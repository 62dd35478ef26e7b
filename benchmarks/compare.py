"""This library against others: the same data, the same start, the same number of EM iterations.

    python -m benchmarks.compare --setup            # once: environments of the peers that need one of their own
    python -m benchmarks.compare --json table.json

What is measured: a whole fit, divided by its iterations, each library in a process of its own, several interleaved
rounds. A ratio is the median over the rounds of (peer's time / our time in the same round), so that a machine that
changes its speed between rounds does not favour anyone. Each result is held against EM in plain NumPy (`oracle`): a
peer that is fast because it did something else shows. Losses are printed like wins.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import oracle
from benchmarks.data import CASES, Case, Problem, build, by_name
from benchmarks.peers import OURS, PEERS, Peer, Worker

SAME = {"float64": 1e-8, "float32": 1e-3}
"""Largest difference of parameters (see `oracle.difference`) that still counts as the same work."""


def cpu() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit() -> str | None:
    """Return the commit of this checkout, marked if there are changes."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def run_case(case: Case, peers: list[Peer], options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run one case with every peer and return its rows of the table."""
    problem = build(case, options.dtype)
    arrays = {}
    for field in ("X", "weights", "means", "covariances", "precisions"):
        arrays[field] = str(folder / f"{field}.npy")
        np.save(arrays[field], getattr(problem, field))

    rows: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for peer in peers:
            if case.covariance_type not in peer.types:
                continue
            worker = stack.enter_context(Worker(peer, options.threads))
            row = rows[peer.name] = worker.order("load", arrays=arrays, covariance_type=case.covariance_type)
            row |= {"times": [], "memory": None, "threads": worker.threads}
            row |= worker.order("warm")
            if "error" not in row:
                workers[peer.name] = worker
        for round_ in range(options.rounds):
            for name, worker in list(workers.items()):
                out = str(folder / f"{name}.npz") if round_ == 0 else None
                reply = worker.order("fit", iterations=options.iterations, out=out)
                if "error" in reply:
                    rows[name]["error"] = reply["error"]
                    del workers[name]
                    continue
                rows[name]["times"].append(reply["seconds"] / options.iterations)
                rows[name]["log_likelihood"] = reply["log_likelihood"]
                if reply["memory"] is not None:
                    rows[name]["memory"] = max(rows[name]["memory"] or 0, reply["memory"])
    if options.check:
        check(problem, rows, options, folder)
    ours = rows[OURS.name]["times"]
    for row in rows.values():
        if row["times"] and "error" not in row:
            row["seconds"] = statistics.median(row["times"])
            row["ratio"] = statistics.median(t / o for t, o in zip(row["times"], ours, strict=False)) if ours else None
    for path in folder.iterdir():
        path.unlink()
    return rows


def check(problem: Problem, rows: dict[str, dict[str, Any]], options: argparse.Namespace, folder: Path) -> None:
    """Hold every peer's result against the oracle's; adds ``difference``, ``log_likelihood_error`` and ``same``."""
    state, history = oracle.em(problem, options.iterations)
    for name, row in rows.items():
        path = folder / f"{name}.npz"
        if not path.exists():
            continue
        with np.load(path) as fitted:
            theirs = oracle.State(*(fitted[f].astype(float) for f in oracle.State._fields))
        row["difference"] = oracle.difference(theirs, state, problem.case.covariance_type)
        # some libraries report the log-likelihood of the parameters before the last M-step; the table says which
        errors = [abs(row["log_likelihood"] / value - 1.0) for value in (history[-1], history[-2])]
        row["log_likelihood_of"] = "the result" if errors[0] <= errors[1] else "the iteration before"
        row["log_likelihood_error"] = min(errors)
        row["same"] = bool(row["difference"] < SAME[options.dtype])


def show(case: Case, rows: dict[str, dict[str, Any]], peak: float) -> None:
    """Print the rows of one case."""
    for name, row in rows.items():
        head = f"{case.name if name == OURS.name else '':24} {name:28}"
        if "error" in row:
            print(f"{head} failed: {row['error']}")
            continue
        rate = case.flops / row["seconds"] / 1e9
        memory = "" if row["memory"] is None else f"{row['memory'] / 1e6:8.0f}"
        ratio = f"{row['ratio']:9.2f}" if row["ratio"] else f"{'':9}"
        same = ""
        if "same" in row:
            same = f"{row['difference']:10.1e} {row['log_likelihood_error']:10.1e}" + (
                "" if row["same"] else "  DIFFERENT"
            )
        print(
            f"{head} {row['seconds'] * 1e3:10.2f} {ratio} {rate:8.1f} {rate / peak:7.1%} {memory:>8} {same}", flush=True
        )


def main(arguments: list[str] | None = None) -> int:
    names = ", ".join(c.name for c in CASES)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__.split("\n")[0])
    parser.add_argument("--setup", action="store_true", help="make the peers' own environments, then stop")
    parser.add_argument("--cases", help=f"comma-separated, of {names}")
    parser.add_argument("--peers", help=f"comma-separated, of {', '.join(repr(p.name) for p in PEERS)}")
    parser.add_argument("--dtype", default="float64", choices=sorted(SAME))
    parser.add_argument("--iterations", type=int, default=4, help="EM iterations of a fit (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="default: %(default)s")
    parser.add_argument("--no-check", dest="check", action="store_false", help="do not run the oracle")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    options = parser.parse_args(arguments)

    chosen = options.peers.split(",") if options.peers else [p.name for p in PEERS]
    unknown = set(chosen) - {p.name for p in PEERS}
    if unknown:
        parser.error(f"no peer {sorted(unknown)}; there are {[p.name for p in PEERS]}")
    peers = [p for p in PEERS if p.name in chosen or p is OURS]
    if options.setup:
        for peer in peers:
            peer.setup()
        return 0
    for peer in [p for p in peers if not p.installed]:
        print(f"{peer.name} is left out: it is not installed; run with --setup")
        peers.remove(peer)

    from benchmarks.peak import peak

    limit = peak(options.dtype, options.threads)
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    print(f"{cpu()}, {options.threads} threads, {options.dtype}, peak {limit:.0f} GFLOP/s, {date}")
    print(f"one EM iteration: whole fit / {options.iterations}, median of {options.rounds} interleaved rounds")
    print("ratio: peer / fastgmm; difference: of parameters and log-likelihood from plain NumPy\n")
    titles = f"{'ms':>10} {'ratio':>9} {'GFLOP/s':>8} {'of peak':>7} {'MB':>8} {'params':>10} {'loglik':>10}"
    print(f"{'case':24} {'library':28} {titles}")

    result: dict[str, Any] = {"cpu": cpu(), "date": date, "peak_gflops": limit, "platform": platform.platform()}
    result["commit"] = commit()
    result |= {key: getattr(options, key) for key in ("dtype", "iterations", "rounds", "threads")}
    result["cases"] = {}
    wrong, versions = False, {}
    for name in options.cases.split(",") if options.cases else [c.name for c in CASES]:
        case = by_name(name)
        with tempfile.TemporaryDirectory() as folder:
            rows = run_case(case, peers, options, Path(folder))
        show(case, rows, limit)
        wrong = wrong or "error" in rows[OURS.name] or rows[OURS.name].get("same") is False
        versions |= {peer: row.get("version") for peer, row in rows.items()}
        shape = {"n": case.n, "d": case.d, "k": case.k, "covariance_type": case.covariance_type, "kind": case.kind}
        result["cases"][name] = {**shape, "flops": case.flops, "peers": rows}
        if options.json:
            options.json.write_text(json.dumps(result, indent=1) + "\n")
    print("\n" + ", ".join(f"{peer} {version}" for peer, version in versions.items()))
    if wrong:
        print("fastgmm's own result is not the oracle's", file=sys.stderr)
    return int(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
