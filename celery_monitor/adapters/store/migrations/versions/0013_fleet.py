"""Stores the name of the fleet, so that another fleet in the same database does not use its tables."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("meta", sa.Column("fleet", sa.Text, nullable=False, server_default=sa.text("''")))
