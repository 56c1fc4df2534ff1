"""Which fleet's counts these are, so that another fleet on the same database does not take them for its own."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("meta", sa.Column("fleet", sa.Text, nullable=False, server_default=sa.text("''")))
