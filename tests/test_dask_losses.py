"""Workers that die in the middle of a fit: the same bits, and nothing counted twice. `tools/kill_workers.py` does it 20
times at random moments."""

import os
import signal
import threading

import numpy as np
import pytest

import fastgmm.dask
from fastgmm.dask import cluster as clusters
from fastgmm.dask import sums
from fastgmm.errors import ClusterError, IncompatibleStatisticsError
from tests.daskhelp import assert_same_bits, generated, local, made_chunk, model

LENGTHS = (60_003, 1, 50_000, 90_007)
X = np.concatenate([made_chunk(i, n, 3) for i, n in enumerate(LENGTHS)])


@pytest.fixture(scope="module")
def client():
    with local(2) as one:
        yield one


def pids(client):
    return sorted(client.run(os.getpid).values())


@pytest.mark.parametrize("persist", [True, False])
def test_a_worker_killed_in_the_middle_of_a_pass(client, persist):
    here = model("full").fit(X, sample_weight=2.0)
    before = pids(client)

    def kill(info):
        if info.iteration == 2:  # the next pass begins now, and takes longer than this
            threading.Timer(0.02, os.kill, (before[0], signal.SIGKILL)).start()

    there = fastgmm.dask.fit(model("full"), generated(LENGTHS), sample_weight=2.0, persist=persist, callback=kill)
    assert_same_bits(there, here)
    client.wait_for_workers(2, timeout=60)
    assert before[0] not in pids(client)


def test_doubled_and_lost_parts_are_refused(client, monkeypatch):
    real = sums.TaskRunner._once
    monkeypatch.setattr(sums.TaskRunner, "_once", lambda self, work: [*(parts := real(self, work)), parts[0]])
    with pytest.raises(IncompatibleStatisticsError, match="overlap"):
        fastgmm.dask.fit(model("diag"), generated(LENGTHS), client=client)
    monkeypatch.setattr(sums.TaskRunner, "_once", lambda self, work: real(self, work)[1:])
    with pytest.raises(IncompatibleStatisticsError, match="need all"):
        fastgmm.dask.fit(model("diag"), generated(LENGTHS), client=client)


def test_a_pass_is_tried_again_and_not_for_ever(client, monkeypatch):
    here = model("diag").fit(X)
    real, calls = sums.TaskRunner._once, []

    def failing(times):
        def once(self, work):
            calls.append(work.key)
            if calls.count(work.key) <= times:
                raise clusters.KilledWorker(work.body, None, 3)
            return real(self, work)

        return once

    monkeypatch.setattr(sums.TaskRunner, "_once", failing(2))
    assert_same_bits(fastgmm.dask.fit(model("diag"), generated(LENGTHS), client=client), here)
    assert len(calls) == 3 * len(set(calls))
    monkeypatch.setattr(sums.TaskRunner, "_once", failing(100))
    with pytest.raises(ClusterError, match="lost 5 times"):
        fastgmm.dask.fit(model("diag"), generated(LENGTHS), client=client)


def test_slabs_that_were_cancelled_are_cut_again(client, monkeypatch):
    """As after a restart of the scheduler: nothing that was on the cluster is left."""
    here = model("diag").fit(X)
    real, done = sums.TaskRunner._once, []

    def once(self, work):
        done.append(1)
        if len(done) == 3:
            client.cancel(self._rows.slabs(), force=True)
        return real(self, work)

    monkeypatch.setattr(sums.TaskRunner, "_once", once)
    assert_same_bits(fastgmm.dask.fit(model("diag"), generated(LENGTHS), client=client), here)
    assert len(done) == 6  # four iterations, the last evaluation, and one pass again
