"""The progress of counting: the lease, the sequence of flushes, fingerprints, and the monitor's own counters."""

from typing import Final

from sqlalchemy import BigInteger, Column, Double, LargeBinary, Table, Text, text

from celery_monitor.adapters.store.schema.columns import metadata, number_column, real_column, text_column

meta: Final = Table(
    "meta",
    metadata,
    number_column("id", key=True),
    number_column("sequence"),
    number_column("epoch"),
    real_column("at"),
    text_column("writer"),
    Column("identity", Text, nullable=False, server_default=text("''")),
    Column("holder", Text, nullable=False, server_default=text("''")),
    Column("term", BigInteger, nullable=False, server_default=text("0")),
    Column("lease_until", Double, nullable=False, server_default=text("0")),
    Column("position", Text),
    Column("fleet", Text, nullable=False, server_default=text("''")),
    Column("external_url", Text, nullable=False, server_default=text("''")),
)
"""One row. ``at``: ``now`` of the last flush. ``writer``: token of the process that leads and may write. ``identity``:
random ID of the store, which never changes. ``holder``, ``term``: see LeaseState. ``lease_until``: Unix seconds of the
database's clock. ``position``: see Changes. ``fleet``, ``external_url``: name of the fleet, and URL of its page."""

counters: Final = Table(
    "counters",
    metadata,
    text_column("name", key=True),
    number_column("slot", key=True),
    Column("value", Double, nullable=False),
    real_column("at"),
    sqlite_with_rowid=False,
)
"""The monitor's own counters: the last value in each quarter of an hour in which the counter changed."""

fingerprints: Final = Table(
    "fingerprints",
    metadata,
    number_column("epoch", key=True),
    number_column("total", key=True),
    Column("blob", LargeBinary, nullable=False),
    Column("expires_at", Double),
    sqlite_with_rowid=False,
)
"""``total``: bytes of the epoch's fingerprints up to and including this row, so that pruning deletes one range.
``expires_at``: set when the next epoch begins."""
