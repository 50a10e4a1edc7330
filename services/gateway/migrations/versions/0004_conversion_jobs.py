"""Conversions as jobs (any number may read one dataset, and a job tells in numbers what it made), and live ones."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
ACTIVE = "status IN ('pending', 'queued', 'running')"
WORKING = f"{ACTIVE} AND kind IN ('preprocess', 'training')"


def _one_job_per_dataset(condition: str) -> None:
    op.create_index(
        "uq_jobs_running_per_dataset",
        "jobs",
        ["dataset_id", "kind"],
        unique=True,
        sqlite_where=sa.text(condition),
        postgresql_where=sa.text(condition),
    )


def upgrade() -> None:
    op.drop_index("uq_jobs_running_per_dataset", table_name="jobs")
    op.add_column("jobs", sa.Column("summary", JSON, nullable=True))
    _one_job_per_dataset(WORKING)
    op.create_table(
        "socket_tickets",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=40), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_socket_tickets_user_id_users", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("hash", name="pk_socket_tickets"),
    )
    op.create_index("ix_socket_tickets_expires_at", "socket_tickets", ["expires_at"], unique=False)


def downgrade() -> None:
    op.drop_table("socket_tickets")
    # The older program knows no such job.
    for table in ("job_log", "job_steps"):
        op.execute(f"DELETE FROM {table} WHERE job_id IN (SELECT id FROM jobs WHERE kind = 'conversion')")  # noqa: S608
    op.execute("DELETE FROM jobs WHERE kind = 'conversion'")
    op.drop_index("uq_jobs_running_per_dataset", table_name="jobs")
    # SQLite before 3.35 cannot drop a column; the table is rebuilt without this index, which it would lose.
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("summary")
    _one_job_per_dataset(ACTIVE)
