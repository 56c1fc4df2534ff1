"""The path of an event through the program.

``adapters/broker`` polls messages from the fleet's event exchange. ``runtime/pump`` hands them to ``core/monitor``,
which does no I/O: it decodes them (``core/decode``), finds each task's name by tracking tasks (``core/track``),
aggregates them (``core/aggregate``) and decides which failures page (``core/decide``). The changes are committed to
``adapters/store`` in one transaction, and only then are the messages acknowledged. ``runtime/notifier`` delivers the
notifications that the transaction put into the outbox, through ``adapters/channels``. ``adapters/prometheus`` and
``adapters/web`` show snapshots of the monitor and read-only queries on the store.

``pipeline`` assembles the parts that an event passes through, ``leader`` runs them, and ``app`` is the process.
"""
