"""When the present process of a worker began, and when one of its name said good-bye with what it ran."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    for name in ("began_at", "goodbye_at", "goodbye_sign"):
        op.add_column("workers", sa.Column(name, sa.Double, nullable=False, server_default=sa.text("0")))
    op.add_column("workers", sa.Column("unfinished", sa.BigInteger, nullable=False, server_default=sa.text("0")))
    # Those that are not there may have said good-bye: what they finish is not lost.
    op.execute("UPDATE workers SET goodbye_at = last_heartbeat, goodbye_sign = last_heartbeat WHERE NOT up")
