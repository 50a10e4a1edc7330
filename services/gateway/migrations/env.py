"""Alembic's entrance: runs the migrations on the connection that `services.gateway.migrate` opened."""

from __future__ import annotations

from alembic import context

from services.gateway.migrate import all_tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=all_tables().metadata,
    render_as_batch=True,
    compare_type=False,
    transactional_ddl=False,  # one transaction around everything is open already
)
context.run_migrations()
