"""Stores the outcome of a mail for each of its recipients."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("outbox", sa.Column("progress", sa.Text, nullable=True))
