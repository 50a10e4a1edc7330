"""Who may finish a step? Leases with fencing tokens, kept in KV `leases` by compare-and-set.

One record per step of a job. Every change of owner raises the token by one. The commit of the step's manifest is a
compare-and-set of this very record, so a worker that slept past its lease and was replaced cannot commit: its revision
is old. Clocks decide only when a lease may be *taken*; that nobody commits twice rests on the revisions alone.

    free ──acquire──▶ owned(token n) ──renew──▶ owned ──commit──▶ committed
      ▲                   │  └──release──▶ free                └─ any later owner reads the manifest's reference
      └───────ttl passed──┘
    committed ──reopen──▶ owned(token n+1): a person retries, and what was made is gone or damaged
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict

from libs.common.bus import Bucket
from libs.common.errors import Conflict, LeaseLost
from libs.common.events import ManifestRef
from libs.common.metrics import LEASES_TAKEN_OVER


class LeaseRecord(BaseModel):
    """What the bucket holds for one step."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    owner: str = ""
    token: int = 0
    renewed_at: float = 0.0
    attempt: int = 1
    failures: int = 0
    mark: str = ""
    stalls: int = 0
    committed: ManifestRef | None = None
    failed: dict[str, Any] | None = None

    def expires_in(self, ttl: timedelta) -> float:
        """Seconds until the lease may be taken; 0 or less when it is free."""
        return 0.0 if not self.owner else self.renewed_at + ttl.total_seconds() - time.time()


@dataclass(frozen=True)
class Held:
    """Somebody else owns the step for about `seconds` more."""

    seconds: float


@dataclass(frozen=True)
class Committed:
    """The step is done, in this attempt; `manifest` names what it made."""

    manifest: ManifestRef
    revision: int
    attempt: int


@dataclass(frozen=True)
class Finished:
    """The step ended with a failure in this attempt; `problem` says which."""

    problem: dict[str, Any]
    failures: int


class Lease:
    """The right to work on a step, as long as it is renewed."""

    def __init__(self, bucket: Bucket, key: str, record: LeaseRecord, revision: int) -> None:
        self._bucket = bucket
        self.key = key
        self.record = record
        self.revision = revision
        self._turn = asyncio.Lock()
        self.is_lost = False

    @property
    def token(self) -> int:
        return self.record.token

    async def _swap(self, **changes: Any) -> None:
        async with self._turn:
            if self.is_lost:
                raise LeaseLost(self.key)
            if self.record.committed is not None:
                return  # its revision orders the commits of the installation, so nothing may raise it
            record = self.record.model_copy(update=changes)
            try:
                self.revision = await self._bucket.update(self.key, record.model_dump_json().encode(), self.revision)
            except Conflict as error:
                # A write whose answer was lost looks like a conflict with oneself: the content tells.
                entry = await self._bucket.get(self.key)
                if entry is None or LeaseRecord.model_validate_json(entry.value) != record:
                    self.is_lost = True
                    raise LeaseLost(f"{self.key} has another owner") from error
                self.revision = entry.revision
            self.record = record

    async def renew(self, mark: str | None = None) -> None:
        """Keeps the lease; `mark` says how far the work is. Raises LeaseLost, or Unavailable without a broker."""
        changes: dict[str, Any] = {"renewed_at": time.time()}
        if mark is not None:
            changes["mark"] = mark
        await self._swap(**changes)

    async def commit(self, manifest: ManifestRef) -> int:
        """The only commit of the step. Returns its revision, which grows over the whole installation."""
        await self._swap(committed=manifest, owner="", failed=None)
        return self.revision

    async def release(self) -> None:
        """Gives the step back at once, for a worker that is asked to go."""
        await self._swap(owner="", renewed_at=0.0, stalls=0)

    async def fail(self) -> int:
        """Counts a failure of the work and gives the step back; returns the count."""
        failures = self.record.failures + 1
        await self._swap(owner="", renewed_at=0.0, failures=failures, stalls=0)
        return failures

    async def give_up(self, problem: dict[str, Any]) -> None:
        """Ends the step for this attempt: a redelivery repeats the verdict, not the work."""
        await self._swap(owner="", renewed_at=0.0, failed=problem)


class Leases:
    """Takes leases for one worker."""

    def __init__(self, bucket: Bucket, owner: str, ttl: timedelta) -> None:
        self._bucket = bucket
        self._owner = owner
        self._ttl = ttl

    async def acquire(
        self, job_id: str, step: str, attempt: int, after_token: int = 0
    ) -> Lease | Held | Committed | Finished:
        """Takes the step, or says why not. Takeovers from a dead owner without new progress raise `stalls`.

        The token is above `after_token`, so it grows also when the broker has lost the record of the former ones.
        """
        key = f"{job_id}.{step}"
        while True:
            entry = await self._bucket.get(key)
            if entry is None:
                record = LeaseRecord(owner=self._owner, token=after_token + 1, renewed_at=time.time(), attempt=attempt)
                try:
                    revision = await self._bucket.create(key, record.model_dump_json().encode())
                except Conflict:
                    continue
                return Lease(self._bucket, key, record, revision)
            old = LeaseRecord.model_validate_json(entry.value)
            if old.committed is not None:
                return Committed(old.committed, entry.revision, old.attempt)
            if old.failed is not None and attempt <= old.attempt:
                return Finished(old.failed, old.failures)
            if (left := old.expires_in(self._ttl)) > 0:
                return Held(left)
            is_new_attempt = attempt > old.attempt
            died_without_progress = bool(old.owner) and not old.mark
            record = LeaseRecord(
                owner=self._owner,
                token=max(old.token, after_token) + 1,
                renewed_at=time.time(),
                attempt=max(attempt, old.attempt),
                failures=0 if is_new_attempt else old.failures,
                stalls=old.stalls + 1 if died_without_progress and not is_new_attempt else 0,
            )
            try:
                revision = await self._bucket.update(key, record.model_dump_json().encode(), entry.revision)
            except Conflict:
                continue
            if old.owner:
                LEASES_TAKEN_OVER.labels(step).inc()
            return Lease(self._bucket, key, record, revision)

    async def reopen(self, job_id: str, step: str, attempt: int, claim: Committed) -> Lease | None:
        """Takes a step that is done, because what it made is not there any more; None when somebody was faster.

        The token grows, so whatever the former owner might still do counts for nothing.
        """
        key = f"{job_id}.{step}"
        record = LeaseRecord(owner=self._owner, token=claim.manifest.token + 1, renewed_at=time.time(), attempt=attempt)
        try:
            revision = await self._bucket.update(key, record.model_dump_json().encode(), claim.revision)
        except Conflict:
            return None
        return Lease(self._bucket, key, record, revision)
