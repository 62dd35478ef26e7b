"""One hash of all fitted parameters, over everything that must not change it: ``python -m tests.tools.same_bits``.

A fixed data set is fitted for every covariance type, precision and way of reading it, in processes of 1, 2, 3, 4 and 8
threads on each threading layer of Numba that exists here. Prints a line a process and the number of combinations whose
hash differs from the first process's; the exit status is 1 if there is one. More threads than cores are as good a test
as cores: what could change a result is how the blocks are shared out.
"""

import argparse
import functools
import hashlib
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.layers import LAYERS, LIMIT, environment

THREADS = (1, 2, 3, 4, 8)
KINDS = ("full", "tied", "diag", "spherical")
N, D, K = 9_001, 9, 4  # three to ten blocks of the grid, and a tile that is not full
SETTINGS = {"max_iter": 6, "tol": 0.0, "random_state": 0}


def data(dtype, d=D):
    import numpy as np

    rng = np.random.default_rng(31)
    centers = rng.normal(scale=4.0, size=(K, d))
    x = (centers[rng.integers(0, K, N)] + rng.normal(size=(N, d))).astype(dtype)
    return x, rng.uniform(0.5, 1.5, N)


def digest(*parts):
    import numpy as np

    found = hashlib.sha256()
    for part in parts:
        found.update(np.ascontiguousarray(part).tobytes())
    return found.hexdigest()[:16]


def fitted(kind, x, weight=None):
    """Hash of what a fit gives and of what it says about the rows."""
    from fastgmm import GaussianMixture

    return of_model(GaussianMixture(K, covariance_type=kind, **SETTINGS).fit(x, sample_weight=weight), x)


def of_model(model, x):
    numbers = (model.weights_, model.means_, model.covariances_, [model.lower_bound_, *model.lower_bounds_])
    return digest(*numbers, model.predict_proba(x), model.score_samples(x), model.predict(x))


# -- ways to the rows: name -> function (x, folder) that gives what is fitted in the place of the array ----------------


def memmap(x, folder):
    import numpy as np

    np.save(folder / "x.npy", x)
    return np.load(folder / "x.npy", mmap_mode="r")


def fortran(x, folder):  # noqa: ARG001 - one signature
    import numpy as np

    return np.asfortranarray(x)


def strided(x, folder):  # noqa: ARG001 - one signature
    import numpy as np

    wide = np.zeros((len(x), 2 * x.shape[1] + 1), x.dtype)
    wide[:, 1::2] = x
    return wide[:, 1::2]


def swapped(x, folder):  # noqa: ARG001 - one signature
    return x.astype(x.dtype.newbyteorder(">"))


def table(x, folder):  # noqa: ARG001 - one signature
    import pandas as pd

    return pd.DataFrame(x, columns=[f"x{i}" for i in range(x.shape[1])])


WAYS = {"memmap": memmap, "Fortran order": fortran, "strided": strided, "big endian": swapped, "table": table}


class Stopped(Exception):
    """Ends a fit from its callback, as a kill or Ctrl-C would."""


def resumed(kind, x, path):
    """The hash of `fitted`, of a fit that was stopped twice and went on from its checkpoint."""
    from fastgmm import GaussianMixture

    path.mkdir()
    for last in (2, 4, 10**9):

        def stop(info, last=last):
            if info.iteration == last:
                raise Stopped

        model = GaussianMixture(K, covariance_type=kind, **SETTINGS)
        try:
            model.fit(x, checkpoint=path / "fit", resume=True, callback=stop)
        except Stopped:
            assert not hasattr(model, "means_")
    return of_model(model, x)


class CutRows:
    """Rows in pieces of given numbers of grid blocks."""

    def __init__(self, x, weight, sizes):
        self.x, self.weight, self.sizes = x, weight, sizes
        self.n_rows, self.n_features = x.shape
        self.dtype, self.weighted = x.dtype, weight is not None

    def blocks(self, multiple):
        from fastgmm.typing import RowBlock

        start = 0
        for size in itertools.cycle(self.sizes):
            stop = min(start + size * multiple, self.n_rows)
            yield RowBlock(start, self.x[start:stop].copy(), self.weight[start:stop].copy())
            start = stop
            if start == self.n_rows:
                return


def looped(kind, rows, x):
    """Hash of EM from a fixed start over a source of rows."""
    import numpy as np

    from fastgmm import covariance, passes
    from fastgmm.em import fit_em

    family = covariance.FAMILIES[kind]
    shape = family.shape(K, x.shape[1])
    wide = np.eye(shape[-1]) if shape[-2:] == (x.shape[1],) * 2 else 1.0
    start = covariance.make_params(np.full(K, 1.0 / K), x[:K].astype(float), 9.0 * np.ones(shape) * wide, kind)
    run = passes.Accumulator(rows, family.scatter)
    result = fit_em(
        lambda params, *, moments=True: run(covariance.density(params), moments=moments),
        start,
        reference_variance=x.var(axis=0, dtype=float),
        max_iter=5,
        tol=0.0,
    )
    return digest(result.params.weights, result.params.means, result.params.covariances, result.log_likelihood)


def one_process(*, everything):
    """{name: hash} of this process, and {name: hash} of what must be equal within it."""
    from fastgmm.data import as_rows
    from fastgmm.kernels import _jit

    found, wrong = {}, []

    def same(name, how, value):
        if value != found[name]:
            wrong.append(f"{name}, {how}")
        return 1

    count = 0
    with tempfile.TemporaryDirectory() as name_of_folder:
        folder = Path(name_of_folder)
        for kind, dtype in itertools.product(KINDS, ("float64", "float32")):
            x, weight = data(dtype)
            plain, weighted = f"{kind} {dtype}", f"{kind} {dtype} weighted"
            found[plain], found[weighted] = fitted(kind, x), fitted(kind, x, weight)
            few = data(dtype, 3)[0]  # the passes of a few features are others
            found[f"{plain} 3 features"] = fitted(kind, few)
            found[f"{plain} EM"] = looped(kind, as_rows(x, weight), x)
            count += 4
            if not everything:
                continue
            for way, change in WAYS.items():
                count += same(plain, way, fitted(kind, change(x, folder)))
            for sizes in ([1], [2, 1], [3]):
                cut = CutRows(x, weight, sizes)
                count += same(f"{plain} EM", f"cut {sizes}", looped(kind, cut, x))
            count += same(plain, "stopped and resumed", resumed(kind, x, folder / plain.replace(" ", "-")))
            usual, _jit._serial_only = _jit._serial_only, True
            count += same(plain, "serial twin", fitted(kind, x))
            _jit._serial_only = usual
    return {"found": found, "wrong": wrong, "count": count}


@functools.cache
def process(threads, layer, everything=False):
    """What a process of its own found, and on which layer it ran; None if there is no such layer."""
    code = (
        "import warnings; warnings.simplefilter('ignore');"
        "import json; from tests.tools import same_bits; import numba;"
        f"found = same_bits.one_process(everything={everything});"
        "layer = numba.threading_layer() if numba.config.NUMBA_NUM_THREADS > 1 else None;"
        "print(json.dumps({**found, 'layer': layer, 'threads': numba.config.NUMBA_NUM_THREADS}))"
    )
    command = [sys.executable, "-c", code]
    env = environment(layer, threads)
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=LIMIT)
    if "No threading layer could be loaded" in done.stderr:
        return None
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["threads"] == threads
    assert answer["layer"] in (layer, None)
    return answer


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the ways to the rows in the first process only")
    options = parser.parse_args()
    first, count, differ, absent = None, 0, 0, set()
    for layer, threads in itertools.product(LAYERS, THREADS):
        if layer in absent:
            continue
        answer = process(threads, layer, everything=first is None or not options.quick)
        if answer is None:
            print(f"{layer:10}  not here")
            absent.add(layer)
            continue
        first = first or answer["found"]
        others = [name for name in first if first[name] != answer["found"][name]]
        count += answer["count"]
        differ += len(others) + len(answer["wrong"])
        together = hashlib.sha256(json.dumps(answer["found"]).encode()).hexdigest()[:16]
        print(f"{layer:10} {threads} threads  {together}  {others + answer['wrong'] or 'same'}", flush=True)
    for name, value in first.items():
        print(f"  {name:32} {value}")
    print(f"{count} fits hashed, {differ} differ")
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
