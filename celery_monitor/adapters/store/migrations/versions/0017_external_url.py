"""Stores the URL of the fleet's page, for the monitors of other fleets in the same database."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.add_column("meta", sa.Column("external_url", sa.Text, nullable=False, server_default=sa.text("''")))
