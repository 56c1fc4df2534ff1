"""An event's way through the program.

``adapters/broker`` polls messages from the fleet's event exchange. ``runtime/pump`` hands them to ``core/monitor``,
which is pure: it decodes them (``core/decode``), names them by what it tracks of each task (``core/track``), adds them
up (``core/aggregate``) and decides which failures page (``core/decide``). What that changed is committed to
``adapters/store`` in one transaction, and only then are the messages acknowledged. ``runtime/notifier`` delivers what
the transaction put into the outbox, by ``adapters/channels``. ``adapters/prometheus`` and
``adapters/web`` show snapshots of the monitor and read-only queries on the store. ``app`` builds all of it.
"""
