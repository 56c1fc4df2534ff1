"""Did it run? Schedules are judged by the event stream alone: no code in the fleet, and no look at the scheduler.

Everything is by the events' own times. An expected start is decided when the stream has been read beyond its deadline:
whatever was published before is known then, so an outage of the monitor opens nothing where the broker keeps events.
Where events are lost, what was due in the gap is not judged, counted as such, and shown.

One incident (condition ``missed``) stands for a schedule that does not run, until it has run. When none of several
schedules has run since the first of them was due, one incident says that the scheduler is silent, in place of one for
each.
"""
