"""Everything that speaks with the fleet's broker: the event stream, the probe, remote control and queue lengths.

kombu opens the connections, so that URLs, TLS, failover and Sentinel mean what they mean to Celery. The stream itself
is then read from the socket: kombu and py-amqp spend 45 to 55 µs on a message, a reader of just these frames a tenth.
Nothing here decodes an event.
"""

from celery_monitor.adapters.broker.addresses import KnownAddress
from celery_monitor.adapters.broker.fleet import BrokerFleet
from celery_monitor.adapters.broker.probe import BrokerProbe
from celery_monitor.adapters.broker.replay import ReplaySource
from celery_monitor.adapters.broker.source import BrokerSource

__all__ = ["BrokerFleet", "BrokerProbe", "BrokerSource", "KnownAddress", "ReplaySource"]
