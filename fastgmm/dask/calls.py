"""A pass by messages from the caller to the workers, without the scheduler; `fastgmm.dask.serve` answers them.

1. The caller knows which worker holds which slab, and asks each for the slabs that it is to run: one message, one
   answer. Of more than `FAN` workers, some hand on to others, and merge their sums.
2. From the blocks that the answers cover the caller sees what is missing. That is asked for again, from those who hold
   it now: the scheduler makes slabs again that died with a worker. What was answered is kept.
3. Once in a while the caller asks the scheduler which workers there are. Those that joined take over slabs.
4. Where this does not work (the workers cannot be reached from here, or do not answer), `Unreachable` says so, and the
   pass is left to tasks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from distributed.comm import CommClosedError

from fastgmm.dask.cluster import LOST
from fastgmm.dask.rows import DaskRows
from fastgmm.dask.serve import Answer, ask, collected
from fastgmm.dask.session import Session
from fastgmm.dask.shares import Share, addresses, assign, moves, tree
from fastgmm.partials import Partial, Work

FAN = 8
"""Workers that one process speaks to in a pass: a message takes its sender about a millisecond (docs/scaling.md)."""

RENEW_SECONDS = 1.0
"""How often the caller asks which workers there are, at the most; and it takes at most a twentieth of the time."""

WATCH_SECONDS = 1.0
"""How often it asks, while an answer is outstanding, whether that worker is still there: a host may vanish silently."""

REACH_SECONDS = 5.0
"""How long the first message to a worker may take."""

GONE_SECONDS = 2.0
"""How long the scheduler may take to notice that a worker which failed is gone."""

ROUNDS = 4
"""Rounds without progress after which a pass is left to tasks."""


class Unreachable(Exception):
    """Passes by messages do not work on this cluster."""


class Calls:
    """Runs passes over the slabs of distributed rows that stay on their workers.

    Parameters
    ----------
    rows : DaskRows
    session : Session
    """

    def __init__(self, rows: DaskRows, session: Session) -> None:
        self._rows = rows
        self._session = session
        self._client = rows.cluster.client
        self._threads: dict[str, int] = {}
        self._shares: list[tuple[str, list[int]]] = []
        self._keys: list[str] = []
        self._look_at = 0.0
        self._suspects: set[str] = set()

    def run(self, work: Work) -> list[Partial]:
        """Return sums that together cover the grid.

        Raises
        ------
        Unreachable
            If workers that are there do not answer.
        ClusterError
            If no worker is left, or one has another release.
        """
        wanted = {n: span for n, span in enumerate(self._rows.blocks_of(work.block_rows)) if span[0] < span[1]}
        found: list[Partial] = []
        rounds = 0
        while wanted:
            if rounds == ROUNDS:
                msg = f"workers do not answer: {', '.join(sorted(self._suspects))}"
                raise Unreachable(msg)
            self._look(again=rounds > 0 or bool(self._suspects))
            shares = [(address, [n for n in numbers if n in wanted]) for address, numbers in self._shares]
            parts = self._round(work, [(address, numbers) for address, numbers in shares if numbers])
            found += parts
            done = {n for n, (begin, end) in wanted.items() if any(p.begin <= begin and end <= p.end for p in parts)}
            wanted = {n: span for n, span in wanted.items() if n not in done}
            rounds = 1 if done else rounds + 1
        return found

    # -- who holds what ------------------------------------------------------------------------------------------------

    def _look(self, *, again: bool) -> None:
        """Find out which workers there are, if that is due, and share out the slabs if they changed."""
        start = time.monotonic()
        if not again and start < self._look_at:
            return
        threads = dict(self._client.nthreads())
        if again or threads != self._threads:
            first = not self._threads
            self._wait_for_the_dead()
            self._share_out()
            if first:
                self._reach()
        now = time.monotonic()
        self._look_at = now + max(RENEW_SECONDS, 20.0 * (now - start))

    def _share_out(self) -> None:
        rows = self._rows
        sizes = rows.lengths
        shares = self._held(sizes)
        better = moves(shares, sizes, self._threads) if self._threads else []
        if better:
            rows.move(better)
            shares = self._held(sizes)
        self._shares = sorted(((a, numbers) for a, numbers in shares.items() if numbers), key=lambda one: one[1][0])

    def _held(self, sizes: list[int]) -> dict[str, list[int]]:
        slabs = self._rows.ready()
        self._threads = dict(self._client.nthreads())
        self._session.hold(self._threads)
        self._keys = [slab.key for slab in slabs]
        holders = self._client.who_has(slabs)
        return assign([holders.get(key, ()) for key in self._keys], sizes, self._threads)

    def _wait_for_the_dead(self) -> None:
        """Wait until the scheduler knows that those which did not answer are gone, if they are."""
        until = time.monotonic() + GONE_SECONDS
        while self._suspects & set(self._client.nthreads()) and time.monotonic() < until:
            time.sleep(0.02)

    def _reach(self) -> None:
        """See whether a worker answers at all: where none can be reached from here, a connection is tried for long."""
        client = self._client

        async def call() -> None:
            await asyncio.wait_for(client.rpc(self._shares[0][0]).identity(), REACH_SECONDS)

        if self._shares:
            try:
                client.sync(call)
            except (*LOST, OSError) as error:
                if self._shares[0][0] in client.nthreads():
                    msg = f"no connection to {self._shares[0][0]} from here: {error!r}"
                    raise Unreachable(msg) from error

    # -- messages ------------------------------------------------------------------------------------------------------

    def _round(self, work: Work, shares: Sequence[tuple[str, Sequence[int]]]) -> list[Partial]:
        """Ask all workers once; return what came."""
        orders = tree([(address, tuple(self._keys[n] for n in numbers)) for address, numbers in shares], FAN)
        answer: Answer = self._client.sync(self._ask, work, orders)
        parts, wrong = answer
        self._suspects = {address for address, _ in wrong}
        for _, error in wrong:
            if not isinstance(error, (*LOST, OSError)):
                raise error
        return parts

    async def _ask(self, work: Work, orders: list[tuple[str, Share]]) -> Answer:
        calls = (self._watched(address, work, share) for address, share in orders)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        return collected([address for address, _ in orders], answers)

    async def _watched(self, address: str, work: Work, share: Share) -> Answer | None:
        """Ask, and give up when the scheduler has no such worker any more."""
        call = asyncio.ensure_future(ask(self._client.rpc, address, self._session.name, work, share))
        concerned = {address, *addresses(share)}
        try:
            while not (await asyncio.wait([call], timeout=WATCH_SECONDS))[0]:
                gone = concerned - set(await self._client.scheduler.ncores())
                if gone:
                    msg = f"{', '.join(sorted(gone))} left the cluster"
                    raise CommClosedError(msg)
            return call.result()
        finally:
            call.cancel()
