"""How long will a training take, and what will it cost? A guess before it begins, with what it assumes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from libs.common.providers import Provider, provider_of
from services.gateway.jobs import presets
from services.gateway.providers import prices

USUAL_EPOCHS = 100
XTTS_BATCH = {"cpu": 2, "cuda": 16}
# Measured with the true-size network on one thread of a CPU: 7.2 s a step at batch 1, 11.9 s at batch 2.
XTTS_CPU_STEP, XTTS_CPU_ITEM = 2.5, 4.7
XTTS_VOICE_GB = 1.82
RVC_VOICE_GB = 0.06
CHARACTERS_PER_TOKEN = 4.0
CHARACTERS_PER_SECOND = 15.0


@dataclass(frozen=True)
class Workload:
    """What is to be trained, on what. `characters`: of all transcripts; None where there are none."""

    preset: str
    speech_seconds: float
    recordings: int
    size_bytes: int = 0
    characters: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    train_seconds: float | None = None
    limit_seconds: float = 7200.0
    device: str = "cpu"


@dataclass(frozen=True)
class Estimate:
    """Seconds and dollars, the parts of the sum, and what was assumed."""

    seconds: float
    cost: float
    parts: prices.Parts
    hardware: str
    assumed: list[str] = field(default_factory=list)


def estimate(work: Workload, hour_price: float = 2.5) -> Estimate:
    """The estimate for any preset. `hour_price` is that of an hour of training on one's own machines.

    Raises InvalidInput for a preset that nobody has.
    """
    provider = provider_of(work.preset)
    gigabytes = work.size_bytes / 1e9
    minutes = work.speech_seconds / 60
    if provider.name == "google":
        parts = prices.google_parts(minutes, gigabytes)
        return _away(provider, work, parts, ["the document's 2-4 hours, longer with more speech"])
    if provider.name == "openai":
        tokens, said = _tokens(work)
        parts = prices.openai_parts(tokens, gigabytes)
        return _away(provider, work, parts, [said, "the document's 1-2 hours, longer with more speech"])
    seconds, voice, assumed = _xtts(work) if provider.name == "xtts" else _rvc(work)
    parts = prices.gpu_parts(seconds / 3600, gigabytes + voice, gigabytes, hour_price)
    # A machine of one's own bills no storage and no transfer by the gigabyte; XTTS is priced as the document does.
    parts = parts if provider.name == "xtts" else {"gpu": parts["gpu"]}
    return Estimate(round(seconds, 1), prices.total(parts), parts, work.device, assumed)


def _away(provider: Provider, work: Workload, parts: prices.Parts, assumed: list[str]) -> Estimate:
    """Where somebody else trains: the time grows from the least to the most over the amount of speech asked for."""
    low, high = (minutes * 60 for minutes in provider.minutes)
    least, most = provider.needs.seconds
    share = (work.speech_seconds - least) / ((most or 2 * least) - least)
    seconds = low + (high - low) * min(max(share, 0.0), 1.0)
    return Estimate(round(seconds, 1), prices.total(parts), parts, f"{provider.title}'s own", assumed)


def _tokens(work: Workload) -> tuple[float, str]:
    if work.characters is not None:
        return work.characters / CHARACTERS_PER_TOKEN, f"a token for {CHARACTERS_PER_TOKEN:g} characters of transcript"
    spoken = work.speech_seconds * CHARACTERS_PER_SECOND
    return spoken / CHARACTERS_PER_TOKEN, f"{CHARACTERS_PER_SECOND:g} characters a second, a token for 4 of them"


def _xtts(work: Workload) -> tuple[float, float, list[str]]:
    epochs = work.epochs or USUAL_EPOCHS
    device = "cuda" if work.device.startswith("cuda") else "cpu"
    batch = work.batch_size or XTTS_BATCH[device]
    if device == "cpu":
        steps = epochs * math.ceil(max(work.recordings, 1) / batch)
        seconds = steps * (XTTS_CPU_STEP + XTTS_CPU_ITEM * batch)
        assumed = [f"{steps} steps of {batch} clips, measured on one thread of a CPU"]
    else:
        share = (work.speech_seconds / 60 - 1) / 4
        seconds = (600 + 1200 * min(max(share, 0.0), 1.0)) * epochs / USUAL_EPOCHS
        assumed = [f"the document's 10-30 minutes for {USUAL_EPOCHS} epochs over 1-5 minutes of speech"]
    if seconds > work.limit_seconds:
        assumed.append("it is ended at max_training_seconds")
    return min(seconds, work.limit_seconds), XTTS_VOICE_GB, assumed


def _rvc(work: Workload) -> tuple[float, float, list[str]]:
    seconds = presets.estimate_seconds(
        work.preset, work.speech_seconds, work.train_seconds, work.limit_seconds, work.epochs
    )
    return seconds, RVC_VOICE_GB, ["preparing at ten times real time, then a usual run of the preset"]
