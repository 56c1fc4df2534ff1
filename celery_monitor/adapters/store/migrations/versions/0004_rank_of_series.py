"""Stores the order in which series are merged if there are too many."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("series", sa.Column("rank", sa.BigInteger, nullable=False, server_default="0"))
    op.create_index("ix_series_rank", "series", ["rank"])
