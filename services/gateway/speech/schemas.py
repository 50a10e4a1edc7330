"""What does a request for speech look like?"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from services.gateway.jobs.schemas import Priority
from services.gateway.text import LongText, Name, Text

_LONGEST = 1_000_000
"""Characters that are read at all; the settings say how many are said."""

VoiceName = Annotated[
    Text,
    Field(
        min_length=1,
        max_length=200,
        description="Id, slug or name of one of your voices that speak",
        examples=["linda"],
    ),
]
Language = Annotated[
    str | None,
    Field(max_length=20, description="Of the text; default: that of the voice's training", examples=["en"]),
]


class SpeechOptions(BaseModel):
    """How a text is said, and in which format the sound comes back."""

    model_config = ConfigDict(extra="forbid")

    language: Language = None
    speed: float = Field(default=1.0, ge=0.25, le=4.0, description="2 is twice as fast", examples=[1.0])
    temperature: float = Field(
        default=0.65, ge=0.05, le=1.5, description="How freely the voice varies; low is monotonous", examples=[0.65]
    )
    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="The same request with the same seed sounds the same")
    format: Literal["wav", "flac", "mp3", "ogg", "opus", "pcm"] = Field(
        default="wav", description="opus is in Ogg; pcm is 24 kHz, 16 bit, mono, without a header"
    )
    through: Text | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Another of your voices, one that converts: what is said is given its sound",
        examples=[None],
    )
    pitch_shift: float = Field(default=0.0, ge=-24, le=24, description="Semitones; with `through` only")


class SynthesisRequest(SpeechOptions):
    """A text and the voice that says it."""

    text: str = Field(
        max_length=_LONGEST, description="Up to SPEECH_LIMIT characters", examples=["Good morning. How are you today?"]
    )
    voice: VoiceName
    stream: bool = Field(default=False, description="Send each sentence as soon as it is made")


class OneText(BaseModel):
    """One text of a job."""

    model_config = ConfigDict(extra="forbid")

    text: LongText = Field(
        max_length=_LONGEST,
        description="Up to SPEECH_JOB_TEXT_LIMIT characters",
        examples=["Good morning. How are you today?"],
    )
    name: Name | None = Field(
        default=None, description="The name of its sound; default: text-001", examples=["chapter one"]
    )
    voice: VoiceName | None = Field(default=None, description="Default: the job's", examples=[None])
    language: Language = None


class SpeechJobOptions(SpeechOptions):
    """What holds for all texts of a job."""

    voice: VoiceName | None = Field(default=None, description="For texts that name none", examples=["linda"])
    name: Name | None = Field(default=None, description="What to call the job", examples=["Announcements"])
    priority: Priority = 50


class SpeechJobRequest(SpeechJobOptions):
    """Many texts, each for a sound of its own."""

    texts: list[OneText] = Field(
        min_length=1,
        max_length=5000,
        description="Up to SPEECH_JOB_TEXTS of them, in the order in which they are said",
        examples=[[{"text": "Good morning.", "name": "morning"}, {"text": "Good night."}]],
    )


class ImitationRequest(SpeechOptions):
    """A text said by the voice of a recording, whose speaker has agreed to that."""

    text: LongText = Field(
        max_length=_LONGEST, description="Up to SPEECH_LIMIT characters", examples=["Good morning. How are you today?"]
    )
    language: str = Field(min_length=1, max_length=20, description="Of the text", examples=["en"])
    speaker: Name = Field(description="Whose voice the recording has", examples=["Anna Berg"])
    consent: Annotated[Text, StringConstraints(strip_whitespace=True)] = Field(
        min_length=10,
        max_length=2000,
        description="What the speaker has agreed to, and how you know; it is recorded, with your account and the time",
        examples=["Anna Berg agreed by e-mail of 3 May that her voice says our opening hours."],
    )
    stream: bool = Field(default=False, description="Send each sentence as soon as it is made")
