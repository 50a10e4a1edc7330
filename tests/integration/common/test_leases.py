"""Leases with fencing tokens: one owner, growing tokens, one commit."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest

from libs.common.bus import Bus
from libs.common.errors import LeaseLost
from libs.common.events import ManifestRef
from libs.common.leases import Committed, Finished, Held, Lease, LeaseRecord, Leases

TTL = timedelta(minutes=1)
REF = ManifestRef(path="anna/manifest-1.json", sha256="0" * 64, token=1)


def leases(bus: Bus, owner: str) -> Leases:
    return Leases(bus.bucket("leases"), owner, TTL)


async def take(bus: Bus, owner: str, attempt: int = 1) -> Lease:
    claim = await leases(bus, owner).acquire("job_1", "train", attempt)
    assert isinstance(claim, Lease)
    return claim


async def let_run_out(lease: Lease) -> None:
    """As if its owner had been silent for longer than the lease lasts."""
    await lease._swap(renewed_at=time.time() - TTL.total_seconds() - 1.0)


async def test_only_one_of_many_owners_gets_the_lease(bus: Bus) -> None:
    claims = await asyncio.gather(*(leases(bus, f"w{n}").acquire("job_1", "train", 1) for n in range(10)))

    assert sum(isinstance(c, Lease) for c in claims) == 1
    assert sum(isinstance(c, Held) for c in claims) == 9


async def test_the_token_grows_with_each_owner(bus: Bus) -> None:
    first = await take(bus, "a")
    await let_run_out(first)

    second = await take(bus, "b")

    assert (first.token, second.token) == (1, 2)


async def test_a_renewed_lease_cannot_be_taken(bus: Bus) -> None:
    lease = await take(bus, "a")
    await let_run_out(lease)
    await lease.renew()

    assert isinstance(await leases(bus, "b").acquire("job_1", "train", 1), Held)


async def test_a_sleeper_can_neither_renew_nor_commit(bus: Bus) -> None:
    sleeper = await take(bus, "a")
    await let_run_out(sleeper)
    successor = await take(bus, "b")

    with pytest.raises(LeaseLost):
        await sleeper.commit(REF)
    with pytest.raises(LeaseLost):
        await sleeper.renew()

    await successor.commit(REF.model_copy(update={"token": 2}))
    claim = await leases(bus, "c").acquire("job_1", "train", 1)
    assert isinstance(claim, Committed)
    assert claim.manifest.token == 2


async def test_of_two_commits_at_once_one_wins(bus: Bus) -> None:
    lease = await take(bus, "a")
    twin = Lease(bus.bucket("leases"), lease.key, lease.record, lease.revision)

    results = await asyncio.gather(
        lease.commit(REF), twin.commit(REF.model_copy(update={"sha256": "1" * 64})), return_exceptions=True
    )

    assert sum(isinstance(r, LeaseLost) for r in results) == 1


async def test_a_released_lease_is_free_at_once(bus: Bus) -> None:
    await (await take(bus, "a")).release()

    assert (await take(bus, "b")).token == 2


async def test_a_verdict_is_repeated_until_a_new_attempt(bus: Bus) -> None:
    lease = await take(bus, "a")
    await lease.give_up({"code": "work_failed"})

    again = await leases(bus, "b").acquire("job_1", "train", 1)
    retried = await take(bus, "b", attempt=2)

    assert isinstance(again, Finished)
    assert retried.record.failures == 0
    assert retried.token == 2


async def test_deaths_without_progress_are_counted_and_progress_forgives_them(bus: Bus) -> None:
    await let_run_out(await take(bus, "a"))
    second = await take(bus, "b")
    assert second.record.stalls == 1
    await second.renew(mark="step 5")
    await let_run_out(second)

    third = await take(bus, "c")

    assert third.record.stalls == 0


async def test_failures_are_counted_across_owners(bus: Bus) -> None:
    assert await (await take(bus, "a")).fail() == 1
    assert await (await take(bus, "b")).fail() == 2

    entry = await bus.bucket("leases").get("job_1.train")
    assert entry is not None
    assert LeaseRecord.model_validate_json(entry.value).stalls == 0


async def test_nothing_changes_a_committed_record(bus: Bus) -> None:
    lease = await take(bus, "a")
    revision = await lease.commit(REF)

    await lease.renew("later")
    await lease.release()

    claim = await leases(bus, "b").acquire("job_1", "train", 1)
    assert claim == Committed(REF, revision, attempt=1)
