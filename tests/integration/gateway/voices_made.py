"""Voices for the gateway's tests, as the jobs domain makes them."""

from __future__ import annotations

import json
from typing import Any

from services.gateway.voices import registry
from services.gateway.voices.tables import Voice
from tests.integration.gateway.conftest import House, Person

JOB = "job_01JD3Q0V6X9W4T2M8N5R7K1A3B"


CARD = {"preset": "lite", "quality": {"similarity": 0.81}}


SPEAKING_CARD = {"kind": "xtts", "preset": "xtts-v2", "language": "en"}


async def make_speaking_voice(house: House, owner: Person, name: str = "Linda") -> Voice:
    """A voice that speaks text, without files: the gateway has its card in the database."""
    async with house.database.write() as session:
        reserved = await registry.reserve(session, owner_id=owner.id, name=name)
        return await registry.publish(
            session,
            owner_id=owner.id,
            job_id="job_1",
            slug=reserved.slug,
            name=name,
            card=SPEAKING_CARD,
            weights_sha256="ef" * 32,
            sample_rate=24_000,
            preset="xtts-v2",
        )


async def make_voice(house: House, owner: Person, name: str = "Anna, warm", job_id: str = JOB) -> Voice:
    """A voice as the jobs domain makes one, with its files."""
    async with house.database.write() as session:
        reserved = await registry.reserve(session, owner_id=owner.id, name=name)
    version = house.parts.paths.voice(reserved.slug).version(job_id)
    version.folder.mkdir(parents=True, exist_ok=True)
    version.weights.write_bytes(b"weights" * 200_000)
    version.index.write_bytes(b"index" * 1000)
    version.card.write_text(json.dumps(CARD))
    async with house.database.write() as session:
        return await publish_voice(session, owner, reserved.slug, job_id)


async def publish_voice(session: Any, owner: Person, slug: str, job_id: str = JOB, place: int = 0) -> Voice:
    return await registry.publish(
        session,
        owner_id=owner.id,
        job_id=job_id,
        slug=slug,
        name="Anna, warm",
        card=CARD,
        weights_sha256="ab" * 32,
        index_sha256="cd" * 32,
        sample_rate=22050,
        preset="lite",
        place=place,
    )
