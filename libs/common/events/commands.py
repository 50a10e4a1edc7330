"""What can a worker be asked for? One class for each command, with the service that does it."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from libs.common.events.content import (
    ConversionInput,
    Data,
    InputFile,
    MakingOptions,
    ManifestRef,
    SpokenClip,
    TextInput,
    TrainingOptions,
)
from libs.common.jobs import Lane, Step


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


class SayTexts(Command):
    """Has voices say texts, one after the other. `settings` are those of one text."""

    service = "inference"
    verb = "say"

    texts: tuple[TextInput, ...]
    settings: dict[str, bool | int | float | str | None]
