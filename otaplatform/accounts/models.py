"""Accounts (tenants), the people in them, and the record of what they did."""

from typing import Any
from zoneinfo import available_timezones

from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


def validate_time_zone(name: str) -> None:
    if name and name not in available_timezones():
        raise ValidationError(_("“%(name)s” is not a known time zone."), params={"name": name})


class Account(models.Model):
    """A tenant: its products, devices, firmware and campaigns are seen by its own people only."""

    name = models.CharField(_("name"), max_length=64, unique=True)
    created_at = models.DateTimeField(_("created"), default=timezone.now, editable=False)

    class Meta:
        verbose_name = _("account")
        verbose_name_plural = _("accounts")
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class User(AbstractUser):
    """A person of the staff. A superuser stands above the accounts and chooses one in the header."""

    account = models.ForeignKey(
        Account, models.PROTECT, verbose_name=_("account"), null=True, blank=True, related_name="users"
    )
    language = models.CharField(
        _("language"),
        max_length=10,
        blank=True,
        choices=settings.LANGUAGES,
        help_text=_("Empty: the browser's."),
    )
    time_zone = models.CharField(
        _("time zone"),
        max_length=64,
        blank=True,
        validators=[validate_time_zone],
        help_text=_("For example Asia/Shanghai. Empty: the browser's."),
    )
    # Who sets another's password: the admin page leaves it here for the form.
    changed_by: "User | None" = None

    must_change_password = models.BooleanField(_("must change the password at the next login"), default=False)

    class Meta:
        verbose_name = _("user")
        verbose_name_plural = _("users")

    def __str__(self) -> str:
        return self.username


class AuditEntry(models.Model):
    """One thing that somebody did. Rows are only ever added.

    `action` is a dotted code (`firmware.uploaded`); names are copied, so that the entry still reads after
    its user or object is gone.
    """

    # NULL: above the accounts (a role, a periodic task, a log-in under a name that nobody has).
    account = models.ForeignKey(
        Account, models.PROTECT, verbose_name=_("account"), null=True, blank=True, related_name="+"
    )
    at = models.DateTimeField(_("time"), default=timezone.now)
    actor = models.ForeignKey(
        User, models.SET_NULL, verbose_name=_("user"), null=True, blank=True, related_name="+"
    )
    actor_name = models.CharField(_("user name"), max_length=150)
    action = models.CharField(_("action"), max_length=64)
    object_type = models.CharField(_("kind of object"), max_length=32)
    object_id = models.CharField(_("object id"), max_length=64)
    object_name = models.CharField(_("object"), max_length=128)
    detail: Any = models.JSONField(_("details"), default=dict, blank=True)

    class Meta:
        verbose_name = _("audit entry")
        verbose_name_plural = _("audit log")
        # The page of an account, newest first.
        indexes = [models.Index(fields=["account", "-id"], name="audit_account_newest")]

    def __str__(self) -> str:
        return f"{self.actor_name} {self.action} {self.object_name}"


class CounterKind(models.TextChoices):
    ADDRESS = "address", _("All log-ins from an address")
    USER_AND_ADDRESS = "user_and_address", _("A user's log-ins from an address")
    USER = "user", _("All log-ins of a user")


class LoginCounter(models.Model):
    """Failed log-ins of one window of time that are counted together: see `accounts.login_limits`.

    What was typed as a user name is kept as a digest only (it may have been a password); `user` is set if
    somebody has that name.
    """

    key = models.CharField(max_length=64, unique=True, editable=False)
    kind = models.CharField(_("what is counted"), max_length=16, choices=CounterKind)
    user = models.ForeignKey(User, models.CASCADE, verbose_name=_("user"), null=True, related_name="+")
    address = models.CharField(_("address"), max_length=45, blank=True)
    count = models.PositiveIntegerField(_("failed attempts"), default=0)
    started_at = models.DateTimeField(_("since"), db_index=True)

    class Meta:
        verbose_name = _("failed log-in")
        verbose_name_plural = _("failed log-ins")
        ordering = ["-started_at", "-id"]

    def __str__(self) -> str:
        return " ".join(part for part in (self.user and self.user.username, self.address) if part)
