"""Of what do messages consist? Frozen content, and the parts that several messages share."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from libs.common.speakers import HIGHEST_SPEAKER
from libs.common.training_options import TrainingSettings


class Data(BaseModel):
    """Frozen, typed content of a message."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ManifestRef(Data):
    """Points at a step's committed manifest: its path below DATA_ROOT, checksum and fencing token."""

    path: str
    sha256: str
    token: int


def _is_first(speaker: int) -> bool:
    return speaker == 0


class InputFile(Data):
    """One original recording of a dataset, by content.

    `speaker`: whose voice it is, 0 to 108. It is left out where it is 0, so that messages stay small.
    """

    sample_id: str
    sha256: str
    extension: str
    speaker: int = Field(default=0, ge=0, le=HIGHEST_SPEAKER, exclude_if=_is_first)


class SpokenClip(InputFile):
    """A recording and what is said in it; `name` is what its owner calls it, `transcript` as it was given.

    `by_machine`: a machine wrote the transcript, and nobody has confirmed it.
    """

    transcript: str = ""
    by_machine: bool = False
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


class TextInput(Data):
    """One text of a speech job and the voice that says it, by its slug; `name` is what its owner calls it."""

    number: int = Field(ge=1)
    name: str
    text: str
    voice: str
    language: str | None = None


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
