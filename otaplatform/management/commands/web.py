"""`manage.py web`: the web server, with its limits on what clients may keep open."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from otaplatform import web_server


class Command(BaseCommand):
    help = "Serve the console, the API and the devices that speak HTTP."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--host", default=settings.OTA_BIND, help="address to listen on (default: OTA_BIND)"
        )
        parser.add_argument(
            "--port", type=int, default=settings.OTA_HTTP_PORT, help="(default: OTA_HTTP_PORT)"
        )
        parser.add_argument(
            "--download-port", type=int, default=0, help="a further port, which answers downloads only"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            web_server.run(options["host"], options["port"], options["download_port"])
        except OSError as error:
            raise CommandError(f"The web server cannot listen: {error}") from None
