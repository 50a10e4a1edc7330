"""Jobs of kinds that need no dataset."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ACTIVE = sa.text("status IN ('pending', 'queued', 'running')")


def _nullable(is_nullable: bool) -> None:
    # Rebuilding the table on SQLite would lose the condition of this index.
    op.drop_index("uq_jobs_running_per_dataset", table_name="jobs")
    with op.batch_alter_table("jobs") as table:
        table.alter_column("dataset_id", existing_type=sa.String(length=40), nullable=is_nullable)
        table.alter_column("dataset", existing_type=sa.String(length=64), nullable=is_nullable)
    op.create_index(
        "uq_jobs_running_per_dataset",
        "jobs",
        ["dataset_id", "kind"],
        unique=True,
        sqlite_where=ACTIVE,
        postgresql_where=ACTIVE,
    )


def upgrade() -> None:
    _nullable(True)


def downgrade() -> None:
    # The older program knows no such job; its steps and log lines go by themselves on PostgreSQL.
    for table in ("job_log", "job_steps"):
        op.execute(f"DELETE FROM {table} WHERE job_id IN (SELECT id FROM jobs WHERE dataset_id IS NULL)")  # noqa: S608
    op.execute("DELETE FROM jobs WHERE dataset_id IS NULL")
    _nullable(False)
