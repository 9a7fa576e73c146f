"""`manage.py changepassword NAME`: Django's command; the change is audited and ends the user's tokens."""

import getpass
from typing import Any

from django.contrib.auth.management.commands import changepassword

from otaplatform.accounts import services
from otaplatform.accounts.models import User


class Command(changepassword.Command):
    def handle(self, *args: Any, **options: Any) -> str | None:
        said: str | None = super().handle(*args, **options)
        # Django's command takes the name of the process's owner where none is given.
        name = options["username"] or getpass.getuser()
        services.record_password_reset(User.objects.get_by_natural_key(name), actor=None)
        return said
