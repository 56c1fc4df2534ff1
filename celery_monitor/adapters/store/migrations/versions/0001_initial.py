"""All tables of the first version."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

COUNTS = ("sent", "received", "started", "succeeded", "failed", "retried", "rejected", "revoked")


def upgrade() -> None:
    _counts()
    _failures()
    _state()
    _incidents()


def _counts() -> None:
    op.create_table(
        "meta", _number("id", key=True), _number("sequence"), _number("epoch"), _real("at"), _text("writer")
    )
    op.create_table(
        "series",
        *(_text(name, key=True) for name in ("name", "queue", "host")),
        *(_number(name) for name in COUNTS),
        _text("exceptions"),
        _text("runtime"),
        _real("runtime_sum"),
        _text("wait"),
        _real("wait_sum"),
    )
    op.create_table(
        "buckets",
        _number("start", key=True),
        _text("name", key=True),
        _text("queue", key=True),
        *(_number(name) for name in COUNTS),
        _real("runtime_sum"),
        _number("runtime_count"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "task_totals",
        _text("name", key=True),
        _text("queue", key=True),
        *(_number(name) for name in COUNTS),
        _real("runtime_sum"),
        _number("runtime_count"),
        _real("last_failure_at", null=True),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "counters",
        _text("name", key=True),
        _number("slot", key=True),
        _real("value"),
        _real("at"),
        sqlite_with_rowid=False,
    )


def _failures() -> None:
    op.create_table(
        "error_groups",
        _text("id", key=True),
        *(_text(name) for name in ("name", "exception", "frame")),
        _real("first_at"),
        _real("last_at"),
    )
    op.create_index("ix_error_groups_last_at", "error_groups", ["last_at"])
    op.create_table(
        "error_buckets", _number("start", key=True), _text("group", key=True), _number("count"), sqlite_with_rowid=False
    )
    op.create_table(
        "failures",
        _row_id(),
        *(_text(name) for name in ("uuid", "name", "queue", "hostname")),
        _real("at"),
        *(_text(name) for name in ("exception", "message", "traceback", "group")),
        _text("incident", null=True),
        _text("reason"),
        _text("args", null=True),
        _text("kwargs", null=True),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_failures_at", "failures", ["at", "id"])
    op.create_index("ix_failures_name", "failures", ["name", "at", "id"])
    op.create_index("ix_failures_uuid", "failures", ["uuid"])
    op.create_index("ix_failures_group", "failures", ["group", "id"])


def _state() -> None:
    op.create_table(
        "tracked",
        _text("uuid", key=True),
        _text("name", null=True),
        _text("queue", null=True),
        _number("stage"),
        _real("due_at"),
        _real("started_at"),
        _number("seen"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "workers",
        _text("hostname", key=True),
        sa.Column("up", sa.Boolean, nullable=False),
        _real("last_heartbeat"),
        *(_number(name) for name in ("active", "processed", "pid")),
        *(_text(name) for name in ("sw_ident", "sw_ver", "sw_sys")),
        *(_number(name) for name in ("started_seen", "baseline", "unobserved")),
    )
    op.create_table(
        "fingerprints",
        _number("epoch", key=True),
        _number("total", key=True),
        sa.Column("blob", sa.LargeBinary, nullable=False),
        _real("expires_at", null=True),
        sqlite_with_rowid=False,
    )


def _incidents() -> None:
    op.create_table(
        "incidents",
        _text("key", key=True),
        _text("state"),
        _real("opened_at"),
        _real("first_at"),
        _text("body"),
        _real("delivered_at", null=True),
        sa.Column("delivered_count", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        _text("delivery_error", null=True),
    )
    op.create_index("ix_incidents_state", "incidents", ["state", "opened_at"])
    op.create_index("ix_incidents_first_at", "incidents", ["first_at"])
    op.create_table(
        "outbox",
        _row_id(),
        *(_text(name) for name in ("channel", "key", "action", "route")),
        _number("revision"),
        _number("attempts"),
        *(_real(name) for name in ("created_at", "due_at", "refreshed_due_at")),
        _text("state"),
        _text("error", null=True),
        _real("delivered_at", null=True),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_outbox_state", "outbox", ["state", "id"])
    op.create_index("ix_outbox_key", "outbox", ["key"])
    op.create_index("ix_outbox_delivered", "outbox", ["channel", "delivered_at"])
    _partial_unique("ux_outbox_pending", ["key", "channel", "action"], "state = 'pending'")
    _partial_unique("ux_outbox_report", ["key", "channel"], "action = 'report'")


def _partial_unique(name: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, "outbox", columns, unique=True, sqlite_where=where, postgresql_where=where)


def _text(name: str, *, key: bool = False, null: bool = False) -> sa.Column[str]:
    kind = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    return sa.Column(name, kind, primary_key=key, nullable=null)


def _number(name: str, *, key: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, primary_key=key, nullable=False, autoincrement=False)


def _real(name: str, *, null: bool = False) -> sa.Column[float]:
    return sa.Column(name, sa.Double, nullable=null)


def _row_id() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True)
