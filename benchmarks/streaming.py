"""Rows that stay on disk: rate and memory of passes over a stream, beside the same rows in memory.

``python -m benchmarks.streaming`` writes 2e7 rows of 16 float32 features (1.28 GB, as ``.npy`` and as Parquet of three
kinds, see `PARQUET`) to a temporary folder and measures, each in a process of its own: a pass over the array in memory,
the reader alone, a pass over the stream, and the peak memory of a whole fit from the stream where the address space may
grow by 1 GB only. ``--rows`` changes N, ``--folder`` keeps the files, ``--only`` runs what has this in its name.
``--sklearn`` compares the memory of a fit with scikit-learn's at N = 2e6, D = 16, K = 32 instead.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from benchmarks.memory import peak_resident, reset_peak, resident

K, D = 16, 16
ADDRESS_SPACE = 1 << 30
TOP = Path(__file__).parents[1]

PARQUET = {
    "dictionary": (1 << 18, {}),
    "default": (1 << 20, {}),
    "plain": (1 << 20, {"use_dictionary": False}),
}
"""Name -> rows of a row group, and options of the writer. 2**18 values fit into a dictionary of 1 MB and are all
encoded with one; with pyarrow's own 2**20 rows the dictionary is full after a quarter, and the rest is plain."""


def parameters(k: int = K, d: int = D):
    """Return weights, means and covariances of a mixture whose components overlap a little."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(k, d, d)) / np.sqrt(d)
    return np.full(k, 1.0 / k), 2.0 * rng.normal(size=(k, d)), a @ a.transpose(0, 2, 1) + 0.5 * np.eye(d)


def pieces(n: int, k: int = K, d: int = D, size: int = 1 << 18):
    """Yield rows of that mixture, float32, some at a time."""
    rng = np.random.default_rng(1)
    _, means, covariances = parameters(k, d)
    factors = np.linalg.cholesky(covariances).astype(np.float32)
    for first in range(0, n, size):
        m = min(size, n - first)
        z = rng.standard_normal((m, d), dtype=np.float32)
        label = rng.integers(0, k, m)
        x = np.empty_like(z)
        for j in range(k):
            mine = label == j
            x[mine] = z[mine] @ factors[j].T + means[j].astype(np.float32)
        yield x


def write(folder: Path, n: int) -> None:
    """Write the rows as ``.npy`` and as Parquet, unless they are there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [f"x{j}" for j in range(D)]
    schema = pa.schema([(name, pa.float32()) for name in names])
    npy = folder / "x.npy"
    if not npy.exists():
        out = np.lib.format.open_memmap(npy, "w+", np.float32, (n, D))
        first = 0
        for x in pieces(n):
            out[first : first + len(x)] = x
            first += len(x)
        out.flush()
    rows = np.load(npy, mmap_mode="r")
    for name, (group, options) in PARQUET.items():
        path = folder / f"{name}.parquet"
        if path.exists():
            continue
        with pq.ParquetWriter(path, schema, **options) as parquet:
            for first in range(0, n, group):
                x = rows[first : first + group]
                table = pa.table([np.ascontiguousarray(x[:, j]) for j in range(D)], names=names)
                parquet.write_table(table, row_group_size=group)


def seconds_of(run, repeats: int) -> float:
    """Return the shortest time of some runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def measure_pass(source: str, repeats: int) -> dict[str, float]:
    """One pass of a fit over the array in memory, or over a stream."""
    from fastgmm import Mixture
    from fastgmm.data import as_rows
    from fastgmm.passes import Accumulator

    rows = as_rows(np.load(source.removeprefix("array:")) if source.startswith("array:") else source)
    density = Mixture(*parameters(), "full").density
    Accumulator(as_rows(next(rows.blocks(1024)).x[:20000].copy()), "full")(density)  # loads the kernels
    accumulator = Accumulator(rows, "full")
    seconds = seconds_of(lambda: accumulator(density), repeats)
    return {"seconds": seconds, "rate": rows.n_rows / seconds}


def measure_reader(source: str, repeats: int) -> dict[str, float]:
    """The stream alone."""
    from fastgmm.data import as_rows

    rows = as_rows(source)

    def read() -> None:
        for _ in rows.blocks(1024):
            pass

    seconds = seconds_of(read, repeats)
    return {"seconds": seconds, "rate": rows.n_rows / seconds}


def measure_memory(source: str, iterations: int) -> dict[str, float]:
    """Peak of a whole fit, start and all, where the address space may grow by 1 GB."""
    import fastgmm

    warnings.simplefilter("ignore")
    lines = Path("/proc/self/status").read_text().splitlines()
    size = next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, (size + ADDRESS_SPACE, resource.RLIM_INFINITY))
    before = resident()
    reset_peak()
    start = time.perf_counter()
    fastgmm.GaussianMixture(K, random_state=0, tol=0.0, max_iter=iterations).fit(source)
    return {"bytes": peak_resident(), "grown": peak_resident() - before, "seconds": time.perf_counter() - start}


def measure_sklearn(package: str) -> dict[str, float]:
    """Peak growth of a fit in memory at N = 2e6, D = 16, K = 32, one iteration from given means."""
    if package == "fastgmm":
        from fastgmm import GaussianMixture
    else:
        from sklearn.mixture import GaussianMixture

    warnings.simplefilter("ignore")
    weights, means, covariances = parameters(32)
    X = np.concatenate(list(pieces(2_000_000, 32)))
    start = {
        "weights_init": weights,
        "means_init": means,
        "precisions_init": np.linalg.inv(covariances),
        "init_params": "random_from_data",
    }

    def fit(x) -> None:
        GaussianMixture(32, tol=0.0, max_iter=2, random_state=0, **start).fit(x)

    fit(X[:5000])
    before = resident()
    reset_peak()
    begin = time.perf_counter()
    fit(X)
    return {"grown": peak_resident() - before, "data": X.nbytes, "seconds": time.perf_counter() - begin}


MEASUREMENTS = {
    "pass": measure_pass,
    "reader": measure_reader,
    "memory": measure_memory,
    "sklearn": lambda package, _: measure_sklearn(package),
}


def in_a_process(kind: str, source: str, count: int) -> dict[str, float]:
    """Run one measurement in a new process."""
    code = f"""import sys; sys.path.append({str(TOP)!r})
import json
from benchmarks import streaming
print(json.dumps(streaming.MEASUREMENTS[{kind!r}]({source!r}, {count})))"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def report(folder: Path, only: str | None, repeats: int) -> None:
    rates: dict[str, float] = {}
    npy = str(folder / "x.npy")
    sources = {".npy": npy, **{f"Parquet, {name}": str(folder / f"{name}.parquet") for name in PARQUET}}
    plan = [("in memory", "pass", f"array:{npy}")]
    for name, source in sources.items():
        plan += [(f"reader, {name}", "reader", source), (f"stream, {name}", "pass", source)]
    for name, kind, source in plan:
        if only is None or only in name:
            found = in_a_process(kind, source, repeats)
            rates[name] = found["rate"]
            print(f"{name:27} {found['rate'] / 1e6:7.2f} million rows a second, {found['seconds']:6.2f} s", flush=True)
    for name in sources:
        if {"in memory", f"reader, {name}", f"stream, {name}"} <= rates.keys():
            share = rates[f"stream, {name}"] / min(rates["in memory"], rates[f"reader, {name}"])
            print(f"{name:27} {share:7.0%} of the smaller of the pass in memory and the reader")
    for name, source in sources.items():
        if only is None or only in f"memory, {name}":
            found = in_a_process("memory", source, 2)
            print(
                f"memory, {name:19} {found['bytes'] / 1e6:7.0f} MB at the peak, {found['grown'] / 1e6:.0f} MB grown, "
                f"{found['seconds']:.1f} s",
                flush=True,
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sklearn", action="store_true")
    parser.add_argument("--write", action="store_true", help="only write the files")
    args = parser.parse_args()
    if args.sklearn:
        for package in ("fastgmm", "sklearn"):
            found = in_a_process("sklearn", package, 1)
            print(f"{package:8} {found['grown'] / 1e6:8.0f} MB beside {found['data'] / 1e6:.0f} MB of data", flush=True)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        write(folder, args.rows)
        if not args.write:
            report(folder, args.only, args.repeats)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
