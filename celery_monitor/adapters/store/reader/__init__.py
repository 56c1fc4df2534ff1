"""The Reader: read-only queries for the pages, the API and the report, one module for each subject."""

from celery_monitor.adapters.store.reader.counts import CountQueries
from celery_monitor.adapters.store.reader.ended import EndedQueries
from celery_monitor.adapters.store.reader.failures import FailureQueries
from celery_monitor.adapters.store.reader.groups import GroupQueries
from celery_monitor.adapters.store.reader.hours import HourQueries
from celery_monitor.adapters.store.reader.incidents import IncidentQueries
from celery_monitor.adapters.store.reader.last_flush import LastFlushQueries


class SqlReader(
    CountQueries, HourQueries, FailureQueries, GroupQueries, IncidentQueries, EndedQueries, LastFlushQueries
):
    """See Reader. Thread-safe; each method reads one consistent state of the store."""
