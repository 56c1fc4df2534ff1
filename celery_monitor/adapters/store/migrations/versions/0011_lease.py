"""Stores the leader, the end of its lease, and the position of the last committed message."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("meta", sa.Column("holder", sa.Text, nullable=False, server_default=sa.text("''")))
    op.add_column("meta", sa.Column("term", sa.BigInteger, nullable=False, server_default=sa.text("0")))
    op.add_column("meta", sa.Column("lease_until", sa.Double, nullable=False, server_default=sa.text("0")))
    op.add_column("meta", sa.Column("position", sa.Text, nullable=True))
