"""Orders the rows of unfinished tasks by age, so that a flush writes few pages of a large table."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"

_SORTED = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_ZERO = sa.text("0")
_PORTION = 10_000


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _rebuild()
        return
    op.add_column("tracked", sa.Column("saved", sa.BigInteger, nullable=False, server_default=sa.text("1")))
    op.alter_column("tracked", "saved", server_default=None)
    op.drop_constraint("tracked_pkey", "tracked", type_="primary")
    op.create_primary_key("tracked_pkey", "tracked", ["saved", "uuid"])


def _rebuild() -> None:
    """SQLite cannot change the primary key of a table.

    Rows are moved in portions, because SQLite keeps the pages that one statement frees in memory; and so the new table
    reuses the space of the old one.
    """
    others = (
        sa.Column("name", sa.Text),
        sa.Column("queue", sa.Text),
        sa.Column("stage", sa.BigInteger, nullable=False),
        sa.Column("due_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("seen", sa.BigInteger, nullable=False),
        sa.Column("host", sa.Text),
        sa.Column("runs", sa.Text),
        sa.Column("sent_at", sa.Double, nullable=False, server_default=_ZERO),
        sa.Column("received_at", sa.Double, nullable=False, server_default=_ZERO),
        sa.Column("eta", sa.Double, nullable=False, server_default=_ZERO),
        sa.Column("retries", sa.BigInteger, nullable=False, server_default=_ZERO),
        sa.Column("root", sa.Text),
        sa.Column("parent", sa.Text),
        sa.Column("expires", sa.Double, nullable=False, server_default=_ZERO),
    )
    op.rename_table("tracked", "tracked_before")
    op.create_table(
        "tracked",
        sa.Column("saved", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("uuid", _SORTED, primary_key=True),
        *others,
        sqlite_with_rowid=False,
    )
    columns = ["uuid", *(column.name for column in others)]
    before = sa.table("tracked_before", *map(sa.column, columns))
    after = sa.table("tracked", *map(sa.column, ["saved", *columns]))
    connection = op.get_bind()
    first = sa.select(before.c.uuid).order_by(before.c.uuid).limit(_PORTION).subquery()
    while (last := connection.execute(sa.select(sa.func.max(first.c.uuid))).scalar()) is not None:
        rows = sa.select(sa.literal(1), *before.c).where(before.c.uuid <= last)
        connection.execute(sa.insert(after).from_select(["saved", *columns], rows))
        connection.execute(sa.delete(before).where(before.c.uuid <= last))
    op.drop_table("tracked_before")
