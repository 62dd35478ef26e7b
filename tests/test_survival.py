"""Nothing kills or hangs the process: pools, forks, other libraries' threads, refused memory, callbacks that raise.

In subprocesses with a time limit, like `test_threads.py`, from which the prelude comes: `x`, `fit()` -> hash, `forked`.
"""

import importlib.util
import os
import subprocess
import sys
import textwrap

import pytest

from tests.layers import LAYERS, LIMIT, environment
from tests.test_threads import PRELUDE, layer, needs_fork, run

__all__ = ["layer"]  # a fixture

# What a pool's process runs must be importable there.
WORK = """
from tests.survival_work import fit_hash
import multiprocessing, numba
"""

# Pools whose processes begin from nothing take seconds; the third layer has its turn in the long run of .ci/run.
some_layers = pytest.mark.parametrize(
    "layer", LAYERS if os.environ.get("FASTGMM_CI_LONG") else LAYERS[:2], indirect=True
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are Linux's")


def run_with(code, layer_name=None, **variables):
    """Output of code after the prelude, with environment variables of its own; text on stderr is a failure."""
    command = [sys.executable, "-c", PRELUDE + textwrap.dedent(code)]
    env = {**environment(layer_name), **variables}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.split()


# -- pools -------------------------------------------------------------------------------------------------------------


@some_layers
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_before_and_after_a_launch(layer, method):
    if method != "spawn" and not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    code = WORK + (
        "if __name__ == '__main__':\n"
        f"    context = multiprocessing.get_context({method!r})\n"
        "    with context.Pool(2) as pool: before = pool.map(fit_hash, range(3))\n"
        "    alone = fit_hash(0)\n"
        "    with context.Pool(2) as pool: after = pool.map(fit_hash, range(3))\n"
        "    assert set(before) == set(after) == {alone}\n"
        "    print(numba.threading_layer())"
    )
    assert run(code, layer) == [layer]


@some_layers
def test_concurrent_futures(layer):
    code = """
    from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
    from tests.survival_work import fit_hash
    with ThreadPoolExecutor(4) as pool: found = set(pool.map(fit_hash, range(6)))
    with ProcessPoolExecutor(2) as pool: found |= set(pool.map(fit_hash, range(3)))
    assert found == {fit_hash(0)}
    """
    run_with(code, layer)


@some_layers
@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_joblib_and_joblib_within_joblib(layer, backend):
    pytest.importorskip("joblib", reason="joblib starts the fits here")
    code = f"""
    from joblib import Parallel, delayed
    from tests.survival_work import fit_hash, nested_hashes
    alone = fit_hash(0)
    found = Parallel(3, backend={backend!r})(delayed(fit_hash)(i) for i in range(4))
    nested = Parallel(2, backend={backend!r})(delayed(nested_hashes)(i) for i in range(2))
    assert set(found) | set().union(*nested) == {{alone}}
    """
    run_with(code, layer)


THEIRS = {
    "sklearn": """
    import sklearn.cluster
    def theirs(): sklearn.cluster.KMeans(3, n_init=1, random_state=0).fit(x[:5000])
    """,
    "torch": """
    import torch
    def theirs():
        y = torch.from_numpy(x).requires_grad_()
        (y @ y.T[:, :500]).relu().sum().backward()
        assert torch.get_num_threads() >= 1 and bool(y.grad.isfinite().all())
    """,
}


@some_layers
@pytest.mark.parametrize("library", THEIRS)
@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_other_libraries_with_openmp(layer, library, first):
    """Loaded and at work before ours and after it, and at the same time."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    begin = "a = fit()" if first == "ours" else ""
    code = (
        begin
        + textwrap.dedent(THEIRS[library])
        + textwrap.dedent("""
    theirs()
    a = fit()
    done = threading.Event()
    def work():
        while not done.is_set(): theirs()
    thread = threading.Thread(target=work)
    thread.start()
    assert fit() == a
    done.set()
    thread.join()
    theirs()
    assert fit() == a
    print(a)
    """)
    )
    assert run_with(code, layer) == run_with("print(fit())", layer)


def test_estimators_are_collected_in_other_threads(layer):
    code = """
    import gc, queue
    boxes = queue.Queue(maxsize=4)
    def collect():
        while (model := boxes.get()) is not None:
            model.cycle = model
            del model
            gc.collect()
    threads = [threading.Thread(target=collect) for _ in range(2)]
    for t in threads: t.start()
    for i in range(12):
        boxes.put(GaussianMixture(3, max_iter=2, random_state=i).fit(x[:3000]))
    for t in threads: boxes.put(None)
    for t in threads: t.join()
    print(len(fit()))
    """
    assert run_with(code, layer) == ["64"]


# -- numbers of threads ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", ["1", "2", "64"])
def test_any_number_of_threads(threads):
    assert run_with("print(fit())", NUMBA_NUM_THREADS=threads) == run_with("print(fit())")


@pytest.mark.parametrize("value", ["0", "-3", "many", ""])
def test_a_number_of_threads_that_is_none(value):
    """Numba's business: it refuses or ignores it when it is imported, and nothing crashes."""
    env = {**environment(), "NUMBA_NUM_THREADS": value}
    code = "import numba; print('numba takes it')"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=LIMIT)
    if done.returncode == 0:
        assert len(run_with("print(fit())", NUMBA_NUM_THREADS=value)) == 1
    else:
        ours = subprocess.run(
            [sys.executable, "-c", PRELUDE + "fit()"], env=env, capture_output=True, text=True, timeout=LIMIT
        )
        assert ours.returncode == 1  # an exception, no signal
        assert ours.stderr.splitlines()[-1] == done.stderr.splitlines()[-1]


def test_set_num_threads_is_respected(layer):
    code = """
    from fastgmm.kernels import _jit
    a = fit()
    seen, real = [], _jit._run_parallel
    def counted(*arguments):
        seen.append(arguments[-1])
        real(*arguments)
    _jit._run_parallel = counted
    for threads in (1, 2, 3):
        numba.set_num_threads(threads)
        seen.clear()
        assert fit() == a
        print(max(seen, default=1))
    """
    assert run_with(code, layer) == ["1", "2", "3"]


# -- callbacks ---------------------------------------------------------------------------------------------------------


def test_whatever_a_callback_raises_passes_and_the_estimator_is_as_before():
    code = """
    class Own(BaseException): pass
    def raiser(error):
        def callback(info):
            if info.iteration == 2: raise error
        return callback
    for error in (ValueError("v"), KeyboardInterrupt(), SystemExit(3), Own(), MemoryError(), GeneratorExit()):
        new = GaussianMixture(3, max_iter=5, tol=0.0, random_state=0)
        old = GaussianMixture(3, max_iter=5, tol=0.0, random_state=0).fit(x)
        means = old.means_
        for model in (new, old):
            try:
                model.fit(x[:9000], callback=raiser(error))
            except BaseException as caught:
                assert caught is error
            else:
                raise AssertionError
        assert not hasattr(new, "means_") and old.means_ is means
        assert old.predict(x).shape == (40000,)
        new.fit(x)
        assert (new.means_ == means).all()
    """
    assert run_with(code) == []


def test_callbacks_that_fit():
    """Each fit's callback fits another mixture, thirty deep; then so deep that Python gives up."""
    code = """
    small = x[:2000]
    def nested(depth, limit):
        def callback(info):
            if depth < limit: nested(depth + 1, limit)
        return GaussianMixture(2, max_iter=1, tol=0.0, random_state=0).fit(small, callback=callback).means_
    assert (nested(0, 30) == nested(0, 0)).all()
    try:
        nested(0, 10**9)
    except RecursionError:
        print("given up")
    assert (nested(0, 1) == nested(0, 0)).all()
    """
    assert run_with(code) == ["given", "up"]


def test_signals_with_other_handlers_while_threads_fit(layer):
    """A timer's signal hits the main thread forty times while two other threads and itself fit."""
    if sys.platform == "win32":
        pytest.skip("this system has no timers of that kind")
    code = """
    import signal
    hits = []
    signal.signal(signal.SIGALRM, lambda *a: hits.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    a, found = fit(), []
    threads = [threading.Thread(target=lambda: found.append(fit())) for _ in range(2)]
    for t in threads: t.start()
    while len(hits) < 40: found.append(fit())
    for t in threads: t.join()
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(set(found) == {a})
    """
    assert run_with(code, layer) == ["True"]


@needs_fork
def test_fork_within_a_callback(layer):
    code = """
    alone = fit()
    def callback(info):
        if info.iteration == 2: forked(alone)
    GaussianMixture(3, max_iter=3, tol=0.0, random_state=0).fit(x, callback=callback)
    print(fit() == alone)
    """
    assert run_with(code, layer) == ["True"]


# -- memory ------------------------------------------------------------------------------------------------------------

REFUSED = """
import resource, time
assert len(fit()) == 64  # all that is compiled or read once
wide = rng.normal(size=(2000, 400))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 400_000_000,) * 2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for kind, k, data in (("full", 1000, wide), ("full", 200, wide)):
    calls = []
    model = GaussianMixture(k, covariance_type=kind, random_state=0, init_params=lambda *a: calls.append(1))
    try:
        model.fit(data)
    except MemoryError as error:
        print(type(error) is MemoryError, "GB" in str(error), not calls, not hasattr(model, "means_"))
        # nothing was begun: the refusal took no memory worth speaking of
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000)
assert len(fit()) == 64  # and what is possible still is
"""


@linux
def test_memory_that_is_refused_is_an_error_before_the_work_begins():
    assert run_with(REFUSED) == 2 * ["True"] * 5
