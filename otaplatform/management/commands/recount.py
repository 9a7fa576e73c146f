"""`manage.py recount`: hold the stored counters against a count of the rows, and repair them if asked."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from campaigns import moves
from campaigns.models import Campaign
from devices import versions


class Command(BaseCommand):
    help = "Compares the stored counters of campaigns and versions with a count of the rows."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--repair", action="store_true", help="put wrong counters right")

    def handle(self, *args: Any, repair: bool, **options: Any) -> None:
        wrong = 0
        for (product, module, version), (stored, counted) in versions.recount(repair=repair).items():
            wrong += 1
            self.stdout.write(f"product {product} {module} {version}: stored {stored}, counted {counted}")
        for pk in Campaign.objects.values_list("id", flat=True).iterator():
            with transaction.atomic():
                differences = moves.recount([pk], repair=repair)
            for (campaign, status), (stored, counted) in differences.items():
                wrong += 1
                self.stdout.write(f"campaign {campaign} {status}: stored {stored}, counted {counted}")
        if wrong and not repair:
            raise CommandError(f"{wrong} counters are wrong; run with --repair while no update is running.")
        self.stdout.write(f"{wrong} counters repaired." if wrong else "All counters are right.")
