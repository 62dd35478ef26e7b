"""Kill a streamed `fastgmm fit` with SIGKILL at random moments, resume it by the same command until done, compare.

    python -m tests.tools.kills_shell --kills 100

The data are a .npy file that is read block by block in every pass. Every time the command line is the same one, with
``--checkpoint`` and ``--resume``. Prints how many runs were killed, how many checkpoints that had been there were gone
afterwards, how many files were left lying about, and whether the model files hold what that of a fit does which was
never stopped, apart from the seconds in its history.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from fastgmm.archive import read_archive

TOP = Path(__file__).parents[2]


def write_data(path: Path, n_rows: int, seed: int = 0) -> None:
    """Write three overlapping clusters in four dimensions, float32."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_rows, 4)) + 1.5 * rng.integers(0, 3, (n_rows, 1))
    np.save(path, x.astype(np.float32))


def command(data: Path, out: Path, iterations: int, checkpoint: Path | None) -> list[str]:
    """Return the words of the command."""
    words = [sys.executable, "-m", "fastgmm", "fit", str(data), "--stream", "-k", "6", "--tol", "0", "--json"]
    words += ["--max-iter", str(iterations), "--out", str(out)]
    if checkpoint is not None:
        words += ["--checkpoint", str(checkpoint), "--checkpoint-every", "0", "--resume"]
    return words


def start(words: list[str]) -> subprocess.Popen[bytes]:
    """Start a command; its warning that the fit did not converge is not shown."""
    env = {**os.environ, "PYTHONPATH": str(TOP)}
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env)


def same_model(a: Path, b: Path) -> bool:
    """Whether two model files hold the same, apart from the seconds that iterations took."""
    one, two = read_archive(a), read_archive(b)
    if one.header != two.header or one.arrays.keys() != two.arrays.keys():
        return False
    return all(
        x.shape == y.shape
        and (x[:, 0].tobytes() == y[:, 0].tobytes() if name == "history" else x.tobytes() == y.tobytes())
        for name, x, y in ((name, x, two.arrays[name]) for name, x in one.arrays.items())
    )


def newest(checkpoint: Path) -> int:
    """Return the number of the newest checkpoint, 0 if there is none."""
    return max((int(path.stem.split("-")[1]) for path in checkpoint.glob("fit-*.npz")), default=0)


def kill_until_done(
    words: list[str], checkpoint: Path, out: Path, delay: tuple[float, float], kills: int, rng: random.Random
) -> tuple[int, int]:
    """Run a command, kill it after a random time, again and again; return kills and checkpoints lost.

    After so many kills it is left alone.
    """
    done = lost = 0
    while True:
        before = newest(checkpoint)
        with start(words) as process:
            try:
                error = process.communicate(timeout=rng.uniform(*delay) if done < kills else None)[1]
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                done += 1
            else:
                if process.returncode:
                    raise RuntimeError(error.decode())
                return done, lost
        lost += newest(checkpoint) < before
        if out.exists():  # killed after its work, or it would not be there
            return done, lost


def main() -> int:
    """Print the report; status 1 if something was lost or differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--rows", type=int, default=600_000)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    total = lost = fits = left = 0
    same = True
    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory)
        data, whole = top / "data.npy", top / "whole.npz"
        write_data(data, args.rows)
        began = time.perf_counter()
        with start(command(data, whole, args.iterations, None)) as process:
            process.communicate()
        seconds = time.perf_counter() - began
        while total < args.kills:
            place = top / f"fit {fits}"
            place.mkdir()
            out, checkpoint = place / "model.npz", place / "checkpoints"
            words = command(data, out, args.iterations, checkpoint)
            done, gone = kill_until_done(words, checkpoint, out, (0.0, seconds), args.kills - total, rng)
            total, lost, fits = total + done, lost + gone, fits + 1
            same &= same_model(whole, out)
            left += len([*place.glob(".*"), *checkpoint.glob(".*")])
            print(
                f"{total} kills, {fits} fits, {lost} checkpoints lost, {left} files left, same bits: {same}", flush=True
            )
    return 0 if same and not lost else 1


if __name__ == "__main__":
    sys.exit(main())
