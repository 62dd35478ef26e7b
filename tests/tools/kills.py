"""Kill a fit with SIGKILL at random moments, also inside the write of a checkpoint, and resume it until it is done.

    python -m tests.tools.kills --kills 100

prints how often the fit was killed, how often inside a write, how many checkpoints that had been reported as written
were gone afterwards (none may be), and whether the result has the bits of a fit that was never stopped.
"""

import argparse
import hashlib
import os
import random
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

TOP = Path(__file__).parents[2]

# The writes are made slow, so that many kills fall into them: the file grows by pieces, with pauses.
WORKER = """
import io, os, sys, time
from fastgmm.checkpoint import Checkpoint, store
from tests.tools import kills

def slow(file, header, arrays, write=store.write_archive):
    whole = io.BytesIO()
    write(whole, header, arrays)
    content = whole.getvalue()
    size = max(len(content) // 4, 1)
    for start in range(0, len(content), size):
        file.write(content[start:start + size])
        file.flush()
        time.sleep(0.002)

def told(self, header, arrays, write=store.Store.write):
    write(self, header, arrays)
    os.write(1, b"wrote %d\\n" % self.numbers()[0])

store.write_archive = slow
store.Store.write = told
os.write(1, b"ready\\n")
model = kills.fitted(checkpoint=Checkpoint(sys.argv[1], every_seconds=0.0, every_iterations=1), resume=True)
os.write(1, b"done %s\\n" % kills.bits(model).encode())
"""


class Report(NamedTuple):
    kills: int
    in_a_write: int
    lost: int
    same_bits: bool


def fitted(max_iter=120, n_init=2, **options):
    """The fit: weighted rows, two starts, a component that collapses and is started again."""
    import warnings

    from fastgmm import GaussianMixture

    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(m, 1.0, (300, 2)) for m in (0.0, 2.0, 4.0)] + [np.full((40, 2), 9.0)])
    w = rng.uniform(0.5, 2.0, len(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return GaussianMixture(
            5, tol=0.0, max_iter=max_iter, n_init=n_init, random_state=1, reg_covar=0.0, degenerate="reseed"
        ).fit(x, sample_weight=w, **options)


def bits(model):
    """A digest of everything a fit computes."""
    digest = hashlib.sha256()
    for array in (model.weights_, model.means_, model.covariances_, np.array(model.lower_bounds_)):
        digest.update(array.tobytes())
    digest.update(repr((model.n_iter_, model.result_.events, [s.lower_bound for s in model.starts_])).encode())
    return digest.hexdigest()


def newest(directory):
    """Number of the newest checkpoint that can be read; a damaged file is an error."""
    from fastgmm.checkpoint.store import Store, _read

    store = Store(directory)
    for number in store.numbers():
        _read(store._path(number))
    return max(store.numbers(), default=0)


def run(directory, delay, after):
    """Start the worker, kill it `delay` seconds after a word of its; return all words, and whether it was killed."""
    env = {**os.environ, "PYTHONPATH": str(TOP)}
    process = subprocess.Popen([sys.executable, "-c", WORKER, str(directory)], stdout=subprocess.PIPE, env=env, cwd=TOP)
    words, limit = b"", None
    while True:
        wait = 300.0 if limit is None else max(limit - time.monotonic(), 0.0)
        if not select.select([process.stdout], [], [], wait)[0]:
            process.kill()
            words += process.stdout.read()
            break
        piece = os.read(process.stdout.fileno(), 1 << 16)
        if not piece:
            break
        words += piece
        if limit is None and after in words and delay is not None:
            limit = time.monotonic() + delay
    process.stdout.close()
    return words.decode().splitlines(), process.wait(timeout=60) < 0


def kill_and_resume(n_kills, longest=0.35, seed=0):
    """Kill the fit `n_kills` times and then let it end; several fits one after the other if one is done earlier."""
    expected, moments = bits(fitted()), random.Random(seed)
    kills = in_a_write = lost = 0
    same = True
    while kills < n_kills:
        with tempfile.TemporaryDirectory() as folder:
            directory, finished = Path(folder, "fit"), False
            while not finished:
                delay = moments.uniform(0.0, longest) if kills < n_kills else None
                # Most of them once it has begun to write, some while it starts and reads what is there.
                words, killed = run(directory, delay, moments.choice([b"ready"] + 4 * [b"wrote"]))
                told = [int(word.split()[1]) for word in words if word.startswith("wrote")]
                lost += bool(told) and newest(directory) < max(told)
                if killed:
                    kills += 1
                    in_a_write += any(directory.glob(".fastgmm-*.tmp"))
                else:
                    finished = True
                    same &= words[-1:] == [f"done {expected}"]
    return Report(kills, in_a_write, lost, same)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    report = kill_and_resume(options.kills, seed=options.seed)
    print(
        f"killed {report.kills} times, {report.in_a_write} of them inside a write; checkpoints lost: {report.lost}; "
        f"{'same' if report.same_bits else 'DIFFERENT'} bits as never stopped"
    )
    return 0 if report.same_bits and not report.lost else 1


if __name__ == "__main__":
    sys.exit(main())
