"""Waves of blocks by a team of Python's threads: the bits of OpenMP's, and no thread outlives its pass."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from fastgmm import GaussianMixture, Mixture, open_rows, passes
from fastgmm.data import as_rows, pump
from fastgmm.kernels import _jit, runner, schedule, team
from fastgmm.kernels import arguments as a
from fastgmm.kernels.runner import Runner

TOP = Path(__file__).parents[1]
N, D, K = 30_000, 3, 4
X = np.random.default_rng(5).normal(size=(N, D))
DENSITY = Mixture(np.full(K, 1 / K), X[:K], np.array([np.eye(D)] * K), "full").density


def helpers():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fastgmm-")]


def sums(source):
    """The sums of a pass, as bytes."""
    program, _ = passes._build(DENSITY, np.dtype(float))
    return Runner().run(program, source, a.FIT).tobytes()


@pytest.fixture(autouse=True)
def _no_thread_stays():
    yield
    assert helpers() == []


@pytest.fixture
def _four_threads(monkeypatch):
    monkeypatch.setattr(runner, "n_threads", lambda: 4)
    monkeypatch.setattr(schedule, "SERIAL_SECONDS", 0.0)


@pytest.mark.usefixtures("_four_threads")
@pytest.mark.parametrize("prefetch", [0, 1, 2, 5])
@pytest.mark.parametrize("block_rows", [1, 4000, 12_000])
def test_streams_have_the_bits_of_arrays(prefetch, block_rows, monkeypatch):
    expected = sums(as_rows(X))
    begun = []
    monkeypatch.setattr(team.Team, "begin", lambda self, wave, real=team.Team.begin: begun.append(real(self, wave)))
    assert sums(open_rows([X], block_bytes=block_rows * D * 8, prefetch=prefetch)) == expected
    assert (len(begun) > 2) == (prefetch > 1)


@pytest.mark.usefixtures("_four_threads")
@pytest.mark.parametrize("module", [team, pump])
def test_an_interrupt_while_a_thread_is_started_leaves_none(module, monkeypatch, tmp_path):
    """The thread runs, but nobody was told; and the next passes get the bits they should."""
    np.save(tmp_path / "x.npy", X)
    source = open_rows(tmp_path / "x.npy", block_bytes=4000 * D * 8)
    expected = sums(as_rows(X))

    def begun(thread, real=module.begun):
        assert real(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "begun", begun)
        with pytest.raises(KeyboardInterrupt):
            sums(source)
    assert helpers() == []
    assert [sums(source) for _ in range(3)] == [expected] * 3


def test_every_helper_is_ended_whatever_happens_to_one():
    ended = []

    class Stubborn:
        def __init__(self, number):
            self.number = number

        def end(self):
            ended.append(self.number)
            if self.number == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        team._end([Stubborn(number) for number in range(4)])
    assert ended == [0, 1, 2, 3]


@pytest.mark.usefixtures("_four_threads")
def test_where_there_is_no_room_for_helpers_the_caller_does_all(monkeypatch):
    expected = sums(as_rows(X))
    monkeypatch.setattr(team, "begun", lambda _thread: False)
    assert sums(open_rows([X], block_bytes=1 << 18)) == expected


@pytest.mark.usefixtures("_four_threads")
def test_what_goes_wrong_in_a_helper_arrives(monkeypatch):
    real = _jit.draw_items

    def draw(address, table, items, worker, counter):
        if worker == 1 and items:
            msg = "no more"
            raise MemoryError(msg)
        real(address, table, items, worker, counter)

    monkeypatch.setattr(team, "draw_items", draw)
    with pytest.raises(MemoryError, match="no more"):
        sums(open_rows([X], block_bytes=1 << 18))


@pytest.mark.usefixtures("_four_threads")
def test_an_interrupt_in_the_caller_ends_the_helpers(monkeypatch):
    """With a wave under way and the next one ordered; they may still read its rows, so they are waited for."""
    real, calls = _jit.draw_items, []

    def draw(address, table, items, worker, counter):
        if worker == 0 and items:
            calls.append(items)
            if len(calls) == 3:
                raise KeyboardInterrupt
        real(address, table, items, worker, counter)

    monkeypatch.setattr(team, "draw_items", draw)
    source = open_rows([X], block_bytes=1 << 18)
    with pytest.raises(KeyboardInterrupt):
        sums(source)
    assert helpers() == []
    monkeypatch.undo()
    assert sums(source) == sums(as_rows(X))


@pytest.mark.usefixtures("_four_threads")
def test_an_error_of_the_reader_ends_the_helpers():
    calls = []

    def blocks():
        calls.append(0)
        yield X[:20_000]
        if len(calls) > 1:  # the first pass counts
            raise OSError(5, "Input/output error")
        yield X[20_000:]

    with pytest.raises(OSError, match="Input/output error"):
        sums(open_rows(blocks, block_bytes=1 << 18))
    assert helpers() == []


def test_waves_do_not_mix():
    """Blocks from one of the grid's to thirty at a time, two waves begun at once."""
    expected = None
    with team.team(3) as crew:
        assert crew.ahead == 2
        assert len(helpers()) == 2
    for block_bytes in (1, 1 << 17, 1 << 19):
        source = open_rows([X], block_bytes=block_bytes)
        model = GaussianMixture(2, random_state=0, max_iter=5, tol=0.0)
        with pytest.warns(UserWarning, match="did not converge"):
            found = model.fit(source).means_.tobytes()
        expected = expected or found
        assert found == expected


def test_a_stream_starts_no_thread_of_the_threading_layer():
    """OpenMP's threads spin while they wait, on the core that the reader needs."""
    code = f"""
import sys
sys.path.insert(0, {str(TOP)!r})
from fastgmm import open_rows
from fastgmm.data import as_rows, pump
from fastgmm.kernels import _jit
from tests import test_team as t
for source in (open_rows([t.X], block_bytes=1 << 19), as_rows(t.X)):
    t.sums(source)
    print(_jit._launched)
"""
    env = {**os.environ, "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout == "False\nTrue\n", done.stderr
