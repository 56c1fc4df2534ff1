"""The worker of a task under way, and the runs of its id on other workers."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("tracked", sa.Column("host", sa.Text))
    op.add_column("tracked", sa.Column("runs", sa.Text))
