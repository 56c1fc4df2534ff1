"""Communicates with the fleet's broker: the event stream, the probe, remote control and queue lengths.

kombu opens the connections, so URLs, TLS, failover and Sentinel work as they do in Celery. The stream is then read
directly from the socket: kombu and py-amqp take 45 to 55 µs per message, a reader of only the necessary frames takes a
tenth. This package does not decode events.
"""

from celery_monitor.adapters.broker.addresses import KnownAddress
from celery_monitor.adapters.broker.fleet import BrokerFleet
from celery_monitor.adapters.broker.probe import BrokerProbe
from celery_monitor.adapters.broker.replay import ReplaySource
from celery_monitor.adapters.broker.source import BrokerSource

__all__ = ["BrokerFleet", "BrokerProbe", "BrokerSource", "KnownAddress", "ReplaySource"]
