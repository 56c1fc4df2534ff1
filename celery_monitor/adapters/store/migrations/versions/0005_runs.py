"""Stores the worker of an unfinished task, and runs of the same task ID on other workers."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("tracked", sa.Column("host", sa.Text))
    op.add_column("tracked", sa.Column("runs", sa.Text))
