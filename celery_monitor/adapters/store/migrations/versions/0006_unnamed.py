"""Stores task events whose task name is not known yet."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "unnamed",
        sa.Column("number", sa.BigInteger, primary_key=True, nullable=False, autoincrement=False),
        sa.Column("since", sa.Double, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("measured", sa.Double),
    )
