"""How does a recording get another voice? Staged by ingest, converted by inference, streamed back, and forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from libs.common.errors import InvalidInput
from libs.common.invalid import first_at_fault
from libs.common.pitch_requests import MethodName, check_method, read_f0_points
from services.gateway.accounts.current import Caller
from services.gateway.audit import audit
from services.gateway.inner import InnerProblem
from services.gateway.parts import Parts
from services.gateway.staging import Form, release
from services.gateway.streaming import ForwardedResponse, forward
from services.gateway.voices import registry

KEPT_HEADERS = ("x-voice-version", "x-voice-sha256", "x-duration-seconds", "x-real-time-factor")


class ConversionOptions(BaseModel):
    """How to convert; the defaults suit speech."""

    model_config = ConfigDict(extra="ignore")

    pitch_shift: float = Field(default=0, ge=-24, le=24, description="Semitones", examples=[-12])
    index_rate: float = Field(
        default=0.5, ge=0, le=1, description="How much the voice's own sounds replace the source's", examples=[0.75]
    )
    protect: float = Field(default=0.33, ge=0, le=0.5, description="Protection of voiceless sounds; 0.5 is none")
    rms_mix_rate: float = Field(default=0.25, ge=0, le=1, description="Volume envelope: 0 the source's, 1 the voice's")
    f0_method: MethodName = Field(default="auto", examples=["auto", "rmvpe", "harvest"])
    filter_radius: int = Field(default=3, ge=0, le=7, description="From 3 on harvest's pitch gets a median")
    fill_unvoiced: bool = Field(default=False, description="Pitch is interpolated through unvoiced frames")
    f0_file: str = Field(
        default="", description="A pitch of one's own: lines of `seconds,Hz`", examples=["0.0,220\n0.5,247\n1.0,262"]
    )
    speaker_id: int = Field(default=0, ge=0, le=2333, description="Of a voice with several speakers")
    split_silence: bool = Field(default=False, description="Silence is left out and put back as gaps")
    autotune: bool = Field(default=False, description="Pitch is pulled to the nearest note; replaces the shift")
    autotune_strength: float = Field(default=1.0, ge=0, le=1, examples=[0.6])
    autotune_unvoiced: bool = Field(default=False, description="Unvoiced frames are pulled too, as Applio does")
    proposed_pitch: bool = Field(default=False, description="Adds the semitones that bring the voice to a register")
    proposed_pitch_hz: float = Field(default=155, ge=50, le=1200, description="That register's median", examples=[255])
    formant_timbre: float = Field(
        default=1.0, ge=0.1, le=16, description="Stretches the source's formants; 1 is off", examples=[1.15]
    )
    formant_quefrency: float = Field(default=1.0, ge=0.1, le=16, description="Detail of the formants, in ms")
    format: Literal["wav", "flac", "mp3", "ogg"] = "wav"
    output_rate: int | None = Field(
        default=None, ge=8000, le=192000, description="Hz; the voice's own if empty", examples=[44100]
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1)


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
        form.expect_only(*ConversionOptions.model_fields, "voice", "model_id")
        key = (form.fields.get("voice") or form.fields.get("model_id") or "").strip()
        if not key:
            raise InvalidInput("the voice is not named", field="voice", actions=("Send a voice's id, slug or name.",))
        options = options_of(form.fields)
        async with parts.database.write() as session:
            voice = await registry.find_by_any_name(session, caller, key)
            registry.expect_ready(voice)
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
