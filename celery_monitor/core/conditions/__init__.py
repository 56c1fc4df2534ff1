"""What else than a failure opens an incident: one judge for each condition, one module for each judge.

A judge looks at what is under way (``runtime``, ``waiting``, ``lost``) or at the queues (``backlog``, ``no_worker``)
and says which episodes hold and which are over; ``core/episodes`` makes incidents of that. To add a condition, write
its module and add its class to the list in ``watch``.

Nothing here is done for each event. The tasks under way are looked at in turn, some of them once a second, and a
judgement is made after each complete round. Nothing is judged while the stream is not read up to the present, so
that nothing opens and nothing resolves because the monitor was away:

- Our own probes tell whether the stream is read up to now.
- Where events of a time are lost, what began before is judged only after its worker has said that it still holds it.
- Some tasks end without an event (``Ignore``, an event that was lost): a run of more than a minute is judged only
  after its worker has said that it still holds it, where workers answer.
- Silence is measured in time in which the stream was watched, and that a queue is long or has no worker in time in
  which the broker was asked.
"""
