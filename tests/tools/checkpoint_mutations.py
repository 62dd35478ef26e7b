"""Damages checkpoints and looks how going on from them ends: ``python -m tests.tools.checkpoint_mutations``.

Every mutation of `tests.tools.mutations` is applied to checkpoints, which are made at several moments of a fit, in two
ways. As a disk or a program would do it: the digest of all bytes is then wrong, and the fit must refuse to go on. And
sealed again, with a digest of the changed bytes, as only a forger would: the fit may refuse, or go on from what is a
checkpoint in its own right, but nothing else, and not with other parameters than the likelihood in the file belongs to.
Prints how many ended which way, for each kind; the exit status is 1 if one ended in any other way.
"""

import argparse
import collections
import contextlib
import hashlib
import pickle
import random
import shutil
import sys
import tempfile
import tracemalloc
import warnings
from pathlib import Path

import numpy as np

from fastgmm import Checkpoint, CheckpointError, GaussianMixture
from tests.tools import mutations
from tests.tools.mutations import ALLOWED_BYTES

DIGEST = 32
X = np.concatenate([np.random.default_rng(i).normal(3.0 * i, 1.5, (50, 2)) for i in range(3)])


class Stopped(Exception):
    """Ends a fit from its callback."""


def fit(path=None, *, stop=0, covariance_type="full", **options):
    """A fit of two starts, which ends with the `stop`-th iteration of all."""
    calls = []

    def callback(_):
        calls.append(1)
        if len(calls) == stop:
            raise Stopped

    given = {} if path is None else {"checkpoint": Checkpoint(path, 0.0, 1), "resume": True}
    model = GaussianMixture(
        3, covariance_type=covariance_type, max_iter=5, tol=0.0, n_init=2, init_params="random", random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.set_params(**options).fit(X, callback=callback, **given)


def parameters(model):
    """What a fit led to, as bytes."""
    return b"".join(part.tobytes() for part in (model.weights_, model.means_, model.covariances_))


def originals(folder):
    """(covariance type, content of a checkpoint, what its fit leads to); some are from amid the second start."""
    found = []
    for kind in ("full", "tied", "diag", "spherical"):
        whole = parameters(fit(covariance_type=kind))
        for stop in (1, 4, 8, 0):
            path = folder / f"{kind}-{stop}"
            with contextlib.suppress(Stopped):
                fit(path, stop=stop, covariance_type=kind)
            found.append((kind, max(path.glob("fit-*.npz")).read_bytes(), whole))
    return found


def seal(content):
    return bytes(content) + hashlib.sha256(content).digest()


def foreign(content, rng):
    """Another file in its place."""
    other = (b"", b"PK\x05\x06" + bytes(18), pickle.dumps({"a": 1}), rng.randbytes(500), b"\x93NUMPY\x01\x00" * 9)
    content[:] = rng.choice(other)


KINDS = (*mutations.MUTATIONS, foreign)


def outcome(folder, kind, content, whole, *, sealed):
    """How going on ends: "refused", "unharmed", "its own"; a text that begins with "DEFECT" for all else."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "fit-00000007.npz").write_bytes(content)
    tracemalloc.start()
    try:
        same = parameters(fit(folder, covariance_type=kind)) == whole
        # A forged state of the best start may have ended elsewhere; without a forger nothing may.
        ended = "unharmed" if same else "its own" if sealed else "DEFECT: other parameters"
    except CheckpointError as error:
        ended = "refused" if "\n" not in str(error) else f"DEFECT: message {error}"
    except Exception as error:
        ended = f"DEFECT: {type(error).__name__}: {error}"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    if peak > ALLOWED_BYTES + 10 * len(content):
        ended = f"DEFECT: {peak} bytes of memory for a file of {len(content)}"
    return ended


def run(count, seed, folder):
    """Mutate `count` times; return {(mutation, "damaged" or "sealed again", how it ended): times}."""
    files, rng, ended = originals(folder), random.Random(seed), collections.Counter()
    for i in range(count):
        mutate, sealed = KINDS[i % len(KINDS)], i // len(KINDS) % 2 == 1
        kind, good, whole = rng.choice(files)
        changed = bytearray(good[:-DIGEST] if sealed or mutate in mutations.CONSISTENT else good)
        mutate(changed, rng)
        if mutate in mutations.CONSISTENT and not sealed:
            changed += good[-DIGEST:]  # the archive is right, its digest is not
        content = seal(changed) if sealed else bytes(changed)
        how = "unchanged" if content == good else outcome(folder / "fit", kind, content, whole, sealed=sealed)
        if not sealed and how == "unharmed":
            how = "DEFECT: accepted"
        ended[mutate.__name__, "sealed again" if sealed else "damaged", how] += 1
    return ended


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ended = run(options.count, options.seed, Path(folder))
    for (name, way, how), times in sorted(ended.items()):
        print(f"{name:14}{way:14}{times:6}  {how}")
    defects = sum(times for (_, _, how), times in ended.items() if how.startswith("DEFECT"))
    for way in ("damaged", "sealed again"):
        ways = collections.Counter()
        for (_, one, how), times in ended.items():
            ways[how] += times if one == way else 0
        print(f"{way}: {', '.join(f'{times} {how}' for how, times in ways.items() if times)}")
    print(f"{options.count} mutations, {defects} ended in no documented way")
    return int(defects > 0)


if __name__ == "__main__":
    sys.exit(main())
