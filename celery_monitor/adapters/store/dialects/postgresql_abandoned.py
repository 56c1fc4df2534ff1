"""PostgreSQL: terminates transactions of writers that were stopped or disconnected in the middle.

``idle_in_transaction_session_timeout`` does not reach all of them. The server measures it from the end of a query
(Sync) to the next message, so it does not run between the statements of a pipeline, nor while a message has arrived
only in part (https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-PIPELINING). Such a transaction
keeps its locks as long as its client exists. Only another session can end it.
"""

from typing import Any, Final

import psycopg

# A backend that waits for its client has this wait event, whatever its state; each message updates ``state_change``.
# A role may terminate its own sessions without privileges. ``classid`` and ``objid`` are the halves of the lock's key.
_END: Final = (
    "SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity AS a USING (pid) "
    "WHERE locktype = 'advisory' AND granted AND classid = %s AND objid = %s AND objsubid = 1 "
    "AND database = a.datid AND a.datname = current_database() AND a.usename = current_user "
    "AND a.wait_event_type = 'Client' AND clock_timestamp() - a.state_change > %s * interval '1 second') AS ended"
)


def end_abandoned(connection: psycopg.Connection[tuple[Any, ...]], lock: int, silent_for: float) -> int:
    """Terminate transactions that hold the advisory lock and whose clients have been silent for ``silent_for`` seconds.

    Returns how many there were.
    """
    high, low = divmod(lock % (1 << 64), 1 << 32)
    row = connection.execute(_END, (high, low, silent_for)).fetchone()
    return row[0] if row else 0
