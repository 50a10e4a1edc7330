"""What do services without the database know about jobs? KV `jobs`, a copy that the gateway alone writes."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import select

from libs.common.bus import Bucket, Bus
from libs.common.errors import Conflict, Unavailable
from services.gateway.database import Database
from services.gateway.jobs.schemas import JobOut
from services.gateway.jobs.tables import Job

TRIES = 10
_PAGE = 200


async def put(bucket: Bucket, job: dict[str, Any], *, even_if_newer: bool = False) -> bool:
    """Writes `job` unless the bucket has this version or a newer one; by compare-and-set, so gateways cannot undo
    each other. True when it was written; raises Unavailable."""
    key = str(job["id"])
    content = json.dumps(job).encode()
    for _ in range(TRIES):
        entry = await bucket.get(key)
        try:
            if entry is None:
                await bucket.create(key, content)
                return True
            if even_if_newer:
                if entry.value == content:
                    return False
            elif _version(entry.value) >= int(job["version"]):
                return False
            await bucket.update(key, content, entry.revision)
            return True
        except Conflict:
            continue
    raise Unavailable(f"the projection of {key} is being written by too many at once")


def _version(content: bytes) -> int:
    """The version in the bucket; 0 for content that nobody can read, which is then replaced."""
    try:
        return int(json.loads(content)["version"])
    except (ValueError, KeyError, TypeError):
        return 0


async def renew(database: Database, bus: Bus, job_id: str, max_retries: int) -> None:
    """Brings the projection of one job to what the database says."""
    async with database.read() as session:
        job = await session.get(Job, job_id)
    if job is not None:
        await put(bus.bucket("jobs"), JobOut.of(job, max_retries).model_dump(mode="json"))


async def rebuild(database: Database, bus: Bus, max_retries: int) -> tuple[int, int]:
    """The whole bucket anew from the database; returns how many keys were written and how many removed."""
    bucket = bus.bucket("jobs")
    known: set[str] = set()
    written, after = 0, ""
    while True:
        async with database.read() as session:
            page = list((await session.scalars(select(Job).where(Job.id > after).order_by(Job.id).limit(_PAGE))).all())
        for job in page:
            if job.swept_at is not None:
                continue  # over for long, and taken out on purpose
            known.add(job.id)
            written += await put(bucket, JobOut.of(job, max_retries).model_dump(mode="json"), even_if_newer=True)
        if len(page) < _PAGE:
            break
        after = page[-1].id
    strangers = [key for key in await bucket.keys() if key not in known]
    for key in strangers:
        async with database.read() as session:  # it may be younger than the listing
            if await session.get(Job, key) is not None:
                continue
        await bucket.purge(key)
    return written, len(strangers)
