"""Adds priorities to the outbox."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    # 1, because a pending row may be the first page of its incident.
    op.add_column("outbox", sa.Column("priority", sa.BigInteger, nullable=False, server_default=sa.text("1")))
    op.add_column("outbox", sa.Column("at", sa.Double, nullable=False, server_default=sa.text("0")))
    op.execute("UPDATE outbox SET at = created_at")
    pending = sa.text("state = 'pending'")
    columns = ["channel", "route", "priority", "at", "id"]
    op.create_index("ix_outbox_next", "outbox", columns, sqlite_where=pending, postgresql_where=pending)
