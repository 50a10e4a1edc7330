"""What do providers and estimates look like over HTTP?"""

from __future__ import annotations

from pydantic import BaseModel, Field

from libs.common.providers import Kind, Provider
from services.gateway.providers.availability import Availability
from services.gateway.providers.estimating import Estimate


class Range(BaseModel):
    least: float = Field(description="In the unit that the field's name says")
    most: float | None = Field(description="null: no limit that is known")


class Audio(BaseModel):
    """The recordings that a provider asks for."""

    speech_seconds: Range = Field(description="All recordings together: the least, and as much as helps")
    clip_seconds: Range | None = Field(description="One recording; null: any length")
    transcripts: bool = Field(description="Each recording needs the exact text that is said in it")
    consent_recording: bool = Field(description="`options.consent_recording` names the speaker's recorded consent")
    advice: str


class ProviderOut(BaseModel):
    """A provider of voices (F-051, F-078)."""

    name: str = Field(description="For `provider` of a training request", examples=["xtts"])
    title: str = Field(examples=["XTTS-v2 (Coqui TTS)"])
    kind: Kind = Field(description="Its voices convert recordings, or speak text")
    is_local: bool = Field(description="It trains on your own machines; of the others the recordings are sent away")
    available: bool = Field(description="A trainer that is running can use it")
    missing: list[str] = Field(description="What it lacks, when it is not available")
    how: str = Field(description="How to get that")
    best_for: str
    quality: str
    training_minutes: Range
    price: str = Field(description="In US dollars; POST /training/estimate works it out")
    audio: Audio
    presets: list[str]
    speakers: int = Field(description="How many speakers one of its voices can be", examples=[1])
    languages: list[str] = Field(description="Of speech; empty for voices that convert, which take any")

    @classmethod
    def of(cls, provider: Provider, state: Availability) -> ProviderOut:
        """The entry of the catalogue, with what the trainers say."""
        needs, clip = provider.needs, provider.needs.clip_seconds
        return cls(
            name=provider.name,
            title=provider.title,
            kind=provider.kind,
            is_local=provider.is_local,
            available=state.available,
            missing=list(state.missing),
            how=state.how,
            best_for=provider.best_for,
            quality=provider.quality,
            training_minutes=Range(least=provider.minutes[0], most=provider.minutes[1]),
            price=provider.price,
            audio=Audio(
                speech_seconds=Range(least=needs.seconds[0], most=needs.seconds[1]),
                clip_seconds=Range(least=clip[0], most=clip[1]) if clip else None,
                transcripts=needs.transcripts,
                consent_recording=needs.consent_recording,
                advice=needs.advice,
            ),
            presets=list(provider.presets),
            speakers=provider.speakers,
            languages=list(provider.languages),
        )


class ProviderList(BaseModel):
    items: list[ProviderOut]


class EstimateOut(BaseModel):
    """What a training would take and cost (F-055, F-077)."""

    provider: str
    preset: str
    estimated_time_ms: int = Field(description="Milliseconds of the whole job")
    estimated_seconds: float = Field(description="The same in seconds")
    estimated_cost: float = Field(description="US dollars, or the currency of GPU_HOUR_PRICE")
    parts: dict[str, float] = Field(description="Of which the cost is the sum", examples=[{"gpu": 1.25}])
    hardware: str = Field(description="What was assumed to train", examples=["cpu"])
    assumed: list[str] = Field(description="What else was assumed")
    recordings: int = Field(description="How many the dataset has")
    speech_seconds: float = Field(description="All of them together")
    problems: list[str] = Field(description="What a start would be refused for; empty: it can begin")

    @classmethod
    def of(cls, made: Estimate, *, provider: str, preset: str, problems: list[str], **counted: float) -> EstimateOut:
        """An estimate as JSON has it."""
        return cls(
            provider=provider,
            preset=preset,
            estimated_time_ms=round(made.seconds * 1000),
            estimated_seconds=made.seconds,
            estimated_cost=made.cost,
            parts={name: round(value, 4) for name, value in made.parts.items()},
            hardware=made.hardware,
            assumed=made.assumed,
            problems=problems,
            recordings=int(counted["recordings"]),
            speech_seconds=round(counted["speech_seconds"], 3),
        )
