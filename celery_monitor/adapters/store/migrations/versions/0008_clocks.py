"""Stores workers' clock offsets, and which workers send no heartbeats."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("workers", sa.Column("clock_offset", sa.Double, nullable=False, server_default=sa.text("0")))
    op.add_column("workers", sa.Column("heartbeats", sa.Boolean, nullable=False, server_default=sa.text("true")))
