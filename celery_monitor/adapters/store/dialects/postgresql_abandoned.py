"""PostgreSQL: writers whose clients were stopped or cut off in the middle of a transaction.

``idle_in_transaction_session_timeout`` does not reach all of them. The server measures it from the end of a query
(Sync) to the next message, so it does not run between the statements of a pipeline, nor within a message that has
arrived in part (https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-PIPELINING). Such a
transaction keeps its locks for as long as its client exists. Only another session can end it.
"""

from typing import Any, Final

import psycopg

# What waits for the client has this wait event, whatever its state is called; ``state_change`` moves with each message.
# The role's own sessions may be ended without any right. Two of the lock's numbers are halves of its key.
_END: Final = (
    "SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity AS a USING (pid) "
    "WHERE locktype = 'advisory' AND granted AND classid = %s AND objid = %s AND objsubid = 1 "
    "AND database = a.datid AND a.datname = current_database() AND a.usename = current_user "
    "AND a.wait_event_type = 'Client' AND clock_timestamp() - a.state_change > %s * interval '1 second') AS ended"
)


def end_abandoned(connection: psycopg.Connection[tuple[Any, ...]], lock: int, silent_for: float) -> int:
    """End each transaction that holds this advisory lock and whose client has said nothing for so many seconds.

    How many there were.
    """
    high, low = divmod(lock % (1 << 64), 1 << 32)
    row = connection.execute(_END, (high, low, silent_for)).fetchone()
    return row[0] if row else 0
