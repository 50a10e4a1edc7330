"""How does a recording get another voice? Staged by ingest, converted by inference, streamed back, and forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import ConfigDict, ValidationError

from libs.common.conversion_options import ConversionParameters
from libs.common.errors import InvalidInput
from libs.common.invalid import first_at_fault
from libs.common.pitch_requests import check_method, read_f0_points
from services.gateway.accounts.current import Caller
from services.gateway.audit import audit
from services.gateway.inner import InnerProblem
from services.gateway.parts import Parts
from services.gateway.staging import Form, release
from services.gateway.streaming import ForwardedResponse, forward
from services.gateway.voices import registry

VOICE_FIELDS = ("voice", "voice_id", "model_id")
KEPT_HEADERS = ("x-voice-version", "x-voice-sha256", "x-duration-seconds", "x-real-time-factor")


class ConversionOptions(ConversionParameters):
    """How to convert, and in which format the sound comes back."""

    model_config = ConfigDict(extra="ignore")

    format: Literal["wav", "flac", "mp3", "ogg"] = "wav"


def voice_of(fields: Mapping[str, str]) -> str:
    """What a form calls the voice; raises InvalidInput when it does not."""
    key = next((fields[name].strip() for name in VOICE_FIELDS if fields.get(name, "").strip()), "")
    if not key:
        raise InvalidInput("the voice is not named", field="voice", actions=("Send a voice's id, slug or name.",))
    return key


def options_of(fields: Mapping[str, str]) -> ConversionOptions:
    """The options in a form's fields; raises InvalidInput that names the first field at fault and its limits.

    What only the worker knows, such as whether a method's weights are installed, is not judged here.
    """
    given = {name: fields[name] for name in ConversionOptions.model_fields if fields.get(name, "").strip()}
    try:
        options = ConversionOptions.model_validate(given)
    except ValidationError as error:
        raise first_at_fault(error) from None
    check_method(options.f0_method)
    read_f0_points(options.f0_file, "f0_file")
    return options


async def convert(parts: Parts, caller: Caller, form: Form) -> ForwardedResponse:
    """The converted sound as it comes from inference.

    Raises InvalidInput, NotFound for a voice that is not the caller's, VoiceNotReady, what ingest said about the
    recording, and what inference says, such as Busy. The staged recording is dropped in every case.
    """
    uploads = [file.upload_id for file in form.files]

    async def drop() -> None:
        await release(parts, uploads)

    try:
        _check_single(form)
        form.expect_only(*ConversionOptions.model_fields, *VOICE_FIELDS)
        key = voice_of(form.fields)
        options = options_of(form.fields)
        async with parts.database.write() as session:
            voice = await registry.find_ready(session, caller, key)
            audit.record(session, caller.id, "voice.used", voice.id, job_id=voice.job_id, sha256=form.files[0].sha256)
    except BaseException:
        await drop()
        raise
    return await forward(
        parts.inference,
        "POST",
        "/conversions",
        json={"upload_id": uploads[0], "voice": voice.slug, **options.model_dump()},
        timeout=parts.settings.convert_timeout.total_seconds(),
        keep=KEPT_HEADERS,
        afterwards=drop,
    )


def _check_single(form: Form) -> None:
    if form.rejected:
        raise InnerProblem(form.rejected[0][1])
    if len(form.files) != 1:
        raise InvalidInput(
            f"one recording is needed, {len(form.files)} came", field="audio", actions=("Send one file as `audio`.",)
        )
