"""Detects scheduled tasks that did not run, from the event stream alone: without code in the fleet or the scheduler.

All times are the events' timestamps. An expected start is decided when the stream has been read beyond its deadline, as
all earlier events are known then. So an outage of the monitor opens no incident if the broker keeps events. If events
are lost, starts that were due in the gap are not judged, but counted as such and shown.

A schedule that does not run has one incident (condition ``missed``) until it has run. If none of several schedules has
run since the first of them was due, one incident reports that the scheduler is silent, instead of one for each.
"""
