"""Stores when a worker's current process began, and the shutdown of an earlier one with its unfinished tasks."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    for name in ("began_at", "goodbye_at", "goodbye_sign"):
        op.add_column("workers", sa.Column(name, sa.Double, nullable=False, server_default=sa.text("0")))
    op.add_column("workers", sa.Column("unfinished", sa.BigInteger, nullable=False, server_default=sa.text("0")))
    # Workers that are down may have shut down properly, so tasks that they still finish are not lost.
    op.execute("UPDATE workers SET goodbye_at = last_heartbeat, goodbye_sign = last_heartbeat WHERE NOT up")
