"""What can be turned in the trainer?"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from pydantic import Field, SecretStr, model_validator

from libs.common.settings import PORTS, ScaledSettings


class TrainerSettings(ScaledSettings):
    """The trainer's variables; those of `CommonSettings` hold as well."""

    opens_storage: ClassVar[bool] = True

    port: int = Field(default=PORTS["trainer"], ge=0, le=65535)
    training_concurrency: int = Field(
        default=2, ge=0, le=16, description="Jobs at the same time on this node (F-094); 0 trains none"
    )
    training_device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    training_threads: int | None = Field(
        default=None, ge=1, le=1024, description="CPU threads of one training; empty: all cores"
    )
    training_processes: int = Field(
        default=1, ge=1, le=16, description="Processes of one training on a node, with torchrun; on CUDA one per card"
    )
    training_nodes: int = Field(default=1, ge=1, le=4, description="Nodes that make one training together")
    training_node: int = Field(
        default=0, ge=0, le=3, description="This node's number among them; number 0 takes the commands"
    )
    training_meeting: str = Field(
        default="", pattern=r"^(|[A-Za-z0-9._-]+:\d+)$", description="Where they meet: host and port of number 0"
    )
    training_timeout: timedelta = Field(
        default=timedelta(hours=2),
        ge=timedelta(seconds=1),
        le=timedelta(days=30),
        description="Longest training that a job may ask for, unless it names less",
    )
    checkpoint_every: timedelta = Field(
        default=timedelta(seconds=30),
        ge=timedelta(seconds=0.1),
        le=timedelta(days=1),
        description="How often a training is saved",
    )
    training_stall: timedelta = Field(
        default=timedelta(minutes=5), description="A training process that says nothing for this long is ended"
    )
    step_timeout_index: timedelta = Field(
        default=timedelta(hours=1), description="A step that takes longer is ended and tried again, as a failed attempt"
    )
    step_timeout_evaluate: timedelta = Field(default=timedelta(minutes=30), description="The same for the evaluation")
    step_timeout_publish: timedelta = Field(default=timedelta(minutes=30), description="The same for publishing")
    step_timeout_check: timedelta = Field(
        default=timedelta(minutes=10), description="The same for looking at clips and their texts"
    )
    model_jobs_at_once: int = Field(
        default=1, ge=0, le=16, description="Voices made of files at the same time, beside trainings; 0 makes none"
    )
    step_timeout_make: timedelta = Field(
        default=timedelta(minutes=30), description="The same for a voice that is imported, extracted or merged"
    )
    xtts_python: Path | None = Field(
        default=None, description="Interpreter that has coqui-tts (scripts/install-xtts); empty: the trainer's own"
    )
    xtts_licence_accepted: str = Field(
        default="", description="`CPML-1.0` accepts the licence of XTTS-v2's weights: non-commercial use only"
    )
    whisper_path: Path | None = Field(
        default=None,
        description="Folder of a faster-whisper model, for trainings that ask for transcripts (docs/xtts.md)",
    )
    xtts_checkpoint_every: timedelta = Field(
        default=timedelta(minutes=10), description="How often a training of XTTS is saved; its state has gigabytes"
    )
    google_tts_api_key: SecretStr | None = Field(
        default=None, description="Of Google Cloud Text-to-Speech, for custom voices; without it they are off"
    )
    google_tts_token_file: Path | None = Field(
        default=None, description="Or a file with an access token, read anew for each request"
    )
    google_tts_project: str = Field(default="", description="The project that is billed, where the token needs one")
    google_tts_url: str = "https://texttospeech.googleapis.com"
    openai_api_key: SecretStr | None = Field(default=None, description="For OpenAI's custom voices; without it, off")
    openai_url: str = "https://api.openai.com/v1"
    cloud_timeout: timedelta = Field(default=timedelta(minutes=2), description="For one answer of these")
    evaluation_seconds: float = Field(default=12.0, gt=1, le=120, description="Held-out speech to try a voice on")

    @model_validator(mode="after")
    def _has_something_to_do(self) -> TrainerSettings:
        if not self.training_concurrency and not self.model_jobs_at_once:
            raise ValueError("TRAINING_CONCURRENCY and MODEL_JOBS_AT_ONCE are both 0: this trainer would do nothing")
        return self

    @model_validator(mode="after")
    def _is_a_whole_team(self) -> TrainerSettings:
        """Nodes of one training know where they meet, and make one training at a time."""
        if self.training_node >= self.training_nodes:
            raise ValueError(f"TRAINING_NODE is {self.training_node}, and nodes of {self.training_nodes} begin at 0")
        if self.training_nodes > 1 and not self.training_meeting:
            raise ValueError("TRAINING_MEETING is required with TRAINING_NODES: host and port of node 0")
        if self.training_nodes > 1 and self.training_concurrency > 1:
            raise ValueError("TRAINING_CONCURRENCY must be 1 with TRAINING_NODES: they make one training at a time")
        return self
