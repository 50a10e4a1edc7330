"""What does inference's HTTP look like?"""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from libs.common.conversion_options import ConversionParameters
from libs.voice.chain import Conversion, read_f0_points


class SoundFormat(StrEnum):
    wav = "wav"
    flac = "flac"
    mp3 = "mp3"
    ogg = "ogg"


class ConversionSettings(ConversionParameters):
    """What can be turned, for one recording or for all of a job."""

    model_config = ConfigDict(extra="forbid")

    format: SoundFormat = SoundFormat.wav

    def conversion(self) -> Conversion:
        """The engine's settings. Raises InvalidInput for a pitch file that is none."""
        own = self.model_dump(exclude={"f0_file", "format", "output_rate", "upload_id", "voice"})
        return Conversion(**own, f0_points=read_f0_points(self.f0_file, "f0_file"))


class SpeechFormat(StrEnum):
    wav = "wav"
    flac = "flac"
    mp3 = "mp3"
    ogg = "ogg"
    opus = "opus"
    pcm = "pcm"


class SpeechRequest(BaseModel):
    """A text, the voice that says it, and how: a published voice, or that of a recording which is imitated."""

    model_config = ConfigDict(extra="forbid")

    text: str
    voice: str | None = Field(default=None, description="The voice's slug; not with a reference")
    reference: str | None = Field(default=None, description="A recording that ingest has staged, to be imitated")
    language: str | None = Field(default=None, max_length=20, description="Default: that of the voice's training")
    speed: float = Field(default=1.0, ge=0.25, le=4.0)
    temperature: float = Field(default=0.65, ge=0.05, le=1.5)
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    format: SpeechFormat = SpeechFormat.wav
    stream: bool = False
    through: str | None = Field(default=None, description="Slug of a voice that converts what is said")
    pitch_shift: float = Field(default=0.0, ge=-24, le=24, description="Semitones, with `through`")


class ConversionRequest(ConversionSettings):
    """One recording, one voice, and what can be turned."""

    upload_id: str = Field(description="A recording that ingest has staged")
    voice: str = Field(description="The voice's slug")
