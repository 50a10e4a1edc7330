"""What can be turned in inference?"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field

from libs.common.settings import PORTS, CommonSettings


class InferenceSettings(CommonSettings):
    """Inference's variables; those of `CommonSettings` hold as well."""

    port: int = Field(default=PORTS["inference"], ge=0, le=65535)
    inference_device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    inference_threads: int | None = Field(default=None, ge=1, le=1024, description="CPU threads; empty: all cores")
    conversions_at_once: int = Field(default=1, ge=1, le=32, description="Conversions that compute at the same time")
    conversions_waiting: int = Field(default=16, ge=0, le=1000, description="Conversions that may wait; more get 429")
    inference_batch_requests: int = Field(
        default=1, ge=1, le=64, description="Waiting requests for one voice that are converted together; 1: one by one"
    )
    inference_batch_seconds: float = Field(
        default=60.0, ge=1, le=3600, description="Seconds of sound that go together at most; a longer one goes alone"
    )
    inference_compile: Literal["off", "on", "auto"] = Field(
        default="off", description="Decoders of RVC voices through torch.compile; auto: on a GPU only"
    )
    conversion_jobs_at_once: int = Field(
        default=1,
        ge=0,
        le=32,
        description="Conversion and speech jobs in hand at once, both together; 0 takes none and needs no broker",
    )
    live_sessions: int = Field(default=4, ge=0, le=1000, description="Live conversions at the same time")
    live_queue: timedelta = Field(
        default=timedelta(seconds=1), description="Sound that may wait in a live conversion; then the oldest is dropped"
    )
    live_idle: timedelta = Field(default=timedelta(seconds=30), description="Silence of a client that ends its session")
    live_longest: timedelta = Field(default=timedelta(hours=1), description="Longest live conversion")
    live_stats: timedelta = Field(default=timedelta(seconds=2), description="How often a client is told of block times")
    voices_in_memory: int = Field(default=8, ge=1, le=1000, description="Loaded voices that are kept")
    xtts_python: Path | None = Field(
        default=None, description="Interpreter that has coqui-tts (scripts/install-xtts); empty: inference's own"
    )
    xtts_licence_accepted: str = Field(
        default="",
        description="`CPML-1.0` accepts the licence of XTTS-v2's weights, non-commercial use only; to imitate voices",
    )
    speech_waiting: int = Field(default=8, ge=0, le=1000, description="Texts that wait to be said; more get 429")
    speech_limit: int = Field(default=5000, ge=1, le=1_000_000, description="Characters of one text")
    speech_attempts: int = Field(default=3, ge=1, le=10, description="How often a sentence that failed is said at all")
    speech_voices_in_memory: int = Field(
        default=1, ge=1, le=100, description="XTTS voices that are kept loaded; each has four gigabytes"
    )
    speech_idle: timedelta = Field(
        default=timedelta(minutes=10), description="After this silence their memory is given back"
    )
    speech_piece_limit: timedelta = Field(
        default=timedelta(minutes=5), description="A sentence that takes longer, its voice's loading included, has hung"
    )
    conversion_limit: timedelta = Field(default=timedelta(minutes=30), description="Longest recording in one request")
