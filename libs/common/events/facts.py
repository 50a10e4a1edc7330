"""What has happened? One class for each event, with what it is about."""

from __future__ import annotations

from typing import Any, ClassVar

from libs.common.events.content import Data, ManifestRef
from libs.common.jobs import Step


class Event(Data):
    """A fact, on `evt.<noun>.<id>.<fact>`."""

    noun: ClassVar[str]
    fact: ClassVar[str]

    job_id: str

    @property
    def about(self) -> str:
        """The id of what the fact is about; the job unless a subclass says otherwise."""
        return self.job_id

    def subject(self) -> str:
        return f"evt.{self.noun}.{self.about}.{self.fact}"


class StepEvent(Event):
    """A worker's word on one step. `token` is the lease's, `attempt` the command's."""

    step: Step
    attempt: int = 1
    token: int = 0
    worker: str = ""


class StepStarted(StepEvent):
    noun = "job"
    fact = "step_started"


class StepDelayed(StepEvent):
    """The work failed and will be tried again after `delay_seconds`; `failures` counts such failures."""

    noun = "job"
    fact = "step_delayed"

    failures: int
    delay_seconds: float
    problem: dict[str, Any]


class StepFailed(StepEvent):
    noun = "job"
    fact = "step_failed"

    failures: int
    problem: dict[str, Any]


class StepCancelled(StepEvent):
    noun = "job"
    fact = "step_cancelled"


class StepFinished(StepEvent):
    """A step is done and `manifest` names what it made; `place` grows from commit to commit of the installation."""

    manifest: ManifestRef
    place: int = 0


class DatasetValidated(StepFinished):
    noun = "dataset"
    fact = "validated"

    dataset: str
    seconds: float
    recordings: int
    warnings: tuple[dict[str, Any], ...] = ()

    @property
    def about(self) -> str:
        return self.dataset


class DatasetPrepared(StepFinished):
    noun = "dataset"
    fact = "prepared"

    dataset: str
    pieces: int
    seconds: float
    voiced_ratio: float
    sample_rate: int
    content_encoder: dict[str, str]
    f0_method: str
    reused: bool = False

    @property
    def about(self) -> str:
        return self.dataset


class SpeechChecked(StepFinished):
    """Clips and texts are fit to train on; `refused` clips are left out, and the manifest says why.

    `heard`: what a machine wrote, by sample, for recordings that had no transcript.
    """

    noun = "dataset"
    fact = "checked"

    dataset: str
    clips: int
    refused: int
    seconds: float
    language: str
    heard: dict[str, str] = {}

    @property
    def about(self) -> str:
        return self.dataset


class VoiceEvent(StepFinished):
    noun = "voice"

    voice: str

    @property
    def about(self) -> str:
        return self.voice


class VoiceTrained(VoiceEvent):
    fact = "trained"

    steps: int
    epochs: int
    losses: dict[str, float]
    seconds: float


class IndexBuilt(VoiceEvent):
    fact = "indexed"

    vectors: int


class VoiceEvaluated(VoiceEvent):
    fact = "evaluated"

    quality: dict[str, float | None]


class VoicePublished(VoiceEvent):
    fact = "published"

    weights_sha256: str
    index_sha256: str
    sample_rate: int
    preset: str
    card: dict[str, Any]


class RecordingsConverted(StepFinished):
    """At least one recording was converted; the manifest names every file, and why others failed."""

    noun = "conversion"
    fact = "converted"

    voice: str
    files: int
    converted: int
    failed: int
    seconds: float


class TextsSaid(StepFinished):
    """At least one text was said; the manifest names every file, and why others failed."""

    noun = "speech"
    fact = "said"

    texts: int
    said: int
    failed: int
    seconds: float


class JobEvent(Event):
    """The gateway's word on a whole job."""

    noun = "job"
    owner_id: str
    problem: dict[str, Any] | None = None


class JobQueued(JobEvent):
    fact = "queued"


class JobStarted(JobEvent):
    fact = "started"


class JobCompleted(JobEvent):
    fact = "completed"


class JobFailed(JobEvent):
    fact = "failed"


class JobCancelled(JobEvent):
    fact = "cancelled"
