"""`manage.py create_token USER`: print a token for the REST API."""

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from otaplatform.accounts import tokens
from otaplatform.accounts.models import User


class Command(BaseCommand):
    help = "Print a token with which programs use the REST API as USER. It is stored as a hash only."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user")
        parser.add_argument(
            "--days", type=int, default=tokens.default_days(), help="until it expires (%(default)s)"
        )
        parser.add_argument("--revoke", action="store_true", help="revoke all tokens of USER instead")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["user"], is_active=True).first()
        if user is None:
            raise CommandError(f"There is no active user {options['user']}.")
        if options["revoke"]:
            self.stdout.write(f"{tokens.revoke_all(user, None)} revoked")
            return
        try:
            self.stdout.write(tokens.issue(user, options["days"])[1])
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from None
