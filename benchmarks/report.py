"""Everything that docs/benchmarks.md and docs/benchmarks-avx2.md say, measured again and pasted between their markers.

    python -m benchmarks.report                   # paste the tables from benchmarks/figures
    python -m benchmarks.report --all             # measure first: some 45 minutes of a quiet machine
    python -m benchmarks.report --steps share small --prefix "nice -n -10"

A step is one command of a minute or two, so that a machine others use can be asked for in between: ``--prefix`` puts
words before each. A step that fails is reported at the end, and its old figures stay.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.compare import LONGER
from benchmarks.data import CASES
from benchmarks.record import PAGES, figures_of, paste
from benchmarks.tables import BLOCKS

SLOW = ("full-5e5-8-128", "full-2e5-32-64", "full-1e5-128-64")  # scikit-learn: 10 s an iteration


def _commands() -> dict[str, list[str]]:
    """Return the commands of each step."""
    compare64, compare32, longer, others, share = [], [], [], [], []
    for case in CASES:
        one = f"compare --cases {case.name}"
        slow = case.name in SLOW
        compare64.append(f"{one} --peers sklearn --budget 0.5" + (" --iterations 2" if slow else ""))
        if case.covariance_type in {"full", "diag"}:
            compare64.append(f"{one} --peers onedal --rounds 5 --budget 0.4")
            compare32.append(f"{one} --peers onedal --dtype float32 --rounds 5 --budget 0.4")
            fits = f"{one} --peers onedal --iterations {LONGER} --rounds 5 --budget 0.4"
            longer += [fits, f"{fits} --dtype float32"]
        else:
            compare32.append(f"{one} --peers fastgmm --dtype float32 --rounds 5 --budget 0.4")
        if not slow:
            others.append(
                f"{one} --peers pomegranate,tgmm,torchgmm,opencv,mlpack --iterations 2 --limit 20 --budget 0.15"
            )
        share.append(f"share --cases {case.name}")
    others.append("compare --cases full-1e6-2-8,full-2e5-16-16 --peers gmmx --dtype float32 --budget 0.2 --limit 60")
    return {
        "peak": ["peak"],
        "share": share,
        "small": ["small"],
        "growth": ["growth"],
        "published": ["published"],
        "startup": ["startup"],
        "memory": ["memory"],
        "onedal-and-sklearn": compare64,
        "float32": compare32,
        "longer": longer,
        "others": others,
    }


STEPS = _commands()


def write() -> None:
    """Paste every table into the pages that have a place for it."""
    for kind, page in PAGES.items():
        page.write_text(filled(kind, page.read_text()))


def filled(kind: Path, text: str) -> str:
    """Return a page with the tables of one kind of machine."""
    with figures_of(kind):
        for name, block in BLOCKS.items():
            if f"<!-- {name}:" in text:
                text = paste(text, name, block())
    return text


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__.split("\n")[0])
    parser.add_argument("--all", action="store_true", help="measure everything first")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=[], help="measure these first")
    parser.add_argument("--prefix", default="", help="put before each command, such as 'taskset -c 2,3'")
    options = parser.parse_args(arguments)
    failed = []
    for step in STEPS if options.all else options.steps:
        for words in STEPS[step]:
            module, *rest = words.split()
            command = [*shlex.split(options.prefix), sys.executable, "-m", f"benchmarks.{module}", *rest]
            start = time.perf_counter()
            print(f"\n$ python -m benchmarks.{words}", flush=True)
            if subprocess.run(command, check=False).returncode:
                failed.append(words)
            print(f"  {time.perf_counter() - start:.0f} s", flush=True)
    write()
    for words in failed:
        print(f"FAILED: python -m benchmarks.{words}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
