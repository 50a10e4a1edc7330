"""What does inference's HTTP look like?"""

from __future__ import annotations

from enum import StrEnum

from pydantic import ConfigDict, Field

from libs.common.conversion_options import ConversionParameters
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


class ConversionSettings(ConversionParameters):
    """What can be turned, for one recording or for all of a job."""

    model_config = ConfigDict(extra="forbid")

    format: SoundFormat = SoundFormat.wav

    def conversion(self) -> Conversion:
        """The engine's settings. Raises InvalidInput for a pitch file that is none."""
        own = self.model_dump(exclude={"f0_file", "format", "output_rate", "upload_id", "voice"})
        return Conversion(**own, f0_points=read_f0_points(self.f0_file, "f0_file"))


class ConversionRequest(ConversionSettings):
    """One recording, one voice, and what can be turned."""

    upload_id: str = Field(description="A recording that ingest has staged")
    voice: str = Field(description="The voice's slug")
