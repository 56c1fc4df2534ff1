"""Adds an index of failures by exception class, and an identity that distinguishes stores."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_index("ix_failures_exception", "failures", ["exception", "at", "id"])
    op.add_column("meta", sa.Column("identity", sa.Text, nullable=False, server_default=sa.text("''")))
