"""How long Ctrl-C takes to reach the user: ``python -m tests.tools.interrupts [--signals 20] [CASE ...]``.

A child works without end; its parent sends SIGINT at random moments and the child tells when the exception arrived,
both by the system's monotonic clock. After each interruption the child begins again, so it is also a test that it can.
Prints the distribution for each case; the exit status is 1 if a signal took longer than `LIMIT`.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

TOP = Path(__file__).parents[2]
LIMIT = 0.5  # seconds

CHILD = """
import signal, sys, time, warnings
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started to ignore it
warnings.simplefilter("ignore")
import numpy as np
from fastgmm import GaussianMixture
work, kind, n, d, k, signals = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
rng = np.random.default_rng(0)
x = rng.standard_normal((n, d))
x += 3.0 * rng.integers(0, 8, (n, 1))
means = x[rng.choice(n, k, replace=False)]

def model(**options):
    options = {"init_params": "random_from_data", "max_iter": 10**9, "tol": 0.0, "random_state": 0, **options}
    return GaussianMixture(k, covariance_type=kind, **options)

told = []

def tell(info):
    if not told:
        told.append(print("work", flush=True))

if work == "iterate":
    def endless(x):
        told.clear()
        return model().fit(x, callback=tell)
elif work == "start":
    endless = model(max_iter=0, n_init=10**9, init_params="kmeans").fit
elif work == "fit":
    endless = model().fit
else:
    fitted = model(max_iter=1).fit(x[: max(2 * k, 1000)])

    def endless(x):
        while True:
            getattr(fitted, work)(x)

for i in range(signals + 1):
    try:
        if work != "iterate":
            print("work", flush=True)
        endless(x)
    except KeyboardInterrupt:
        print(time.monotonic(), flush=True)
"""

# name: what is done, covariance type, N, D, K
CASES = {
    "fit many rows": ("fit", "full", 1_000_000, 12, 16),
    "fit D=64 K=64": ("fit", "full", 200_000, 64, 64),
    "fit D=128 K=512": ("fit", "full", 50_000, 128, 512),
    "fit D=512 K=64": ("fit", "full", 20_000, 512, 64),
    "fit D=784 K=100": ("fit", "full", 20_000, 784, 100),
    # From the first iteration on, and with few rows, so that most of an iteration is work on the covariances.
    "M-steps D=784 K=100": ("iterate", "full", 400, 784, 100),
    "M-steps D=784 K=270": ("iterate", "full", 400, 784, 270),
    "start D=784 K=100": ("start", "full", 5_000, 784, 100),
    "fit tied D=1024": ("fit", "tied", 20_000, 1024, 16),
    "fit diag D=1024 K=1024": ("fit", "diag", 50_000, 1024, 1024),
    "fit spherical K=4096": ("fit", "spherical", 500_000, 2, 4096),
    "start D=12 K=16": ("start", "full", 1_000_000, 12, 16),
    "start D=128 K=512": ("start", "full", 50_000, 128, 512),
    "start diag D=1024 K=1024": ("start", "diag", 50_000, 1024, 1024),
    "start spherical K=4096": ("start", "spherical", 500_000, 2, 4096),
    "predict": ("predict", "full", 1_000_000, 12, 16),
    "predict_proba D=128 K=512": ("predict_proba", "full", 50_000, 128, 512),
    "score D=784 K=100": ("score", "full", 20_000, 784, 100),
}
QUICK = ("fit many rows", "start D=12 K=16", "predict")


def delays(name, signals, seed=0, environment=None):
    """Seconds from each signal to its exception."""
    wait = random.Random(seed)
    command = [sys.executable, "-c", CHILD, *map(str, CASES[name]), str(signals)]
    env = {**os.environ, "PYTHONPATH": str(TOP), **(environment or {})}
    child = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    found = []
    try:
        for i in range(signals + 1):
            assert child.stdout.readline() == "work\n"
            # The first time is for what is compiled or read once; it is not counted.
            time.sleep(wait.uniform(0.01, 4.0) if i else 4.0)
            sent = time.monotonic()
            child.send_signal(signal.SIGINT)
            found.append(float(child.stdout.readline()) - sent)
        assert child.wait(60) == 0
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    return found[1:]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of: {', '.join(CASES)}")
    parser.add_argument("--signals", type=int, default=20)
    options = parser.parse_args()
    everything = []
    print(f"{'milliseconds to the exception':32}{'median':>8}{'90 %':>8}{'largest':>8}")
    for name in options.cases or CASES:
        found = np.array(delays(name, options.signals)) * 1e3
        everything.extend(found)
        print(f"{name:32}{np.median(found):8.0f}{np.quantile(found, 0.9):8.0f}{found.max():8.0f}", flush=True)
    print(f"{len(everything)} signals, {sum(t > LIMIT * 1e3 for t in everything)} of them above {LIMIT} s")
    return int(max(everything) > LIMIT * 1e3)


if __name__ == "__main__":
    sys.exit(main())
