"""From figures to the tables of docs/benchmarks.md: one function a table, and `BLOCKS`, which names them.

Nothing is measured here, and no number stands in a table that is not in a file of ``benchmarks/figures``.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from benchmarks.compare import LONGER, SHORT, stem
from benchmarks.data import CASES
from benchmarks.growth import AT, off_line, spread
from benchmarks.peers import OURS, PEERS
from benchmarks.record import digits, load, table
from benchmarks.share import problems

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.peers import Peer

SHAPES = {c.name: f"{c.covariance_type}, {c.n:.0e}, {c.d}, {c.k}".replace("e+0", "e") for c in CASES}
MISSING = "Not measured yet."


def where(about: dict[str, Any]) -> str:
    """Return one sentence on the circumstances of a measurement."""
    names = {"python": "Python", "numpy": "NumPy", "numba": "Numba", "scikit-learn": "scikit-learn"}
    versions = ", ".join(f"{title} {about[key]}" for key, title in names.items() if key in about)
    threads = f", {about['threads']} threads" if "threads" in about else ""
    return f"{about['cpu']}{threads}; {versions}; commit {about['commit']}, {about['date']}."


def factor(ratio: float) -> str:
    """Return a ratio as a table shows it; a loss is bold."""
    text = f"{digits(ratio)}x"
    return f"**{text}**" if ratio < 1 else text


def cell(row: dict[str, Any] | None) -> str:
    """Return what a table shows for a peer's row: milliseconds and ratio, or why there are none."""
    if row is None:
        return ""
    if "seconds" not in row:
        error = row.get("error", "")
        return "-" if "cannot" in row else error if error.startswith("longer than") else "failed"
    mark = {True: "", None: " (own start)", False: " DIFFERENT"}[row.get("same", True)]
    few = "*" if len(row["times"]) < 3 else ""
    return f"{factor(row['ratio'])}{few}{mark}"


def cells(found: dict[str, Any], peers: list[Peer]) -> list[str]:
    """Return what a table shows for a case: our milliseconds, if any, and a cell for each peer."""
    ours = found.get(OURS.name)
    return [digits(1e3 * ours["seconds"]) if ours else "", *(cell(found.get(p.name)) for p in peers)]


def failures(figures: dict[str, Any], peers: list[Peer], more: str = "") -> list[str]:
    """Return a paragraph on who failed at what, if any did."""
    rows = [(p.name, name, figures[name]["rows"].get(p.name)) for name in SHAPES if name in figures for p in peers]
    lines = [f"- {peer}, {SHAPES[name]}{more}: {row['error']}" for peer, name, row in rows if cell(row) == "failed"]
    return ["Failed:\n\n" + "\n".join(lines)] if lines else []


def compare(dtype: str) -> str:
    """Return the comparison of one dtype."""
    figures = load(stem(dtype, SHORT))
    if not figures:
        return MISSING
    cases = [name for name in SHAPES if name in figures]
    tried = [(name, row) for c in cases for name, row in figures[c]["rows"].items() if "cannot" not in row]
    ran = {name for name, _ in tried}
    peers = [p for p in PEERS if p is not OURS and p.name in ran]
    failed = failures(figures, peers)
    rows = [[SHAPES[name], *cells(figures[name]["rows"], peers)] for name in cases]
    text = table(["case: type, N, D, K", "fastgmm, ms", *(p.name for p in peers)], rows)
    about = dict(figures[cases[-1]]["where"])
    for key in ("commit", "date"):  # cases may have been measured one at a time
        about[key] = ", ".join(sorted({str(row[key]) for _, row in tried}))
    notes = [
        "Milliseconds of an EM iteration for fastgmm, then each library's time over it: above 1 fastgmm is faster, a "
        "loss is bold. `*`: fewer than three rounds. `-`: no such covariances or dtype. Empty: not run.",
        where(about),
    ]
    return "\n\n".join([text, *notes, *failed])


def longer() -> str:
    """Return the comparison of longer fits: both dtypes side by side, for the libraries that take part."""
    figures = {dtype: load(stem(dtype, LONGER)) or {} for dtype in ("float64", "float32")}
    ran = [row for cases in figures.values() for case in cases.values() for row in case["rows"].values()]
    ran = [row for row in ran if "cannot" not in row]
    if not ran:
        return MISSING
    names = {name for cases in figures.values() for case in cases.values() for name in case["rows"]}
    peers = [p for p in PEERS if p is not OURS and p.name in names]
    header = ["case: type, N, D, K"]
    for dtype in figures:
        header += [f"{dtype}: fastgmm, ms", *(p.name for p in peers)]
    rows = [
        [
            SHAPES[name],
            *(text for cases in figures.values() for text in cells(cases.get(name, {"rows": {}})["rows"], peers)),
        ]
        for name in SHAPES
        if any(name in cases for cases in figures.values())
    ]
    failed = [line for dtype, cases in figures.items() for line in failures(cases, peers, f", {dtype}")]
    about = dict(next(case for cases in figures.values() for case in cases.values())["where"])
    for key in ("commit", "date"):
        about[key] = ", ".join(sorted({str(row[key]) for row in ran}))
    iterations = ", ".join(sorted({str(row["iterations"]) for row in ran}))
    note = f"As above, fits of {iterations} iterations. {where(about)}"
    return "\n\n".join([table(header, rows), note, *failed])


def peers() -> str:
    """Return one row a peer: version, how close to plain NumPy, range of ratios, memory."""
    rows = []
    tables = {dtype: load(stem(dtype, SHORT)) or {} for dtype in ("float64", "float32")}
    for peer in PEERS:
        found = {d: [c["rows"][peer.name] for c in t.values() if peer.name in c["rows"]] for d, t in tables.items()}
        ran = [row for several in found.values() for row in several if "seconds" in row]
        if not ran:
            rows.append([peer.name, "", "", "", "", "", peer.note or "not run"])
            continue
        worst = []
        for dtype in tables:
            values = [row["difference"] for row in found[dtype] if "difference" in row]
            worst.append(f"{max(values):.0e} ({peer.tolerance(dtype):.0e})" if values else "-")
        ratios = [row["ratio"] for row in ran]
        span = "" if peer is OURS else f"{digits(min(ratios))} to {digits(max(ratios))}"
        memory = max((row["memory"] or 0) for row in ran) / 1e6
        rows.append([peer.name, ran[-1]["version"], *worst, span, f"{memory:.0f}", peer.note])
    header = ["library", "version", "difference, float64", "float32", "times fastgmm's", "MB", "remark"]
    return table(header, rows) + (
        "\n\nDifference: the largest of any parameter from EM in plain NumPy over all cases, relative to weights and "
        "standard deviations, and in brackets what is allowed; it must also be below a tenth of what the last "
        "iteration changed, or the row is marked DIFFERENT. MB: the most that a fit's resident set grew."
    )


def peak() -> str:
    """Return what the machine reaches without a mixture."""
    figures = load("peak")
    if not figures:
        return MISSING
    best = next(iter(figures["rates"].values()))
    rows = []
    for name, row in figures["rates"].items():
        cells = [f"{digits(v)} ({v / b:.0%})" for dtype in row for v, b in zip(row[dtype], best[dtype], strict=True)]
        rows.append([name, *cells])
    header = ["GFLOP/s (of the first row)", "float64, 1 thread", "2 threads", "float32, 1 thread", "2 threads"]
    return f"{table(header, rows)}\n\n{where(figures['where'])}"


def share(dtype: str) -> str:
    """Return shares of peak of one dtype."""
    figures = load("share")
    if not figures:
        return MISSING
    rows = []
    for name, shape in problems():
        if dtype not in figures.get(name, {}):
            continue
        row = figures[name][dtype]
        case, _, kind = name.partition(" ")
        rows.append(
            [
                f"{SHAPES[case]}{', ' + kind if kind else ''}",
                digits(row["ms"]["pass"]),
                digits(row["gflops"]["pass"]),
                f"{row['share']['one']:.0%}",
                f"{row['share']['pass']:.0%}",
                f"{row['scaling']:.2f}",
                digits(row["pairs_per_second"] / 1e9) if shape.d == 2 else "",
                *(f"{value:.0%}" for value in row["density"].values()),
            ]
        )
    header = ["problem: type, N, D, K", "pass, ms", "GFLOP/s", "of peak, 1 thread", "2 threads", "2 over 1"]
    header += ["1e9 pairs/s a core", "score_samples", "predict", "predict_proba"]
    peaks = [entry[dtype]["peak"] for entry in figures.values() if dtype in entry]
    span = " to ".join(digits(f(p["pass"] for p in peaks)) for f in (min, max))
    return (
        f"{table(header, rows)}\n\nPeak with 2 threads: {span} GFLOP/s. {where(next(iter(figures.values()))['where'])}"
    )


def small() -> str:
    """Return small problems."""
    figures = load("small")
    if not figures:
        return MISSING
    rows = [
        [name, digits(1e6 * row["fastgmm"]), digits(1e6 * row["scikit-learn"]), factor(row["ratio"])]
        for name, row in figures.items()
        if isinstance(row, dict) and name != "where"
    ]
    text = table(["300 rows, 2 features, 3 components", "fastgmm, us", "scikit-learn, us", "ratio"], rows)
    return f"{text}\n\nMedians of {figures['repetitions']} alternating repetitions. {where(figures['where'])}"


def growth() -> str:
    """Return nanoseconds per row and component as N and K grow."""
    figures = load("growth")
    if not figures:
        return MISSING
    rows = []
    for what, other in (("N", "K"), ("K", "N")):
        line = off_line(figures[what])
        for size, deviation in spread(figures[what]).items():
            median = statistics.median(figures[what][size])
            shape = f"{what} = {int(size):,}, {other} = {AT[other]:,}"
            rows.append([shape, digits(median), f"{deviation:+.1%}", f"{line[size]:+.1%}"])
    text = table(["size", "ns a row and component", "off their median", "off a straight line"], rows)
    return f"{text}\n\n{where(figures['where'])}"


def published() -> str:
    """Return the published tables run again."""
    figures = load("published")
    if not figures:
        return MISSING
    rows, sources = [], list(dict.fromkeys(row["source"] for row in figures["rows"]))
    for row in figures["rows"]:
        cells = [f"{row['published'][who]:g}" if who in row["published"] else "-" for who in ("sklearn", "cpu", "gpu")]
        number = str(sources.index(row["source"]) + 1)
        case = row["case"].split("-")
        shape = f"{case[0]}, {case[1]}, {case[2]}, {case[3]}"
        rows.append([number, shape, str(row["iterations"]), *cells, digits(row["seconds"])])
    header = [
        "table",
        "type, N, D, K",
        "iterations",
        "scikit-learn, s",
        "their CPU, s",
        "their GPU, s",
        "fastgmm here, s",
    ]
    notes = "\n".join(f"{i}. {source}" for i, source in enumerate(sources, 1))
    return f"{table(header, rows)}\n\n{notes}\n\nHere: {where(figures['where'])}"


def memory() -> str:
    """Return growth of memory in a fit."""
    figures = load("memory")
    if not figures:
        return MISSING
    rows = [
        [row["case"], row["dtype"], *(f"{row[key] / 1e6:.0f}" for key in ("data", "growth", "bound"))]
        for row in figures["rows"]
    ]
    return f"{table(['case', 'dtype', 'X, MB', 'growth, MB', 'bound, MB'], rows)}\n\n{where(figures['where'])}"


def startup() -> str:
    """Return import and first fit."""
    figures = load("startup")
    if not figures:
        return MISSING
    rows = [[f"{r['covariance_type']}, D={r['d']}", f"{r['cold']:.2f}", f"{r['warm']:.2f}"] for r in figures["first"]]
    text = table(["first fit of a process", "empty cache, s", "filled cache, s"], rows)
    mine, numpy = figures["import fastgmm"], figures["import numpy"]
    imports = f"A process that does `import fastgmm` and ends {mine:.3f} s, `import numpy` {numpy:.3f} s."
    return f"{text}\n\n{imports} {where(figures['where'])}"


BLOCKS: dict[str, Callable[[], str]] = {
    "compare-float64": lambda: compare("float64"),
    "compare-float32": lambda: compare("float32"),
    "compare-longer": longer,
    "peers": peers,
    "peak": peak,
    "share-float64": lambda: share("float64"),
    "share-float32": lambda: share("float32"),
    "small": small,
    "growth": growth,
    "published": published,
    "memory": memory,
    "startup": startup,
}
