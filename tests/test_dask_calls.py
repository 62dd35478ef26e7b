"""Passes by messages: who runs what, workers that hand on, that join and leave, and what happens when none answers."""

import logging

import numpy as np
import pytest

import fastgmm.dask
from fastgmm.dask import calls, serve, session
from fastgmm.dask.shares import addresses, assign, moves, tree
from fastgmm.errors import ClusterError
from tests.daskhelp import assert_same_bits, generated, local, made_chunk, model

LENGTHS = (60_003, 1, 50_000)
X = np.concatenate([made_chunk(i, n, 3) for i, n in enumerate(LENGTHS)])


@pytest.fixture(scope="module")
def client():
    with local(2) as one:
        yield one


@pytest.fixture(scope="module")
def here():
    return model("full").fit(X)


# -- who runs what -----------------------------------------------------------------------------------------------------


def test_slabs_go_to_holders_with_little_to_do():
    threads = {"a": 1, "b": 2, "c": 1}
    holders = [["a"], ["a", "b"], ["b", "gone"], ["gone"], ["a", "b"], []]
    found = assign(holders, [10, 10, 10, 10, 10, 10], threads)
    assert found == {"a": [0], "b": [1, 2, 4], "c": []}
    assert assign(holders, [1] * 6, {}) == {}


def test_slabs_move_to_workers_that_joined():
    threads = {"a": 1, "b": 1, "new": 1}
    shares = {"a": [0, 1, 2, 3], "b": [4, 5, 6, 7], "new": []}
    found = dict(moves(shares, [10] * 8, threads))
    assert set(found.values()) == {"new"}
    assert len(found) == 2
    assert moves({"a": [0, 1], "b": [2]}, [10, 10, 10], {"a": 1, "b": 1}) == []  # nothing gained
    assert moves({"a": [0]}, [10], {"a": 1}) == []
    assert len(moves({"a": [0, 1, 2], "b": []}, [10] * 3, {"a": 1, "b": 2})) == 2  # threads count
    assert moves({}, [], {}) == []


@pytest.mark.parametrize("n", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("fan", [1, 2, 3, 32])
def test_every_worker_is_in_the_tree_once(n, fan):
    shares = [(f"w{i}", (i,)) for i in range(n)]
    found = tree(shares, fan)
    assert len(found) == min(n, fan)

    def flat(branch):
        return [pair for address, (keys, below) in branch for pair in ((address, keys), *flat(below))]

    assert flat(found) == shares  # neighbours stay together
    assert all(len(below) <= fan for _, (_, below) in found)
    assert sum(1 + len(addresses(share)) for _, share in found) == n


# -- on a cluster ------------------------------------------------------------------------------------------------------


def test_passes_are_messages(client, here, monkeypatch):
    def refuse(*_):
        pytest.fail("tasks")

    monkeypatch.setattr(fastgmm.dask.sums.ClusterRunner, "_once", refuse)
    assert_same_bits(fastgmm.dask.fit(model("full"), generated(LENGTHS), client=client), here)


def test_workers_hand_on(client, here, monkeypatch):
    """The caller speaks to one worker, and that to the other."""
    monkeypatch.setattr(calls, "FAN", 1)
    asked = []
    real = calls.Calls._round
    monkeypatch.setattr(
        calls.Calls, "_round", lambda self, work, shares: asked.append(shares) or real(self, work, shares)
    )
    assert_same_bits(fastgmm.dask.fit(model("full"), generated(LENGTHS), client=client), here)
    assert {len(shares) for shares in asked} == {2}


def test_slabs_that_dask_spilled_to_disk(client, here):
    """From the second iteration on, all of them are; a pass reads them and does as they had been in memory."""
    spilled = []

    def spill(dask_worker):
        data = dask_worker.data
        while data.memory:
            data.evict()
        return len(data.memory), len(data.disk)

    def between(_):
        spilled.append(np.sum(list(client.run(spill).values()), axis=0))

    assert_same_bits(fastgmm.dask.fit(model("full"), generated(LENGTHS), client=client, callback=between), here)
    in_memory, on_disk = np.transpose(spilled)
    np.testing.assert_array_equal(in_memory, [0] * 4)
    assert (on_disk >= 16).all()  # a fit before may not have been forgotten yet


def test_nothing_stays_behind(client):
    fastgmm.dask.fit(model("diag"), generated(LENGTHS), client=client)

    def left(dask_worker):
        return [name for name in [*dask_worker.handlers, *dask_worker.plugins] if name.startswith("fastgmm")]

    assert [*client.run(left).values()] == [[], []]


def test_a_worker_joins_and_takes_slabs_over(here):
    with local(1) as client:
        shared, alone = [], []

        def grow(info):
            if info.iteration == 1:
                client.cluster.scale(2)
                client.wait_for_workers(2, timeout=60)
                alone.extend(shared)

        real = calls.Calls._round

        def watched(self, work, shares):
            shared.append(len(shares))
            return real(self, work, shares)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(calls.Calls, "_round", watched)
            patch.setattr(calls, "RENEW_SECONDS", 0.0)
            there = fastgmm.dask.fit(model("full"), generated(LENGTHS), client=client, callback=grow)
        assert_same_bits(there, here)
        assert set(alone) == {1}
        assert set(shared[len(alone) :]) == {2}  # from the next iteration on
        assert len(shared) > len(alone)


def test_a_worker_leaves(here):
    with local(2) as client:

        def shrink(info):
            if info.iteration == 1:
                client.retire_workers(sorted(client.nthreads())[:1], close_workers=True)

        there = fastgmm.dask.fit(model("full"), generated(LENGTHS), client=client, callback=shrink)
        assert_same_bits(there, here)


def test_workers_in_use_are_not_closed_by_an_adaptive_cluster(client):
    def closable(dask_scheduler):
        return dask_scheduler.workers_to_close(n=1)

    during = []

    def look(_):
        during.append(client.run_on_scheduler(closable))

    assert len(client.run_on_scheduler(closable)) == 1
    fastgmm.dask.fit(model("full"), generated(LENGTHS), client=client, callback=look)
    assert during[-1] == []


def test_workers_that_do_not_answer_leave_passes_to_tasks(client, here, monkeypatch, caplog):
    """The handler is not there: as on workers behind a gateway, the scheduler still reaches them."""
    monkeypatch.setattr(calls, "GONE_SECONDS", 0.01)
    monkeypatch.setattr(session.Session, "__init__", renamed(session.Session.__init__))
    with caplog.at_level(logging.WARNING):
        assert_same_bits(fastgmm.dask.fit(model("full"), generated(LENGTHS), client=client), here)
    assert "passes go through the scheduler" in caplog.text


def renamed(init):
    def made(self, _, cluster):
        init(self, "fastgmm-nobody", cluster)

    return made


def test_workers_of_another_release_are_refused(client, monkeypatch):
    """One that joined after the fit had looked at all of them."""
    real = serve.PassServer.__init__
    monkeypatch.setattr(
        serve.PassServer, "__init__", lambda self, name, d, dtype, _: real(self, name, d, dtype, ("0.0", "kernels"))
    )
    with pytest.raises(ClusterError, match=r"the caller has 0\.0"):
        fastgmm.dask.fit(model("diag"), generated(LENGTHS), client=client)


def test_other_errors_of_workers_are_raised(client, monkeypatch):
    monkeypatch.setattr(calls.Calls, "_held", broken(calls.Calls._held))
    with pytest.raises(TypeError):
        fastgmm.dask.fit(model("diag"), generated(LENGTHS), client=client)


def broken(held):
    def some(self, sizes):
        found = held(self, sizes)
        self._keys = [[key] for key in self._keys]  # no key of anything
        return found

    return some
