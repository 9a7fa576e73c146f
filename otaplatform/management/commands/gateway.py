"""`manage.py gateway`: receives every device report; without MQTT_URL it also is the MQTT broker."""

import asyncio
import logging
import signal
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import close_old_connections

from devices import identity
from devices.brokers.contract import Identity, Refusal
from devices.brokers.embedded import BrokerThread, Listener, Options
from otaplatform.gateway.session import CLIENT_ID, GatewaySession

logger = logging.getLogger(__name__)

# Logins wait for the database, one connection each.
AUTHENTICATORS = 4


def embedded_broker() -> BrokerThread:
    """The embedded broker on the configured ports, asking `devices.identity` who connects."""
    pool = ThreadPoolExecutor(AUTHENTICATORS, thread_name_prefix="authenticate")

    def check(client_id: str, username: str, password: bytes, peer: str) -> Identity | Refusal:
        close_old_connections()
        try:
            return identity.authenticate(client_id, username, password, peer)
        finally:
            close_old_connections()

    async def authenticate(client_id: str, username: str, password: bytes, peer: str) -> Identity | Refusal:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(pool, check, client_id, username, password, peer)

    listeners = [Listener(settings.OTA_MQTT_PORT, host=settings.OTA_BIND)]
    if settings.OTA_BIND not in ("127.0.0.1", "0.0.0.0", "::", "localhost"):  # noqa: S104  (compared, not bound)
        # The platform's own clients come over loopback.
        listeners.append(Listener(settings.OTA_MQTT_PORT, host="127.0.0.1"))
    if settings.OTA_MQTT_TLS_PORT:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(settings.OTA_MQTT_TLS_CERT, settings.OTA_MQTT_TLS_KEY or None)
        listeners.append(Listener(settings.OTA_MQTT_TLS_PORT, host=settings.OTA_BIND, ssl=context))
    return BrokerThread(authenticate, listeners, Options(standing_sessions=(CLIENT_ID,)))


class Command(BaseCommand):
    help = "Receives device reports over MQTT. Without MQTT_URL it runs the embedded broker too."

    def handle(self, *args: Any, **options: Any) -> None:
        with ExitStack() as stack:
            session = GatewaySession() if settings.MQTT_URL else self._with_broker(stack)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: session.stop())
            session.run()

    def _with_broker(self, stack: ExitStack) -> GatewaySession:
        try:
            running = stack.enter_context(embedded_broker())
        except OSError as error:
            raise CommandError(f"The MQTT port {settings.OTA_MQTT_PORT} cannot be used: {error}") from error
        logger.info("embedded MQTT broker on %s:%s", settings.OTA_BIND, settings.OTA_MQTT_PORT)

        def watch() -> dict[str, int]:
            if not running.is_alive:
                raise CommandError("The embedded MQTT broker has ended.")
            return running.broker.health()

        return GatewaySession(watch=watch)
