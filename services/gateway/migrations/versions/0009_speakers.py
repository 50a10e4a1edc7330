"""Whose voice is in a recording? The speaker's number within its dataset, 0 for all that are there."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("samples", sa.Column("speaker_id", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    with op.batch_alter_table("samples") as samples:
        samples.drop_column("speaker_id")
