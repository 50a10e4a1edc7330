"""How are jobs kept? A row per job and step, an append-only log, and the outbox and inbox of the bus."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Float, ForeignKey, Index, Integer, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from libs.common.events import ConversionInput, InputFile, ManifestRef, SpokenClip, TextInput
from libs.common.jobs import ACTIVE, WORKS_IN_DATASET, JobKind, JobState, QueueState, Step
from services.gateway.database import Base, new_id, utcnow

# SQLite counts rows by itself only in a column of type INTEGER.
RowNumber = BigInteger().with_variant(Integer, "sqlite")


def _in(column: str, values: Iterable[str]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in sorted(values))})"


_IS_WORKING = f"{_in('status', ACTIVE)} AND {_in('kind', WORKS_IN_DATASET)}"


class Job(Base):
    """One job of any kind, as people see it."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_owner_id_created_at", "owner_id", "created_at"),
        # C-23: two runs of one kind never work on one dataset at the same time.
        Index(
            "uq_jobs_running_per_dataset",
            "dataset_id",
            "kind",
            unique=True,
            sqlite_where=text(_IS_WORKING),
            postgresql_where=text(_IS_WORKING),
        ),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("job"))
    owner_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(300))
    # No foreign keys to dataset and model: the record of a job outlives both.
    # Without a dataset any number of jobs of a kind may run: NULLs are never equal in a unique index.
    dataset_id: Mapped[str | None] = mapped_column(String(40), index=True)
    dataset: Mapped[str | None] = mapped_column(String(64))
    experiment: Mapped[str] = mapped_column(String(64))
    voice: Mapped[str | None] = mapped_column(String(64), index=True)
    model_id: Mapped[str | None] = mapped_column(String(40))
    preset: Mapped[str] = mapped_column(String(32))
    options: Mapped[dict[str, Any]]
    inputs: Mapped[list[Any]]
    priority: Mapped[int] = mapped_column(Integer, default=50)

    status: Mapped[str] = mapped_column(String(16), default=JobState.pending.value, index=True)
    phase: Mapped[str | None] = mapped_column(String(16))
    queue_state: Mapped[str | None] = mapped_column(String(16))
    attempt: Mapped[int] = mapped_column(Integer, default=1)
    version: Mapped[int] = mapped_column(Integer, default=1)
    error: Mapped[dict[str, Any] | None]
    retry_count: Mapped[int] = mapped_column(Integer, default=0)
    last_error: Mapped[dict[str, Any] | None]
    # What the job made, in numbers, for those who list jobs; the whole is in the last step's manifest.
    summary: Mapped[dict[str, Any] | None]

    progress: Mapped[float] = mapped_column(Float, default=0.0)
    current_step: Mapped[int] = mapped_column(Integer, default=0)
    total_steps: Mapped[int] = mapped_column(Integer, default=0)
    current_loss: Mapped[float | None] = mapped_column(Float)
    losses: Mapped[dict[str, Any]] = mapped_column(default=dict)
    eta_seconds: Mapped[float | None] = mapped_column(Float)
    progress_sequence: Mapped[int] = mapped_column(BigInteger, default=0)

    estimated_seconds: Mapped[float | None] = mapped_column(Float)
    estimated_cost: Mapped[float | None] = mapped_column(Float)
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    queued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    # When what an ended job left behind was removed; None while there may be something.
    swept_at: Mapped[datetime | None]

    @property
    def state(self) -> JobState:
        return JobState(self.status)

    @property
    def is_over(self) -> bool:
        return self.state not in ACTIVE

    @property
    def step(self) -> Step | None:
        return Step(self.phase) if self.phase else None

    @property
    def job_kind(self) -> JobKind:
        return JobKind(self.kind)

    @property
    def queue(self) -> QueueState | None:
        return QueueState(self.queue_state) if self.queue_state else None

    @property
    def pinned(self) -> tuple[InputFile, ...]:
        """The recordings that the job was opened with, by content; later uploads do not change a job."""
        return tuple(InputFile.model_validate(item) for item in self.inputs)

    @property
    def spoken(self) -> tuple[SpokenClip, ...]:
        """The same with what is said in them, for a voice that speaks."""
        return tuple(SpokenClip.model_validate(item) for item in self.inputs)

    @property
    def recordings(self) -> tuple[ConversionInput, ...]:
        """The recordings of a conversion job."""
        return tuple(ConversionInput.model_validate(item) for item in self.inputs)

    @property
    def texts(self) -> tuple[TextInput, ...]:
        """The texts of a speech job."""
        return tuple(TextInput.model_validate(item) for item in self.inputs)

    @property
    def sounding(self) -> tuple[ConversionInput, ...] | tuple[TextInput, ...]:
        """What a job has a sound made of, each with its number and name."""
        return self.texts if self.job_kind is JobKind.speech else self.recordings


class JobStep(Base):
    """One step of a job: whose attempt it is, and what it made."""

    __tablename__ = "job_steps"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    step: Mapped[str] = mapped_column(String(16), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, default=1)
    token: Mapped[int] = mapped_column(Integer, default=0)
    failures: Mapped[int] = mapped_column(Integer, default=0)
    worker: Mapped[str] = mapped_column(String(200), default="")
    manifest_path: Mapped[str | None] = mapped_column(Text)
    manifest_sha256: Mapped[str | None] = mapped_column(String(64))
    manifest_token: Mapped[int | None] = mapped_column(Integer)
    result: Mapped[dict[str, Any] | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    @property
    def manifest(self) -> ManifestRef | None:
        """What the step made, None while it is not finished."""
        if self.manifest_path is None or self.manifest_sha256 is None or self.manifest_token is None:
            return None
        return ManifestRef(path=self.manifest_path, sha256=self.manifest_sha256, token=self.manifest_token)


class JobLog(Base):
    """One line of a job's history (F-056); rows are only ever added. `kind` is `transition`, `step` or `message`."""

    __tablename__ = "job_log"
    __table_args__ = (Index("ix_job_log_job", "job_id", "id"),)

    id: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(String(16))
    level: Mapped[str] = mapped_column(String(16))
    message: Mapped[str] = mapped_column(Text)
    details: Mapped[dict[str, Any]] = mapped_column("metadata", default=dict)


class Outgoing(Base):
    """One message to the bus, in the order in which a job's messages have to go out."""

    __tablename__ = "outbox"
    __table_args__ = (
        Index(
            "ix_outbox_unsent",
            "job_id",
            "id",
            sqlite_where=text("sent_at IS NULL"),
            postgresql_where=text("sent_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(16))
    message_id: Mapped[str] = mapped_column(String(200), unique=True)
    payload: Mapped[dict[str, Any]]
    lane: Mapped[str | None] = mapped_column(String(16))
    created_at: Mapped[datetime]
    not_before: Mapped[datetime]
    claimed_by: Mapped[str | None] = mapped_column(String(64))
    claimed_until: Mapped[datetime | None]
    tries: Mapped[int] = mapped_column(Integer, default=0)
    last_error: Mapped[str | None] = mapped_column(Text)
    sent_at: Mapped[datetime | None] = mapped_column(index=True)
    sequence: Mapped[int | None] = mapped_column(BigInteger)


class Incoming(Base):
    """An event that was applied; its id is here exactly when its effect is."""

    __tablename__ = "inbox"

    event_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    job_id: Mapped[str] = mapped_column(String(64))
    received_at: Mapped[datetime] = mapped_column(index=True)


class BrokerStore(Base):
    """The store of the broker that knows what was sent: one row, compared whenever the broker has been away."""

    __tablename__ = "broker_store"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False, default=1)
    identity: Mapped[str] = mapped_column(String(40))
    seen_at: Mapped[datetime] = mapped_column(default=utcnow)
