"""Stores the time at which a task expires."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.add_column("tracked", sa.Column("expires", sa.Double, nullable=False, server_default=sa.text("0")))
