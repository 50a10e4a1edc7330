"""What if the broker comes back without its store? Then it knows no job any more, and is told of all that go on.

A broker's store carries an identity that the gateway wrote into it; the database remembers whose commands it has sent
to which store. When the two differ the store is new: its folder was lost, or another broker stands in its place.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from sqlalchemy import select

from libs.common.bus import Bus
from libs.common.errors import Conflict, PlatformError
from libs.common.jobs import ACTIVE
from libs.common.logs import get_logger
from services.gateway.database import Database, new_ulid, utcnow
from services.gateway.jobs import lifecycle, outbox, projection
from services.gateway.jobs.tables import BrokerStore, Job

log = get_logger("jobs.continuity")

KEY = "installation"  # in the bucket `control`, beside `cancel.<job>`
_ROW = 1


class Continuity:
    """Looks every `every` whether the broker still has the store that was told of the jobs."""

    def __init__(self, database: Database, bus: Bus, every: timedelta, max_retries: int) -> None:
        self._database = database
        self._bus = bus
        self._every = every.total_seconds()
        self._max_retries = max_retries

    async def run(self) -> None:
        """Endless; a broker that is away is looked at again."""
        while True:
            try:
                await self.look()
            except PlatformError as error:
                log.debug("continuity.waiting", detail=error.detail)
            await asyncio.sleep(self._every)

    async def look(self) -> int:
        """Tells a new store of the jobs that go on; returns how many there were. Raises Unavailable."""
        identity = await self._identity()
        async with self._database.read() as session:
            known = await session.get(BrokerStore, _ROW)
        if known is None:
            await self._remember(identity)
            return 0
        if known.identity == identity:
            return 0
        log.warning("continuity.store_lost", known=known.identity, found=identity)
        await projection.rebuild(self._database, self._bus, self._max_retries)
        return await self._tell_again(identity)

    async def _identity(self) -> str:
        """The identity of the broker's store, which is given one when it has none."""
        bucket = self._bus.bucket("control")
        while True:
            entry = await bucket.get(KEY)
            if entry is not None:
                return entry.value.decode()
            identity = new_ulid()
            try:
                await bucket.create(KEY, identity.encode())
            except Conflict:
                continue  # another gateway was faster
            return identity

    async def _remember(self, identity: str) -> None:
        async with self._database.write() as session:
            if await session.get(BrokerStore, _ROW) is None:
                session.add(BrokerStore(id=_ROW, identity=identity, seen_at=utcnow()))

    async def _tell_again(self, identity: str) -> int:
        """In one transaction, so that a gateway that is killed in between does it again and another does not."""
        async with self._database.write() as session:
            row = await session.get(BrokerStore, _ROW, with_for_update=True)
            if row is None or row.identity == identity:
                return 0
            await outbox.forget_positions(session)
            jobs = (await session.scalars(select(Job).where(Job.status.in_(ACTIVE)).with_for_update())).all()
            for job in jobs:
                await lifecycle.send_again(session, job)
            row.identity, row.seen_at = identity, utcnow()
        log.warning("continuity.told_again", jobs=len(jobs))
        return len(jobs)
