"""What does a request for speech look like?"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from services.gateway.text import Text


class SynthesisRequest(BaseModel):
    """A text and the voice that says it."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(
        max_length=1_000_000, description="Up to SPEECH_LIMIT characters", examples=["Good morning. How are you today?"]
    )
    voice: Text = Field(
        min_length=1,
        max_length=200,
        description="Id, slug or name of one of your voices that speak",
        examples=["linda"],
    )
    language: str | None = Field(
        default=None, max_length=20, description="Of the text; default: that of the voice's training", examples=["en"]
    )
    speed: float = Field(default=1.0, ge=0.25, le=4.0, description="2 is twice as fast", examples=[1.0])
    temperature: float = Field(
        default=0.65, ge=0.05, le=1.5, description="How freely the voice varies; low is monotonous", examples=[0.65]
    )
    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="The same request with the same seed sounds the same")
    format: Literal["wav", "flac", "mp3", "ogg", "opus", "pcm"] = Field(
        default="wav", description="opus is in Ogg; pcm is 24 kHz, 16 bit, mono, without a header"
    )
    stream: bool = Field(default=False, description="Send each sentence as soon as it is made")
    through: Text | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Another of your voices, one that converts: what is said is given its sound",
        examples=[None],
    )
    pitch_shift: float = Field(default=0.0, ge=-24, le=24, description="Semitones; with `through` only")
