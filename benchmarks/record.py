"""What every measurement shares: where and when it was made, medians of ratios, and the way into the docs.

A script that measures writes JSON below ``benchmarks/figures``; `report` turns that into tables between two markers of
a docs page. So a table can be pasted again without measuring, and the page says nothing that is not in a file.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import statistics
import subprocess
import textwrap
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HERE = Path(__file__).parent
FIGURES = HERE / "figures"
NARROW = FIGURES / "avx2"
WIDTH = 125
PAGE = HERE.parent / "docs" / "benchmarks.md"
PAGES = {FIGURES: PAGE, NARROW: PAGE.with_name("benchmarks-avx2.md")}
"""Where the figures of machines with vectors of 64 bytes are, and of all others; and the pages that show them."""


def cpu() -> str:
    """Return the name of the processor, and its widest vectors where the system tells."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    name = fields.get("model name", platform.machine()).replace("(R)", "")
    flags = fields.get("flags", "").split()
    vectors = next((title for flag, title in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "")
    return f"{name}{', ' + vectors if vectors else ''}, {os.cpu_count()} cores"


def commit() -> str | None:
    """Return the last commit that changed the library, marked if it has changes since; None outside a checkout."""
    git = ["git", "-C", str(HERE.parent)]
    try:
        log, status = (
            subprocess.run([*git, *rest, "--", "fastgmm"], capture_output=True, text=True, check=False)
            for rest in (["log", "-1", "--format=%h"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except OSError:
        return None
    return (log.stdout.strip() + ("-dirty" if status.stdout.strip() else "")) or None


def circumstances(**more: Any) -> dict[str, Any]:
    """Return what a reader must know about a measurement: processor, date, commit, versions."""
    import numba
    import numpy

    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    versions = {"python": platform.python_version(), "numpy": numpy.__version__, "numba": numba.__version__}
    return {"cpu": cpu(), "date": date, "commit": commit(), "platform": platform.platform(), **versions, **more}


def median_ratio(theirs: Mapping[str, float], ours: Mapping[str, float]) -> float:
    """Return the median over the rounds that both took part in of their time over our time in the same round.

    Not the ratio of medians: a machine that changes its speed between rounds would then favour one of the two.

    Parameters
    ----------
    theirs, ours : mapping of str to float
        Round -> seconds.

    Raises
    ------
    ValueError
        They have no round in common.
    """
    common = [r for r in theirs if r in ours]
    if not common:
        msg = f"no round in common: {sorted(theirs)} and {sorted(ours)}"
        raise ValueError(msg)
    return statistics.median(theirs[r] / ours[r] for r in common)


_folder: ContextVar[Path | None] = ContextVar("folder", default=None)


def folder() -> Path:
    """Return where the figures of this machine's kind are, or those `figures_of` asks for."""
    return _folder.get() or (FIGURES if "AVX-512" in cpu() else NARROW)


@contextlib.contextmanager
def figures_of(kind: Path) -> Iterator[None]:
    """Let `save` and `load` mean the figures of one of `PAGES`."""
    token = _folder.set(kind)
    try:
        yield
    finally:
        _folder.reset(token)


def save(name: str, content: Any) -> Path:
    """Write JSON to ``<name>.json`` in `folder`, one short row a line."""
    folder().mkdir(parents=True, exist_ok=True)
    path = folder() / f"{name}.json"
    path.write_text(json.dumps(_rounded(content), indent=1) + "\n")
    return path


def load(name: str) -> Any:
    """Return what was saved under a name, or None."""
    path = folder() / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _rounded(value: Any) -> Any:
    """Return the same with floats of five digits: more than any of them is good for, and readable diffs."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {str(k): _rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    return value


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table.

    Raises
    ------
    ValueError
        A row has another number of cells than the header.
    """
    wrong = [row for row in rows if len(row) != len(header)]
    if wrong:
        msg = f"rows must have {len(header)} cells; got {wrong[0]}"
        raise ValueError(msg)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def paste(text: str, name: str, block: str) -> str:
    """Return a page with what stands between ``<!-- name: ... -->`` and ``<!-- end -->`` replaced.

    Raises
    ------
    ValueError
        The page does not have exactly one such pair of markers.
    """
    lines = text.splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith(f"<!-- {name}:")]
    if len(starts) != 1:
        msg = f"the page must have one line '<!-- {name}: ... -->'; it has {len(starts)}"
        raise ValueError(msg)
    try:
        end = lines.index("<!-- end -->", starts[0])
    except ValueError:
        msg = f"no line '<!-- end -->' after the marker {name!r}"
        raise ValueError(msg) from None
    wrapped = [
        line
        if line.startswith(("|", "- ")) or len(line) <= WIDTH
        else textwrap.fill(line, WIDTH, break_long_words=False)
        for line in block.strip().splitlines()
    ]
    return "\n".join([*lines[: starts[0] + 1], "", *wrapped, "", *lines[end:]]) + "\n"


def digits(value: float) -> str:
    """Return a number as a table shows it: three digits."""
    if value == 0 or 1e-3 <= abs(value) < 1000:
        return f"{value:.3g}"
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.2g}"
