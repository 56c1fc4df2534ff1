"""Alembic runs this for each upgrade, in the caller's transaction: either all migrations are applied or none."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
)
context.run_migrations()
