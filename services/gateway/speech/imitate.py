"""Who may have a text said by the voice of a recording? Whoever states the speaker's consent, which is put on record.

form ─▶ ingest stages and examines ─▶ consent into the audit trail ─▶ inference ─▶ the sound; the recording is dropped
"""

from __future__ import annotations

from pydantic import ValidationError

from libs.common.errors import InvalidInput, RecordingTooLong, RecordingTooShort
from libs.common.invalid import first_at_fault
from services.gateway.accounts.current import Caller
from services.gateway.audit import audit
from services.gateway.inner import InnerProblem
from services.gateway.parts import Parts
from services.gateway.speech.schemas import ImitationRequest
from services.gateway.speech.synthesize import KEPT_HEADERS
from services.gateway.staging import Form, Staged, release
from services.gateway.streaming import ForwardedResponse, forward
from services.gateway.voices import registry

SHORTEST, LONGEST = 3.0, 30.0
"""Seconds of a recording: less does not tell how somebody sounds, and XTTS hears no more than this."""
_HOW = ("Say in `consent` what the speaker has agreed to and how you know, and in `speaker` who it is.",)


async def imitate(parts: Parts, caller: Caller, form: Form) -> ForwardedResponse:
    """The sound as it comes from inference; nothing is kept of the recording, whatever happens.

    Raises InvalidInput (no consent, a field, a recording of another length), NotFound for a voice in `through`, and
    what ingest and inference say.
    """
    uploads = [file.upload_id for file in form.files]

    async def drop() -> None:
        await release(parts, uploads)

    try:
        wanted = _wanted(form)
        recording = _recording(form)
        async with parts.database.write() as session:
            through = None
            if wanted.through is not None:
                through = await registry.find_ready(session, caller, wanted.through, field="through")
                audit.record(session, caller.id, "voice.used", through.id, job_id=through.job_id)
            audit.record(
                session,
                caller.id,
                "consent.stated",
                recording.sha256,
                speaker=wanted.speaker,
                statement=wanted.consent,
                seconds=recording.duration_seconds,
                characters=len(wanted.text),
                language=wanted.language,
            )
    except BaseException:
        await drop()
        raise
    said = wanted.model_dump(exclude={"speaker", "consent"})
    return await forward(
        parts.inference,
        "POST",
        "/speech",
        json=said | {"reference": recording.upload_id, "through": through.slug if through else None},
        timeout=parts.settings.synthesis_timeout.total_seconds(),
        keep=KEPT_HEADERS,
        afterwards=drop,
    )


def _wanted(form: Form) -> ImitationRequest:
    form.expect_only(*ImitationRequest.model_fields)
    given = {name: value for name, value in form.fields.items() if value.strip()}
    for name in ("consent", "speaker"):
        if name not in given:
            raise InvalidInput(
                "a voice is imitated only with the consent of its speaker, which is put on record",
                field=name,
                actions=_HOW,
            )
    try:
        wanted = ImitationRequest.model_validate(given)
    except ValidationError as error:
        raise first_at_fault(error) from None
    if wanted.pitch_shift and wanted.through is None:
        raise InvalidInput("pitch_shift needs `through`: an XTTS voice has one pitch", field="pitch_shift")
    return wanted


def _recording(form: Form) -> Staged:
    if form.rejected:
        raise InnerProblem(form.rejected[0][1])
    if len(form.files) != 1:
        raise InvalidInput(
            f"one recording is needed, {len(form.files)} came", field="audio", actions=("Send one file as `audio`.",)
        )
    recording = form.files[0]
    seconds = recording.duration_seconds
    said = f"the recording has {seconds:.1f} s; {SHORTEST:g} to {LONGEST:g} s of one speaker are needed"
    if seconds < SHORTEST:
        raise RecordingTooShort(said, field="audio", limit=SHORTEST)
    if seconds > LONGEST:
        raise RecordingTooLong(said, field="audio", limit=LONGEST, actions=("Cut a passage out of it.",))
    return recording
