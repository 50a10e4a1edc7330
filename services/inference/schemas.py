"""What does inference's HTTP look like?"""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from libs.voice.chain import Conversion, read_f0_points


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


class ConversionSettings(BaseModel):
    """What can be turned, for one recording or for all of a job."""

    model_config = ConfigDict(extra="forbid")

    pitch_shift: float = Field(default=0.0, ge=-24, le=24, description="Semitones")
    index_rate: float = Field(default=0.5, ge=0, le=1, description="Share of the target's nearest frames")
    protect: float = Field(default=0.33, ge=0, le=0.5, description="Keeps consonants and breath; 0.5 is off")
    rms_mix_rate: float = Field(default=0.25, ge=0, le=1, description="0: loudness of the source, 1: of the voice")
    f0_method: str = "auto"
    filter_radius: int = Field(default=3, ge=0, le=7, description="From 3 on harvest's pitch gets a median")
    fill_unvoiced: bool = Field(default=False, description="Pitch is interpolated through unvoiced frames")
    f0_file: str = Field(default="", description="A pitch of one's own: lines of `seconds,Hz`")
    speaker_id: int = Field(default=0, ge=0, le=2333)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    split_silence: bool = Field(default=False, description="Silence is left out and put back as gaps")
    autotune: bool = Field(default=False, description="Pitch is pulled to the nearest note; replaces the shift")
    autotune_strength: float = Field(default=1.0, ge=0, le=1)
    autotune_unvoiced: bool = Field(default=False, description="Unvoiced frames are pulled too, as Applio does")
    proposed_pitch: bool = Field(default=False, description="Adds the semitones that bring the voice to a register")
    proposed_pitch_hz: float = Field(default=155.0, ge=50, le=1200, description="That register's median")
    formant_timbre: float = Field(default=1.0, ge=0.1, le=16, description="Stretches the source's formants; 1 is off")
    formant_quefrency: float = Field(default=1.0, ge=0.1, le=16, description="Detail of the formants, in ms")
    output_rate: int | None = Field(default=None, ge=8000, le=192000, description="Hz; the voice's own if empty")
    format: SoundFormat = SoundFormat.wav

    def conversion(self) -> Conversion:
        """The engine's settings. Raises InvalidInput for a pitch file that is none."""
        own = self.model_dump(exclude={"f0_file", "format", "output_rate", "upload_id", "voice"})
        return Conversion(**own, f0_points=read_f0_points(self.f0_file, "f0_file"))


class ConversionRequest(ConversionSettings):
    """One recording, one voice, and what can be turned."""

    upload_id: str = Field(description="A recording that ingest has staged")
    voice: str = Field(description="The voice's slug")
