"""Adds an index for sums of failures by error group over long periods, on SQLite: see ``Sql.without_index``."""

from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.create_index("ix_error_buckets_group", "error_buckets", ["group", "start", "count"])
