"""`manage.py up`: the whole platform on one machine, as real processes under one small supervisor."""

import os
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from otaplatform import bootstrap
from otaplatform.installation import LAST, AlreadyRunsError, Installation, login_line, take_lock
from otaplatform.ports import PortError
from otaplatform.redis_server import NoRedisServerError
from otaplatform.supervisor import Supervisor

READY_WITHIN = 60.0


class Command(BaseCommand):
    help = "Run everything on this machine: web, worker, beat, gateway with the MQTT broker, Redis server."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--demo",
            type=int,
            default=settings.DEMO,
            metavar="N",
            help="simulated devices; an empty database also gets a sample product (default: OTA_DEMO)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        data_dir: Path = settings.OTA_DATA_DIR
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with take_lock(data_dir):
                self.run(options["demo"])
        except (AlreadyRunsError, PortError, NoRedisServerError) as error:
            raise CommandError(str(error)) from None
        except KeyboardInterrupt:
            # Before the parts were started; from then on the supervisor answers the signals.
            self.say("")
        self.say("Everything has ended.")

    def run(self, simulated: int) -> None:
        """Prepare the database, start the parts, wait for the signal that ends them."""
        installation = Installation(self.say)
        copy = bootstrap.migrate()
        if copy:
            self.say(f"The database was copied to {copy} before it was migrated.")
        password_is_set = bool(os.environ.get("DJANGO_SUPERUSER_PASSWORD"))
        login = bootstrap.first_administrator()
        if password_is_set and login is None:
            self.say("DJANGO_SUPERUSER_PASSWORD is for the first start only: remove it from the environment.")
        try:
            if simulated and bootstrap.sample_product() is None:
                simulated = 0
            bootstrap.make_way()
            connections.close_all()
            supervisor = Supervisor(
                installation.parts(simulated),
                environ=installation.environ(),
                cwd=str(settings.BASE_DIR),
                last=LAST,
                say=self.say,
            )

            def on_ready(is_ready: bool) -> None:
                nonlocal login
                for line in installation.summary(is_ready, login, simulated):
                    self.say(line)
                login = None

            supervisor.run(installation.is_ready, on_ready, READY_WITHIN)
        finally:
            if login:
                # The start ended before its last words, and this password is shown nowhere else.
                self.say(login_line(login))

    def say(self, line: str) -> None:
        try:
            self.stdout.write(line)
            self.stdout.flush()
        except OSError:
            # Nobody reads any more (the terminal is gone); the parts must still be ended in order.
            self.stdout._out = Path(os.devnull).open("w")  # type: ignore[attr-defined]  # noqa: SIM115
