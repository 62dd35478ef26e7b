"""Fits from several Python threads, in forked children, and interrupted: no abort, no deadlock, the same numbers.

Everything runs in subprocesses with a time limit, because what is tested for would end or hang the process. Numba's
`workqueue` layer aborts when two threads launch at once; GNU OpenMP ends a child that was forked after a launch.
"""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.layers import LAYERS, LIMIT, available, environment

PRELUDE = """
import hashlib, os, sys, threading, warnings
warnings.simplefilter("ignore")
import numba
import numpy as np
from fastgmm import GaussianMixture

rng = np.random.default_rng(0)
x = rng.normal(size=(40_000, 6)) + 4.0 * rng.integers(0, 3, (40_000, 1))

def fit(kind="full"):
    model = GaussianMixture(3, covariance_type=kind, max_iter=6, tol=0.0, random_state=0).fit(x)
    digest = hashlib.sha256()
    for part in (model.weights_, model.means_, model.covariances_, model.score_samples(x)):
        digest.update(part.tobytes())
    return digest.hexdigest()

def child(status):
    assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0, status

def forked(expected):
    pid = os.fork()
    if pid == 0:
        try:
            same = fit() == expected
        except BaseException:
            same = False
        os._exit(0 if same else 3)
    child(os.waitpid(pid, 0)[1])
"""


def run(code, layer=None):
    """Output of the code after `PRELUDE`; whatever a process can die of is a failure."""
    command = [sys.executable, "-c", PRELUDE + code]
    done = subprocess.run(command, env=environment(layer), capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.split()


@pytest.fixture(params=LAYERS)
def layer(request):
    if not available(request.param):
        pytest.skip(f"numba has no threading layer {request.param} here")
    return request.param


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def test_the_layer_is_the_one_that_is_tested(layer):
    assert run("fit(); print(numba.threading_layer(), numba.get_num_threads())", layer) == [layer, "4"]


def test_four_threads_fit_at_once(layer):
    found = run(
        """
alone = {kind: fit(kind) for kind in ("full", "tied", "diag", "spherical")}
barrier, found = threading.Barrier(4), []

def work(kind):
    barrier.wait()
    for _ in range(3):
        found.append((kind, fit(kind)))

threads = [threading.Thread(target=work, args=(kind,)) for kind in alone]
for t in threads: t.start()
for t in threads: t.join()
assert len(found) == 12
assert all(alone[kind] == digest for kind, digest in found)
print(numba.threading_layer())
""",
        layer,
    )
    assert found == [layer]


def test_the_first_launches_of_all_come_at_once(layer):
    """Also the compilation, or the reading of compiled code, starts in four threads together."""
    found = run(
        """
barrier, found = threading.Barrier(4), []

def work():
    barrier.wait()
    found.append(fit())

threads = [threading.Thread(target=work) for _ in range(4)]
for t in threads: t.start()
for t in threads: t.join()
assert len(found) == 4
print(*set(found))
""",
        layer,
    )
    assert found == run("print(fit())", layer)


@needs_fork
def test_fork_before_the_first_launch(layer):
    run(
        """
pid = os.fork()
if pid == 0:
    os._exit(0 if len(fit()) == 64 else 3)
child(os.waitpid(pid, 0)[1])
alone = fit()
""",
        layer,
    )


@needs_fork
def test_fork_after_a_launch(layer):
    run(
        """
alone = fit()
forked(alone)
forked(alone)
assert fit() == alone  # the parent is as it was
""",
        layer,
    )


@needs_fork
def test_fork_while_another_thread_fits(layer):
    """The child inherits a lock that nobody will release."""
    run(
        """
alone = fit()
stop = threading.Event()

def work():
    while not stop.is_set():
        assert fit() == alone

thread = threading.Thread(target=work)
thread.start()
for _ in range(3):
    forked(alone)
stop.set()
thread.join()
""",
        layer,
    )


@needs_fork
def test_fork_of_a_fork(layer):
    run(
        """
alone = fit()
pid = os.fork()
if pid == 0:
    forked(alone)
    os._exit(0 if fit() == alone else 3)
child(os.waitpid(pid, 0)[1])
""",
        layer,
    )


def test_layers_agree():
    layers = [name for name in LAYERS if available(name)]
    assert len({tuple(run("print(fit('full'), fit('spherical'))", name)) for name in layers}) == 1


INTERRUPTED = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started to ignore it
x = rng.normal(size=(1_000_000, 12))

def started(info):
    if info.iteration >= 2 and not said:
        said.append(True)
        print("fitting", flush=True)

said = []
model = GaussianMixture(16, max_iter=10**6, tol=0.0, random_state=0, init_params="random_from_data")
try:
    model.fit(x, callback=started)
except KeyboardInterrupt:
    print("interrupted", flush=True)
x = x[:20_000, :6].copy()
a, b = fit(), fit()
assert a == b
print("alive", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")
def test_an_interrupt_ends_an_endless_fit(layer):
    """How long it takes is measured by ``python -m tests.tools.interrupts``, not asserted on a busy machine."""
    command = [sys.executable, "-c", PRELUDE + INTERRUPTED]
    process = subprocess.Popen(
        command, env=environment(layer), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline().strip() == "fitting"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline().strip() == "interrupted"
        rest, errors = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert rest.split() == ["alive"]
    assert process.returncode == 0, errors
