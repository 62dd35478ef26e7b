"""Workers that die in the middle of a fit: the same bits, and nothing counted twice, by messages and by tasks.

`benchmarks/kill_workers.py` does it 20 times at random moments.
"""

import os
import signal
import threading

import numpy as np
import pytest

import fastgmm.dask
from fastgmm.dask import calls, sums
from fastgmm.dask import cluster as clusters
from fastgmm.dask.calls import Calls
from fastgmm.errors import ClusterError, IncompatibleStatisticsError
from tests.daskhelp import assert_same_bits, generated, local, made_chunk, model

LENGTHS = (60_003, 1, 50_000, 90_007)
X = np.concatenate([made_chunk(i, n, 3) for i, n in enumerate(LENGTHS)])
WAYS = {
    "messages": {},
    "messages that are handed on": {},
    "tasks": {"direct": False},
    "tasks, read in every pass": {"persist": False},
}


@pytest.fixture(scope="module")
def client():
    with local(2) as one:
        yield one


def pids(client):
    return sorted(client.run(os.getpid).values())


@pytest.mark.parametrize("way", WAYS)
def test_a_worker_killed_in_the_middle_of_a_pass(client, way, monkeypatch):
    if "handed on" in way:
        monkeypatch.setattr(calls, "FAN", 1)  # whichever of the two is killed, the caller or the other speaks to it
    here = model("full").fit(X, sample_weight=2.0)
    before = pids(client)

    def kill(info):
        if info.iteration == 2:  # the next pass begins, and cannot end before this worker is killed
            os.kill(before[0], signal.SIGSTOP)
            threading.Timer(0.3, os.kill, (before[0], signal.SIGKILL)).start()

    there = fastgmm.dask.fit(model("full"), generated(LENGTHS), sample_weight=2.0, callback=kill, **WAYS[way])
    assert_same_bits(there, here)
    client.wait_for_workers(2, timeout=60)
    assert before[0] not in pids(client)


@pytest.mark.parametrize("place", [(Calls, "run"), (sums.ClusterRunner, "_once")], ids=["messages", "tasks"])
def test_doubled_and_lost_parts_are_refused(client, monkeypatch, place):
    owner, name = place
    real = getattr(owner, name)
    options = {"client": client, "direct": owner is Calls}
    monkeypatch.setattr(owner, name, lambda self, work: [*(parts := real(self, work)), parts[0]])
    with pytest.raises(IncompatibleStatisticsError, match="overlap"):
        fastgmm.dask.fit(model("diag"), generated(LENGTHS), **options)
    monkeypatch.setattr(owner, name, lambda self, work: real(self, work)[1:])
    with pytest.raises(IncompatibleStatisticsError, match="need all"):
        fastgmm.dask.fit(model("diag"), generated(LENGTHS), **options)


def test_a_pass_is_tried_again_and_not_for_ever(client, monkeypatch):
    here = model("diag").fit(X)
    real, keys = sums.ClusterRunner._once, []

    def failing(times):
        def once(self, work):
            keys.append(work.key)
            if keys.count(work.key) <= times:
                raise clusters.KilledWorker(work.body, None, 3)
            return real(self, work)

        return once

    monkeypatch.setattr(sums.ClusterRunner, "_once", failing(2))
    assert_same_bits(fastgmm.dask.fit(model("diag"), generated(LENGTHS), client=client, direct=False), here)
    assert len(keys) == 3 * len(set(keys))
    monkeypatch.setattr(sums.ClusterRunner, "_once", failing(100))
    with pytest.raises(ClusterError, match="lost 5 times"):
        fastgmm.dask.fit(model("diag"), generated(LENGTHS), client=client, direct=False)


@pytest.mark.parametrize("place", [(Calls, "run"), (sums.ClusterRunner, "_once")], ids=["messages", "tasks"])
def test_slabs_that_were_cancelled_are_cut_again(client, monkeypatch, place):
    """As after a restart of the scheduler: nothing that was on the cluster is left."""
    owner, name = place
    here = model("diag").fit(X)
    real, made = getattr(owner, name), []

    def once(self, work):
        made.append(self._rows.slabs())
        if len(made) == 3:
            client.cancel(self._rows.slabs(), force=True)
        return real(self, work)

    monkeypatch.setattr(owner, name, once)
    assert_same_bits(fastgmm.dask.fit(model("diag"), generated(LENGTHS), client=client, direct=owner is Calls), here)
    assert made[-1][0].key != made[0][0].key


def test_workers_are_there_whatever_the_client_remembers(client, monkeypatch):
    """A client asks for the scheduler's state without workers every two seconds, and would return that."""
    monkeypatch.setattr(client, "scheduler_info", lambda **_: {"workers": {}})
    monkeypatch.setattr(client, "_scheduler_identity", {"workers": {}})
    assert len(clusters.use_cluster(client).threads) == 2
