"""The conditions other than failure that open incidents: one judge, in its own module, for each condition.

A judge checks the tasks under way (``runtime``, ``waiting``, ``lost``) or the queues (``backlog``, ``no_worker``) and
reports which episodes hold and which have ended; ``core/episodes`` turns them into incidents. To add a condition, write
its module and add its class to the list in ``watch``.

Nothing here runs for each event. Once a second some of the tasks under way are checked, and after each complete round
the judges report. While the stream is not read up to date nothing is judged, so that an absence of the monitor neither
opens nor resolves incidents:

- The monitor's own probes show whether the stream is read up to date.
- If events of a period are lost, a run that started before its end is judged only after its worker has confirmed that
  it still holds the run.
- Some tasks end without an event (``Ignore``, a lost event): a run of more than a minute is judged only after its
  worker has confirmed it, if workers answer.
- The silence of a worker is measured in time in which the stream was watched. How long a queue has been too long, or
  without workers, is measured in time in which the broker was polled.
"""
