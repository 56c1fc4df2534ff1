"""Stores the newest ended tasks, and more details of unfinished ones."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"

_SORTED = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    for name in ("sent_at", "received_at", "eta"):
        op.add_column("tracked", sa.Column(name, sa.Double, nullable=False, server_default=sa.text("0")))
    op.add_column("tracked", sa.Column("retries", sa.BigInteger, nullable=False, server_default=sa.text("0")))
    op.add_column("tracked", sa.Column("root", sa.Text))
    op.add_column("tracked", sa.Column("parent", sa.Text))
    op.create_table(
        "ended_tasks",
        sa.Column("id", _ROW_ID, primary_key=True),
        sa.Column("uuid", _SORTED, nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("queue", sa.Text),
        sa.Column("hostname", _SORTED, nullable=False),
        sa.Column("stage", sa.BigInteger, nullable=False),
        sa.Column("sent_at", sa.Double, nullable=False),
        sa.Column("received_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("ended_at", sa.Double, nullable=False),
        sa.Column("runtime", sa.Double),
        sa.Column("eta", sa.Double, nullable=False),
        sa.Column("retries", sa.BigInteger, nullable=False),
        sa.Column("root", sa.Text),
        sa.Column("parent", sa.Text),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_ended_tasks_uuid", "ended_tasks", ["uuid"])
