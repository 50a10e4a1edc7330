"""What do services say to each other? Every command, event and progress message, with its subject.

Commands ask for work and go to one worker; events are facts and go to whoever listens; progress is for people who
watch. `data` carries keys and numbers, never sound. The envelope is CloudEvents 1.0 in JSON.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from libs.common.jobs import JobState, Lane, QueueState, Step
from libs.common.training_options import TrainingSettings

SOURCE = "urn:voicewright"


class Data(BaseModel):
    """Frozen, typed content of a message."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ManifestRef(Data):
    """Points at a step's committed manifest: its path below DATA_ROOT, checksum and fencing token."""

    path: str
    sha256: str
    token: int


class InputFile(Data):
    """One original recording of a dataset, by content."""

    sample_id: str
    sha256: str
    extension: str


class SpokenClip(InputFile):
    """A recording and what is said in it; `name` is what its owner calls it, `transcript` as it was given."""

    transcript: str = ""
    name: str = ""
    seconds: float = 0.0


class TrainingOptions(TrainingSettings, Data):
    """What a person asked of a training run, with the preset that was chosen; None means the preset's own value."""

    preset: str = "lite"


class StagedFile(Data):
    """An upload that waits in quarantine: nobody has opened it yet."""

    upload_id: str
    sha256: str
    name: str
    size_bytes: int


class ConversionInput(Data):
    """One recording of a conversion job, by content; `name` is what its owner calls it.

    `dataset` is the slug of the dataset that holds it; empty when it was sent with the job.
    """

    number: int = Field(ge=1)
    name: str
    sha256: str
    extension: str
    dataset: str = ""
    seconds: float = 0.0


class VersionRef(Data):
    """One version of a voice: its slug, and the job that made it."""

    voice: str
    version: str


class MakingOptions(Data):
    """From what a voice is made, and how.

    `import`: a voice file or an archive in `model`, with an `index` if there is one. `extract`: a training checkpoint
    in `model`. `merge`: `share` of the voice `first` and the rest of `second`.
    """

    tool: Literal["import", "extract", "merge"]
    model: StagedFile | None = None
    index: StagedFile | None = None
    config: StagedFile | None = None
    first: VersionRef | None = None
    second: VersionRef | None = None
    share: float = Field(default=0.5, ge=0, le=1)
    encoder: Literal["auto", "hubert", "builtin"] = "auto"
    speaker: int | None = Field(default=None, ge=0, le=10_000)
    rights: str = Field(default="", description="What its owner says about the right to use the voice")


# -- commands ---------------------------------------------------------------------------------------------------------


class Command(Data):
    """Asks one worker of `service` for one step of a job. Its message id is `<job>.<step>.<attempt>`."""

    service: ClassVar[str]
    verb: ClassVar[str]

    job_id: str
    step: Step
    attempt: int = 1
    experiment: str
    after_token: int = Field(default=0, description="Leases of the step were given out with tokens up to this one")

    @property
    def message_id(self) -> str:
        return f"{self.job_id}.{self.step}.{self.attempt}"

    def subject(self, lane: Lane) -> str:
        return f"cmd.{self.service}.{self.verb}.{lane}"


class ValidateDataset(Command):
    service = "ingest"
    verb = "validate"

    dataset: str
    inputs: tuple[InputFile, ...]
    min_seconds: float = 10.0


class PrepareDataset(Command):
    service = "preprocessor"
    verb = "prepare"

    dataset: str
    inputs: tuple[InputFile, ...]
    preset: str = "lite"
    f0_method: str = "auto"


class CheckSpeech(Command):
    """Asks whether a voice that speaks can be trained on these clips and their texts."""

    service = "trainer"
    verb = "check"

    dataset: str
    clips: tuple[SpokenClip, ...]
    options: TrainingOptions


class TrainVoice(Command):
    service = "trainer"
    verb = "train"

    voice: str
    prepared: ManifestRef
    options: TrainingOptions


class BuildIndex(Command):
    service = "trainer"
    verb = "index"

    voice: str
    prepared: ManifestRef
    index_mode: Literal["rvc", "fast"] = "rvc"


class EvaluateVoice(Command):
    service = "trainer"
    verb = "evaluate"

    voice: str
    prepared: ManifestRef
    trained: ManifestRef
    indexed: ManifestRef


class PublishVoice(Command):
    """Asks for a whole version of a voice. Only one that converts was indexed and evaluated before."""

    service = "trainer"
    verb = "publish"

    voice: str
    display_name: str
    dataset: str
    inputs: tuple[InputFile, ...]
    prepared: ManifestRef
    trained: ManifestRef
    indexed: ManifestRef | None = None
    evaluated: ManifestRef | None = None
    preset: str = "lite"


class MakeVoice(Command):
    """Asks for a voice without training. The trainer does it beside its trainings, in a queue of its own."""

    service = "models"
    verb = "make"

    voice: str
    display_name: str
    options: MakingOptions


class ConvertRecordings(Command):
    """Says recordings in a voice, one after the other. `settings` are those of one conversion."""

    service = "inference"
    verb = "convert"

    voice: str
    inputs: tuple[ConversionInput, ...]
    settings: dict[str, bool | int | float | str | None]


# -- events -----------------------------------------------------------------------------------------------------------


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
    """Clips and texts are fit to train on; `refused` clips are left out, and the manifest says why."""

    noun = "dataset"
    fact = "checked"

    dataset: str
    clips: int
    refused: int
    seconds: float
    language: str

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


# -- progress ---------------------------------------------------------------------------------------------------------


class Progress(Data):
    """On `prg.job.<id>`: what people watch."""

    kind: ClassVar[str]

    job_id: str

    def subject(self) -> str:
        return f"prg.job.{self.job_id}"


class StepProgress(Progress):
    """How far a worker is. `fraction` is 0-1 of the step; `loss` and `eta_seconds` where they make sense."""

    kind = "progress"

    step: Step
    fraction: float = 0.0
    done: int = 0
    total: int = 0
    loss: float | None = None
    losses: dict[str, float] = {}
    eta_seconds: float | None = None
    steps_per_second: float | None = None
    message: str = ""
    worker: str = ""
    token: int = 0


class JobChanged(Progress):
    """The gateway's word on a transition, in the same stream so that a feed has one order."""

    kind = "state"

    state: JobState
    phase: Step | None = None
    queue_state: QueueState | None = None
    progress: float = 0.0
    attempt: int = 1
    version: int = 0
    problem: dict[str, Any] | None = None
    cancel_requested: bool = False

    @property
    def is_terminal(self) -> bool:
        return self.state in (JobState.completed, JobState.failed, JobState.cancelled)


Message = Command | Event | Progress


def _leaves(base: type[Data]) -> list[type[Data]]:
    found: list[type[Data]] = []
    for sub in base.__subclasses__():
        found += _leaves(sub) or [sub]
    return found


def type_name(message: type[Data]) -> str:
    """CloudEvents type, e.g. `voicewright.command.TrainVoice.v1`."""
    kind = "command" if issubclass(message, Command) else "event" if issubclass(message, Event) else "progress"
    return f"voicewright.{kind}.{message.__name__}.v1"


class Envelope(BaseModel):
    """CloudEvents 1.0, JSON format."""

    model_config = ConfigDict(frozen=True)

    specversion: str = "1.0"
    id: str
    source: str
    type: str
    subject: str
    time: datetime
    datacontenttype: str = "application/json"
    traceparent: str | None = None
    data: dict[str, Any]

    def open(self) -> Data:
        """The typed content; raises ValueError for a type that is not in the catalogue or data that does not fit."""
        if self.type not in CATALOGUE:
            raise ValueError(f"unknown message type {self.type!r}")
        return CATALOGUE[self.type].model_validate(self.data)


def wrap(message: Data, *, id: str, subject: str, service: str, traceparent: str | None = None) -> Envelope:
    """`message` in its envelope, ready to be sent."""
    return Envelope(
        id=id,
        source=f"{SOURCE}:{service}",
        type=type_name(type(message)),
        subject=subject,
        time=datetime.now(UTC),
        traceparent=traceparent,
        data=message.model_dump(mode="json"),
    )


COMMANDS = _leaves(Command)
EVENTS = _leaves(Event)
PROGRESS = _leaves(Progress)
CATALOGUE: dict[str, type[Data]] = {type_name(m): m for m in (*COMMANDS, *EVENTS, *PROGRESS)}
