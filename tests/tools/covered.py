"""Line and branch coverage, each by itself, and the files that have least of either.

    coverage run -m pytest tests && coverage combine && python -m tests.tools.covered

Ends with 1 if one of the two is below 95 %: `coverage report` adds them up, and lines are so many that a fall of the
branches is not seen there.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

LEAST = 95.0


COVERED = {"statements": "covered_lines", "branches": "covered_branches"}


def share(summary: dict[str, int], what: str) -> float:
    """Percentage of "statements" or "branches" that ran; all of none."""
    return 100.0 * summary[COVERED[what]] / summary[f"num_{what}"] if summary[f"num_{what}"] else 100.0


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "coverage.json"
        # Its own limit is for both together, and does not matter here.
        subprocess.run([sys.executable, "-m", "coverage", "json", "-q", "--fail-under=0", "-o", str(path)], check=True)
        report = json.loads(path.read_text(encoding="utf-8"))
    totals = report["totals"]
    for what, covered in COVERED.items():
        print(f"{what}: {totals[covered]} of {totals[f'num_{what}']} ({share(totals, what):.1f} %)")
    files = [(name, {what: share(file["summary"], what) for what in COVERED}) for name, file in report["files"].items()]
    for name, shares in sorted(files, key=lambda file: min(file[1].values()))[:10]:
        print(f"  {name}: " + ", ".join(f"{what} {percent:.0f} %" for what, percent in shares.items()))
    sys.exit(any(share(totals, what) < LEAST for what in COVERED))


if __name__ == "__main__":
    main()
