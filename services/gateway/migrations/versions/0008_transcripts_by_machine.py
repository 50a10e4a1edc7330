"""Which transcripts did nobody read? A machine wrote them, until a person sends them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "samples", sa.Column("transcript_by_machine", sa.Boolean(), nullable=False, server_default=sa.false())
    )


def downgrade() -> None:
    # An older program would take them for a person's.
    op.execute("UPDATE samples SET transcript = '' WHERE transcript_by_machine")
    with op.batch_alter_table("samples") as samples:
        samples.drop_column("transcript_by_machine")
