"""Stores the delivery of an incident on each channel. Earlier versions had one channel for incidents."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_SORTED = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_ONLY = "pagerduty"
"""The only channel for incidents of earlier versions."""


def upgrade() -> None:
    op.create_table(
        "deliveries",
        sa.Column("key", _SORTED, primary_key=True),
        sa.Column("channel", _SORTED, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("error", sa.Text, nullable=True),
        sa.Column("delivered_at", sa.Double, nullable=True),
        sa.Column("delivered_count", sa.BigInteger, nullable=False),
        sa.Column("receipt", sa.Text, nullable=True),
        sqlite_with_rowid=False,
    )
    op.execute(_known())
    for column in ("delivered_at", "delivered_count", "delivery_error"):
        op.drop_column("incidents", column)


def _known() -> sa.Insert:
    """A delivery for each incident that was sent or waits to be sent. A pending row determines its state."""
    incidents = sa.table("incidents", *map(sa.column, ("key", "delivered_at", "delivered_count", "delivery_error")))
    outbox = sa.table("outbox", *map(sa.column, ("key", "channel", "action", "state", "attempts", "id")))
    rows = outbox.c.key == incidents.c.key, outbox.c.channel == _ONLY, outbox.c.action != "report"
    waits = sa.exists().where(*rows, outbox.c.state == "pending")
    newest = sa.select(outbox.c.state).where(*rows).order_by(outbox.c.id.desc()).limit(1).scalar_subquery()
    state = sa.case((waits, "pending"), else_=sa.func.coalesce(newest, "delivered"))
    tried = outbox.c.attempts + sa.case((outbox.c.state == "delivered", 1), else_=0)
    attempts = sa.select(sa.func.coalesce(sa.func.sum(tried), 0)).where(*rows).scalar_subquery()
    taken = sa.case((incidents.c.delivered_at.is_not(None), incidents.c.key))
    found = sa.select(
        incidents.c.key,
        sa.literal(_ONLY, sa.Text),
        state,
        sa.cast(attempts, sa.BigInteger),
        incidents.c.delivery_error,
        incidents.c.delivered_at,
        incidents.c.delivered_count,
        taken,
    )
    was_sent = sa.or_(incidents.c.delivered_at.is_not(None), incidents.c.delivery_error.is_not(None))
    found = found.where(sa.or_(was_sent, sa.exists().where(*rows)))
    names = ("key", "channel", "state", "attempts", "error", "delivered_at", "delivered_count", "receipt")
    return sa.insert(sa.table("deliveries", *map(sa.column, names))).from_select(names, found)
