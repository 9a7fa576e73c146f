"""`manage.py create_token USER`: print a token for the REST API."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from knox.models import AuthToken

from otaplatform.accounts.models import User
from otaplatform.api import tokens
from otaplatform.api.errors import ApiError


class Command(BaseCommand):
    help = "Print a token with which programs use the REST API as USER. It is stored as a hash only."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user")
        parser.add_argument("--days", type=int, default=tokens.DAYS, help="until it expires (%(default)s)")
        parser.add_argument("--revoke", action="store_true", help="revoke all tokens of USER instead")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["user"], is_active=True).first()
        if user is None:
            raise CommandError(f"There is no active user {options['user']}.")
        if options["revoke"]:
            count = AuthToken.objects.filter(user=user).delete()[0]
            self.stdout.write(f"{count} revoked")
            return
        if not 1 <= options["days"] <= 3650:
            raise CommandError("--days is a number from 1 to 3650.")
        try:
            self.stdout.write(tokens.issue(user, options["days"])[1])
        except ApiError as error:
            raise CommandError(error.message) from None
