"""Would a regression be seen? Plant one in a throwaway clone, and ask asv or the gate.

    python -m benchmarks.planted asv              # a loss of 25 %: `asv continuous --factor 1.15` must end with 1
    python -m benchmarks.planted gate             # a loss of 50 %: `benchmarks.gate` must end with 1

Each is asked twice: about a commit that changes nothing that matters, which must pass, and about one that makes every
pass over the data slower by the loss. The planted code waits after each pass for a share of what the pass took, so it
does not depend on how kernels are written. Ends with status 1 if either answer is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).parents[1]
LOSS = {"asv": 0.25, "gate": 0.5}

SLOWED = """

def _slowed(call):
    import time

    def slower(self, *args, **kwargs):
        start = time.perf_counter()
        out = call(self, *args, **kwargs)
        end = time.perf_counter()
        end += {loss} * (end - start)
        while time.perf_counter() < end:
            pass
        return out

    return slower


Accumulator.__call__ = _slowed(Accumulator.__call__)
"""

BENCH = r"fit\.Fit\.time_fit\(.*(2e5-16-16|1e5-64-16|diag).*float64"


def run(*command: str, cwd: Path, **more) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=cwd, check=False, **more)


def commit(clone: Path, message: str) -> None:
    """Commit everything in the clone."""
    who = ["-c", "user.name=planted", "-c", "user.email=planted@example.org"]
    for command in (["add", "-A"], [*who, "commit", "--quiet", "-m", message]):
        run("git", *command, cwd=clone).check_returncode()


def plant(clone: Path, loss: float) -> None:
    """Make every pass of the library in a clone slower, and commit that."""
    path = clone / "fastgmm" / "passes.py"
    path.write_text(path.read_text() + SLOWED.format(loss=loss))
    commit(clone, f"Planted: passes take {1 + loss} times as long")


def ask_asv(clone: Path, bench: str) -> int:
    """Return the status of `asv continuous` on the last two commits; its environments are kept in this checkout."""
    conf = json.loads((clone / "asv.conf.json").read_text())
    conf |= {"env_dir": str(TOP / ".asv" / "planted"), "results_dir": str(clone / ".asv" / "results")}
    path = clone / ".asv.planted.json"
    path.write_text(json.dumps(conf))
    command = [sys.executable, "-m", "asv", "continuous", "--config", str(path), "--factor", "1.15", "--bench", bench]
    machine = [sys.executable, "-m", "asv", "machine", "--yes", "--config", str(path)]
    run(*machine, cwd=clone, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return run(*command, "--interleave-rounds", "HEAD~1", "HEAD", cwd=clone).returncode


def ask_gate(clone: Path, _bench: str) -> int:
    """Return the status of the gate on the last two commits."""
    return run(sys.executable, "-m", "benchmarks.gate", cwd=clone, env={**os.environ, "PYTHONPATH": ""}).returncode


ASK = {"asv": ask_asv, "gate": ask_gate}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planted", description=__doc__.split("\n")[0])
    parser.add_argument("who", choices=sorted(ASK))
    parser.add_argument("--loss", type=float, help=f"default: {LOSS}")
    parser.add_argument("--bench", default=BENCH, help="asv: regular expression (default: %(default)s)")
    options = parser.parse_args(arguments)
    loss = options.loss or LOSS[options.who]
    answers = []
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        run("git", "clone", "--quiet", str(TOP), str(clone), cwd=TOP).check_returncode()
        for what in ("nothing", f"a loss of {loss:.0%}"):
            if what == "nothing":
                (clone / "NOTHING").write_text("A change that changes nothing.\n")
                commit(clone, "Nothing")
            else:
                plant(clone, loss)
            print(f"\n== {options.who}, planted: {what}", flush=True)
            answers.append(ASK[options.who](clone, options.bench))
            print(f"== status {answers[-1]}", flush=True)
    right = answers[0] == 0 and answers[1] == 1
    print(f"\n{options.who}: {'both answers are right' if right else f'WRONG answers {answers}, not [0, 1]'}")
    return int(not right)


if __name__ == "__main__":
    raise SystemExit(main())
