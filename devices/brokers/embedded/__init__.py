"""An MQTT 3.1, 3.1.1 and 5 broker for one machine, inside the gateway process. See `broker` for its rules."""

from devices.brokers.embedded.broker import Broker
from devices.brokers.embedded.limits import Options
from devices.brokers.embedded.listener import Listener
from devices.brokers.embedded.thread import BrokerThread

__all__ = ["Broker", "BrokerThread", "Listener", "Options"]
