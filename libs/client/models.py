"""What does the gateway answer? Fields that this version does not know are kept out, missing optional ones are None."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

TERMINAL = frozenset({"completed", "failed", "cancelled"})
Kind = Literal["training", "preprocess", "model", "conversion", "speech"]


def address(kind: str) -> str:
    """Below which address the jobs of a kind are found."""
    return {"conversion": "convert", "speech": "synthesize"}.get(kind, kind)


class Answer(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Tokens(Answer):
    access_token: str
    refresh_token: str | None = None
    token_type: str = "bearer"  # noqa: S105 - the name of a scheme
    expires_in: int = 0


class User(Answer):
    id: str
    email: str
    name: str = ""
    role: str = ""
    is_active: bool = True
    created_at: datetime | None = None


class AccessKey(Answer):
    """A key for a program; `token` is there in the answer that made it, and never again."""

    id: str
    name: str = ""
    begins_with: str = ""
    scopes: list[str] = []
    created_at: datetime | None = None
    expires_at: datetime | None = None
    used_at: datetime | None = None
    revoked_at: datetime | None = None
    token: str | None = Field(default=None, exclude=True)


class Problem(Answer):
    """Problem details (RFC 9457) with the platform's own fields."""

    title: str = "The request was refused"
    status: int = 0
    detail: str = ""
    code: str = ""
    field: str | None = None
    retryable: bool = False
    suggested_actions: list[str] = []
    request_id: str | None = None

    def sentences(self) -> str:
        """For people: what happened, then what to do about it."""
        said = self.title if not self.detail or self.detail == self.title else f"{self.title}: {self.detail}"
        said = said if said.endswith((".", "!", "?")) else f"{said}."
        return " ".join([said, *self.suggested_actions])


class SpeakerShare(Answer):
    """What a dataset holds of one speaker; `seconds` of sound."""

    speaker_id: int
    recordings: int = 0
    seconds: float = 0.0


class Dataset(Answer):
    id: str
    slug: str
    name: str = ""
    user_id: str = ""
    status: str = ""
    item_count: int = 0
    duration_seconds: float = 0.0
    speakers: list[SpeakerShare] = []
    created_at: datetime | None = None


class Warned(Answer):
    """Something that makes a recording less useful; `message` is for people."""

    code: str = ""
    message: str


class Sample(Answer):
    id: str
    name: str = ""
    duration_seconds: float | None = None
    status: str = ""
    transcript: str = ""
    transcript_by_machine: bool = False
    speaker_id: int = 0
    warnings: list[Warned] = []
    duplicate: bool = False


class Rejected(Answer):
    """A file that was not taken, and why."""

    name: str
    problem: Problem


class Upload(Answer):
    dataset: Dataset
    samples: list[Sample] = []
    rejected: list[Rejected] = []


class Job(Answer):
    """One job. `progress` is percent of the whole, `eta_seconds` and `current_loss` where they make sense."""

    id: str
    name: str = ""
    kind: Kind = "training"
    status: str
    phase: str | None = None
    queue_state: str | None = None
    progress: float = 0.0
    current_step: int = 0
    total_steps: int = 0
    current_loss: float | None = None
    losses: dict[str, float] = {}
    eta_seconds: float | None = None
    attempt: int = 1
    priority: int = 50
    preset: str = ""
    options: dict[str, Any] = {}
    dataset_id: str | None = None
    dataset: str | None = None
    voice: str | None = None
    model_id: str | None = None
    created_at: datetime | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    estimated_seconds: float | None = None
    estimated_cost: float | None = None
    error: Problem | None = None
    summary: dict[str, Any] | None = None
    warnings: list[str] = []
    version: int = 0

    @property
    def is_over(self) -> bool:
        return self.status in TERMINAL

    @property
    def path(self) -> str:
        """Its address below `/api/v1`."""
        return f"/{address(self.kind)}/jobs/{self.id}"


class FileResult(Answer):
    """What became of one recording or text of a job; `file` is its name in the result.

    `state`: waiting, converted or said, failed, left (the job ended before its turn), expired (the sound is not kept
    any more).
    """

    number: int
    name: str
    state: str
    file: str | None = None
    seconds: float | None = None
    size_bytes: int | None = None
    problem: Problem | None = None


class LogLine(Answer):
    timestamp: datetime
    level: str = "info"
    kind: str = ""
    message: str = ""
    metadata: dict[str, Any] = {}


class Voice(Answer):
    id: str
    slug: str
    name: str = ""
    status: str = ""
    base_model: str | None = None
    sample_rate: int | None = None
    training_job_id: str | None = None
    created_at: datetime | None = None
    quality: dict[str, Any] | None = None
    card: dict[str, Any] | None = None


class ModelFacts(Answer):
    """What is in a voice's file."""

    kind: str
    network: str
    version: str | None = None
    sample_rate: int | None = None
    f0: bool | None = None
    speakers: int | None = None
    content_width: int | None = None
    precision: str = ""
    parameters: int = 0
    training: str | None = None
    extra_keys: list[str] = []
    content_encoder: dict[str, Any] | None = None
    size_bytes: int = 0
    sha256: str = ""
    index_rows: int | None = None
    language: str | None = None
    languages: list[str] = []
    licence: str | None = None


class VoiceCheck(Answer):
    """What trying a voice showed."""

    valid: bool
    usable: bool
    problems: list[Problem] = []
    peak: float | None = None
    level_db: float | None = None


class Conversion(Answer):
    """What is known about a converted recording, or a text that was said, beside its sound."""

    media_type: str
    voice_version: str | None = None
    voice_sha256: str | None = None
    duration_seconds: float | None = None
    real_time_factor: float | None = None
    left_out: int = 0
    size_bytes: int = 0


Item = TypeVar("Item", bound=Answer)


class Page(Answer, Generic[Item]):
    items: list[Item]
    next_cursor: str | None = None


class FeedEvent(Answer):
    """One event of a job's live feed; `id` is its sequence number, `kind` snapshot, progress or state."""

    id: int
    kind: str
    data: dict[str, Any] = Field(default_factory=dict)

    @property
    def is_last(self) -> bool:
        """Whether the job is over and nothing follows."""
        job = self.data.get("job") if self.kind == "snapshot" else self.data
        status = (job or {}).get("status") or (job or {}).get("state")
        return self.kind in ("snapshot", "state") and status in TERMINAL
