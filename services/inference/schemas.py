"""What does inference's HTTP look like?"""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class SoundFormat(StrEnum):
    wav = "wav"
    flac = "flac"
    mp3 = "mp3"
    ogg = "ogg"


MEDIA_TYPES = {
    SoundFormat.wav: "audio/wav",
    SoundFormat.flac: "audio/flac",
    SoundFormat.mp3: "audio/mpeg",
    SoundFormat.ogg: "audio/ogg",
}


class ConversionRequest(BaseModel):
    """One recording, one voice, and what can be turned."""

    model_config = ConfigDict(extra="forbid")

    upload_id: str = Field(description="A recording that ingest has staged")
    voice: str = Field(description="The voice's slug")
    pitch_shift: float = Field(default=0.0, ge=-24, le=24, description="Semitones")
    index_rate: float = Field(default=0.5, ge=0, le=1, description="Share of the target's nearest frames")
    protect: float = Field(default=0.33, ge=0, le=0.5, description="Keeps consonants and breath; 0.5 is off")
    rms_mix_rate: float = Field(default=0.25, ge=0, le=1, description="0: loudness of the source, 1: of the voice")
    f0_method: str = "auto"
    speaker_id: int = Field(default=0, ge=0, le=2333)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    format: SoundFormat = SoundFormat.wav
