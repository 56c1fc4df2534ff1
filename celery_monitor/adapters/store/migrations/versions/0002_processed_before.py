"""Stores the number of tasks of a worker's earlier runs, so that a host's total does not decrease."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("workers", sa.Column("processed_before", sa.BigInteger, nullable=False, server_default="0"))
