"""What do datasets and samples look like over HTTP?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from libs.common.speakers import HIGHEST_SPEAKER
from services.gateway.datasets import speakers
from services.gateway.datasets.catalogue import Summary
from services.gateway.datasets.metadata import Taken
from services.gateway.datasets.receiving import Received
from services.gateway.datasets.tables import Dataset, DatasetStatus, Sample
from services.gateway.paging import NextCursor
from services.gateway.text import Name, Text

_DATASET = "dst_01JD3Q0V6X9W4T2M8N5R7K1A3B"
_SAMPLE = "smp_01JD3Q0V6X9W4T2M8N5R7K1A3C"


class NewDataset(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "Anna, warm"}]})

    name: Name = Field(description="Free text; the folder's name is made from it")
    description: Text = ""


class DatasetChange(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "Anna, warm, second session"}]})

    name: Name | None = None
    description: Text | None = None


class SpeakerOut(BaseModel):
    """What a dataset holds of one speaker."""

    speaker_id: int = Field(ge=0, le=HIGHEST_SPEAKER, description="Their number in the dataset", examples=[1])
    recordings: int = Field(description="How many are theirs", examples=[6])
    seconds: float = Field(description="Of sound, all of them together", examples=[148.2])

    @classmethod
    def all_of(cls, shares: Sequence[speakers.Share]) -> list[SpeakerOut]:
        """Each speaker's share as JSON has it; nothing where all recordings have the number 0."""
        return [
            cls(speaker_id=share.speaker_id, recordings=share.recordings, seconds=round(share.seconds, 3))
            for share in speakers.to_tell(shares)
        ]


SPEAKERS = "How much there is of each speaker; empty where nobody has numbered them, and all have 0"


class DatasetOut(BaseModel):
    """A set of recordings of one voice, or of several speakers (F-060)."""

    id: str = Field(examples=[_DATASET])
    slug: str = Field(description="Names the folder; never changes", examples=["anna-warm"])
    name: str = Field(examples=["Anna, warm"])
    description: str
    user_id: str = Field(description="The account that it belongs to")
    type: Literal["audio"] = "audio"
    status: DatasetStatus = Field(
        description="`processing` while a job works in it, `failed` if its preparation failed"
    )
    item_count: int = Field(description="Recordings in it", examples=[12])
    duration_seconds: float = Field(description="Of all recordings together", examples=[312.5])
    speakers: list[SpeakerOut] = Field(default=[], description=SPEAKERS)
    created_at: datetime
    updated_at: datetime
    version: int = Field(description="Grows with every change; the ETag is made from it")
    renamed: bool = Field(default=False, description="The plain slug was taken, this one has a suffix")

    @classmethod
    def of(cls, summary: Summary, renamed: bool = False) -> DatasetOut:
        """The row as JSON has it."""
        row = summary.dataset
        return cls(
            id=row.id,
            slug=row.slug,
            name=row.name,
            description=row.description,
            user_id=row.owner_id,
            status=summary.status,
            item_count=summary.item_count,
            duration_seconds=round(summary.duration_seconds, 3),
            speakers=SpeakerOut.all_of(summary.shares),
            created_at=row.created_at,
            updated_at=row.updated_at,
            version=row.version,
            renamed=renamed,
        )


class DatasetPage(BaseModel):
    items: list[DatasetOut]
    next_cursor: NextCursor = None


class SampleOut(BaseModel):
    """One recording (F-062)."""

    id: str = Field(examples=[_SAMPLE])
    dataset_id: str = Field(examples=[_DATASET])
    dataset: str = Field(description="The dataset's slug", examples=["anna-warm"])
    name: str = Field(description="The file's own name", examples=["take 1.mp3"])
    sha256: str = Field(description="Of the file as it was sent")
    extension: str = Field(examples=["mp3"])
    mime_type: str = Field(examples=["audio/mpeg"])
    size_bytes: int = Field(description="Of the file as it was sent")
    duration_seconds: float = Field(description="Of its sound")
    transcript: str = Field(description="What is said in it; empty if nobody has written it")
    transcript_by_machine: bool = Field(
        description="A machine wrote it, and no person has confirmed it by sending it as it is, or mended"
    )
    speaker_id: int = Field(
        ge=0, le=HIGHEST_SPEAKER, description="Whose voice it is, among the speakers of its dataset"
    )
    status: str = Field(examples=["ready"])
    warnings: list[Any] = Field(description="What the report says about its quality")
    created_at: datetime
    version: int = Field(description="Grows with every change; the ETag is made from it")
    duplicate: bool = Field(default=False, description="The same content was in the dataset already")

    @classmethod
    def of(cls, row: Sample, dataset: Dataset, duplicate: bool = False) -> SampleOut:
        """The row as JSON has it."""
        return cls(
            id=row.id,
            dataset_id=row.dataset_id,
            dataset=dataset.slug,
            name=row.original_name,
            sha256=row.sha256,
            extension=row.extension,
            mime_type=row.mime_type,
            size_bytes=row.size_bytes,
            duration_seconds=row.duration_seconds,
            transcript=row.transcript,
            transcript_by_machine=row.transcript_by_machine,
            speaker_id=row.speaker_id,
            status=row.status,
            warnings=list(row.report.get("warnings") or []),
            created_at=row.created_at,
            version=row.version,
            duplicate=duplicate,
        )


class SamplePage(BaseModel):
    items: list[SampleOut]
    next_cursor: NextCursor = None


class SampleChange(BaseModel):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"transcript": "Good morning."}, {"speaker_id": 1}]}
    )

    transcript: Text | None = Field(default=None, description="What is said in it")
    speaker_id: int | None = Field(
        default=None, ge=0, le=HIGHEST_SPEAKER, description="Whose voice it is, among the speakers of its dataset"
    )


class DatasetRef(BaseModel):
    id: str = Field(examples=[_DATASET])
    slug: str = Field(examples=["anna-warm"])
    name: str = Field(examples=["Anna, warm"])
    renamed: bool = Field(description="The dataset is new, and its plain slug was taken")


class Rejected(BaseModel):
    name: str = Field(examples=["notes.txt"])
    problem: dict[str, Any] = Field(description="Problem details, as for a whole request")


class Upload(BaseModel):
    """What became of the files of one request."""

    dataset: DatasetRef
    samples: list[SampleOut]
    rejected: list[Rejected]

    @classmethod
    def of(cls, received: Received) -> Upload:
        """The result as JSON has it."""
        dataset = received.dataset
        return cls(
            dataset=DatasetRef(id=dataset.id, slug=dataset.slug, name=dataset.name, renamed=received.renamed),
            samples=[SampleOut.of(row, dataset, row.id in received.duplicates) for row in received.samples],
            rejected=[Rejected(name=name, problem=problem) for name, problem in received.rejected],
        )


class Transcribed(BaseModel):
    """What a metadata.csv changed."""

    changed: int = Field(description="How many recordings have another transcript now")
    confirmed: int = Field(description="How many have the same that a machine wrote, and now a person's word for it")
    without_transcript: int = Field(description="How many of the dataset have none still")
    by_machine: int = Field(description="How many of the dataset have one that nobody has confirmed still")

    @classmethod
    def of(cls, taken: Taken) -> Transcribed:
        """The result as JSON has it."""
        return cls(
            changed=taken.changed,
            confirmed=taken.confirmed,
            without_transcript=taken.without,
            by_machine=taken.by_machine,
        )
