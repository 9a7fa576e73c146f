"""`manage.py rotate_secrets`: every stored secret under the newest of OTA_ENCRYPTION_KEYS."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from otaplatform.secret_rotation import rotate_all


class Command(BaseCommand):
    help = (
        "Re-encrypt every stored secret under the first of OTA_ENCRYPTION_KEYS. Safe while the platform "
        "runs, and to be started again if it was cut off."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        unreadable = 0
        for done in rotate_all():
            self.stdout.write(f"{done.model._meta.label}.{done.column}: {done.changed} re-encrypted")
            if done.unreadable:
                unreadable += len(done.unreadable)
                shown = ", ".join(str(pk) for pk in done.unreadable[:10])
                self.stderr.write(f"  {len(done.unreadable)} cannot be read with any key: {shown}")
        if unreadable:
            raise CommandError(
                f"{unreadable} secrets cannot be read. Add the key that encrypted them to "
                "OTA_ENCRYPTION_KEYS and run this again before you retire any key."
            )
        self.stdout.write("Every secret is under the newest key; the older ones can be retired.")
