"""Which voices are there? A slug is reserved when a job is opened; the voice is ready when a version was published."""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.errors import Conflict, InvalidInput, NotFound
from libs.common.paths import slugify
from services.gateway import slugs
from services.gateway.accounts.current import Caller
from services.gateway.audit import audit
from services.gateway.database import new_id, one_at_a_time, utcnow
from services.gateway.describing import describe
from services.gateway.text import is_key
from services.gateway.voices.tables import GONE, Voice, VoiceStatus


class VoiceNotReady(Conflict):
    """The voice has no version yet"""

    code = "voice_not_ready"
    suggested_actions = ("Wait until its training job has completed.",)


async def find(session: AsyncSession, caller: Caller, key: str, *, for_update: bool = False) -> Voice:
    """The voice with id or slug `key`; raises NotFound, also for somebody else's."""
    voice = None
    if is_key(key):
        statement = select(Voice).where(
            or_(Voice.id == key, Voice.slug == key), caller.sees(Voice.owner_id), Voice.status.not_in(GONE)
        )
        voice = await session.scalar(statement.with_for_update() if for_update else statement)
    if voice is None:
        raise NotFound(f"there is no voice {key[:80]!r}", field="voice")
    return voice


async def find_by_any_name(session: AsyncSession, caller: Caller, key: str) -> Voice:
    """The voice by id, slug, or the name that its owner, the caller, gave it (the newest one of that name)."""
    try:
        return await find(session, caller, key)
    except NotFound:
        if "\0" in key:  # PostgreSQL has no text with it
            raise
        voice = await session.scalar(
            select(Voice)
            .where(Voice.owner_id == caller.id, Voice.name == key.strip(), Voice.status.not_in(GONE))
            .order_by(Voice.id.desc())
            .limit(1)
        )
        if voice is None:
            raise
        return voice


async def find_ready(
    session: AsyncSession,
    caller: Caller,
    key: str,
    *,
    to: Literal["convert", "speak"] = "convert",
    field: str = "voice",
) -> Voice:
    """A voice to use, by id, slug or name: to convert recordings into, or to have it speak text.

    Raises NotFound, also for a stranger's, VoiceNotReady, and InvalidInput for a voice that does the other thing.
    """
    voice = await find_by_any_name(session, caller, key)
    expect_ready(voice)
    kind = str((voice.card or {}).get("kind", "rvc"))
    if (kind == "rvc") is (to == "speak"):
        can = "converts recordings and does not speak text" if kind == "rvc" else "speaks text and converts nothing"
        raise InvalidInput(f"the voice {voice.slug!r} {can}", field=field, actions=("Choose another voice.",))
    return voice


def expect_ready(voice: Voice) -> str:
    """The job that made the version which is served; raises VoiceNotReady for a voice without one."""
    if voice.status != VoiceStatus.ready.value or voice.job_id is None:
        failed = voice.status == VoiceStatus.failed.value
        raise VoiceNotReady(
            f"voice {voice.slug!r} is {voice.status}",
            actions=("Read why in its job, and retry it or start another.",) if failed else None,
        )
    return voice.job_id


async def listing(
    session: AsyncSession, caller: Caller, *, status: VoiceStatus | None, after: str | None, limit: int
) -> list[Voice]:
    """Up to `limit` voices that the caller may see, newest first."""
    statement = select(Voice).where(caller.sees(Voice.owner_id), Voice.status.not_in(GONE))
    if status is not None:
        statement = statement.where(Voice.status == status.value)
    if after is not None:
        statement = statement.where(Voice.id < after)
    return list(await session.scalars(statement.order_by(Voice.id.desc()).limit(limit)))


async def reserve(
    session: AsyncSession, *, owner_id: str, name: str, dataset_id: str | None = None, preset: str = ""
) -> Voice:
    """The voice that a new job will train: the owner's own voice of that name anew, otherwise one with a fresh slug.

    It is not deleted before the transaction ends; then the job is there, and keeps it.
    """
    await one_at_a_time(session, "voice", owner_id, name)
    own = select(Voice).where(Voice.owner_id == owner_id, Voice.status.not_in(GONE)).with_for_update()
    voice = await session.scalar(own.where(Voice.name == name).order_by(Voice.id.desc()).limit(1))
    voice = voice or await session.scalar(own.where(Voice.slug == slugify(name)))
    if voice is not None:
        _wait_again(voice)
        return voice
    voice, _renamed = await slugs.insert(
        session,
        lambda slug: Voice(
            id=new_id("vox"), owner_id=owner_id, slug=slug, name=name, dataset_id=dataset_id, preset=preset, card={}
        ),
        Voice.slug,
        name,
        "voice",
    )
    audit.record(session, owner_id, "voice.reserved", voice.id, slug=voice.slug)
    return voice


async def publish(
    session: AsyncSession,
    *,
    owner_id: str,
    job_id: str,
    slug: str,
    name: str,
    card: dict[str, Any],
    weights_sha256: str = "",
    index_sha256: str = "",
    sample_rate: int = 0,
    preset: str = "",
    dataset_id: str | None = None,
    place: int = 0,
) -> Voice:
    """The voice, ready, serving the version that `job_id` made. Said twice it changes nothing (F-036).

    A voice that was deleted while its job ran stays deleted. Of two versions the one that was committed later is served
    (`place`, as in `voice.json`), whichever is told first. Paths are kept relative to MODELS_ROOT (F-072).
    """
    voice = await session.scalar(select(Voice).where(Voice.slug == slug).with_for_update())
    if voice is None:
        voice = Voice(id=new_id("vox"), owner_id=owner_id, slug=slug, name=name, version=0, card={})
        session.add(voice)
    elif voice.owner_id != owner_id:
        raise Conflict(f"voice {slug!r} is not of the job's owner")
    else:
        is_said_again = voice.job_id == job_id and voice.status == VoiceStatus.ready.value
        is_overtaken = 0 < place < int(voice.card.get("revision", 0))
        if voice.status in GONE or is_said_again or is_overtaken:
            return voice
    voice.status = VoiceStatus.ready.value
    voice.job_id = job_id
    voice.path = f"{slug}/versions/{job_id}"
    voice.card = card | ({"revision": place, "version": job_id} if place else {})
    voice.weights_sha256 = weights_sha256
    voice.index_sha256 = index_sha256
    voice.sample_rate = sample_rate
    voice.preset = preset
    if dataset_id is not None:
        voice.dataset_id = dataset_id
    voice.version = (voice.version or 0) + 1
    voice.updated_at = utcnow()
    await session.flush()
    audit.record(session, audit.SYSTEM, "voice.published", voice.id, job_id=job_id, weights_sha256=weights_sha256)
    return voice


async def expect_again(session: AsyncSession, *, slug: str) -> None:
    """A job that makes this voice is taken up again. Raises Conflict when the voice was deleted meanwhile."""
    voice = await session.scalar(select(Voice).where(Voice.slug == slug).with_for_update())
    if voice is None or voice.status in GONE:
        raise Conflict(f"the voice {slug!r} of this job was deleted", actions=("Start a new job.",))
    _wait_again(voice)


def _wait_again(voice: Voice) -> None:
    """A voice that failed to get its first version waits for it again."""
    if voice.status == VoiceStatus.failed.value:
        voice.status = VoiceStatus.processing.value
        voice.version += 1
        voice.updated_at = utcnow()


async def give_up(session: AsyncSession, *, slug: str) -> None:
    """A job that was to make the first version has failed: the voice shows it. One with a version stays ready."""
    voice = await session.scalar(select(Voice).where(Voice.slug == slug).with_for_update())
    if voice is not None and voice.status == VoiceStatus.processing.value:
        voice.status = VoiceStatus.failed.value
        voice.version += 1
        voice.updated_at = utcnow()


async def change(
    session: AsyncSession,
    caller: Caller,
    key: str,
    *,
    name: str | None,
    description: str | None,
    if_match: str | None,
) -> Voice:
    """The voice renamed or described anew; its slug stays. Raises PreconditionFailed when `if_match` is outdated."""
    voice = await find(session, caller, key, for_update=True)
    describe(session, caller, voice, "voice", name=name, description=description, if_match=if_match)
    return voice
