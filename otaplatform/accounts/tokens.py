"""Making and revoking tokens. API, console and command line call these verbs."""

from datetime import timedelta

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.utils.translation import gettext_lazy as _
from knox.models import AuthToken

from otaplatform.accounts import audit
from otaplatform.accounts.models import Account, User

# Of one user; and how many of an account are listed.
MOST, MOST_LISTED = 100, 1000


def default_days() -> int:
    """How long a token works if nobody says."""
    return min(90, settings.OTA_TOKEN_MAX_DAYS)


def issue(user: User, days: int | None = None) -> tuple[AuthToken, str]:
    """A new token of a user: (its row, its text, which is stored nowhere).

    ValidationError if it would work longer than OTA_TOKEN_MAX_DAYS, or if there are too many.
    """
    days = default_days() if days is None else days
    most: int = settings.OTA_TOKEN_MAX_DAYS
    if not 1 <= days <= most:
        text = _("A token works for at most %(days)d days.")
        raise ValidationError({"days": ValidationError(text, code="max_value", params={"days": most})})
    if AuthToken.objects.filter(user=user).count() >= MOST:
        raise ValidationError(_("You have too many tokens. Revoke one that is not used."), code="quota")
    row, token = AuthToken.objects.create(user=user, expiry=timedelta(days=days))
    audit.record(user.account_id, user, "token.created", user, key=row.token_key, days=days)
    return row, token


def visible_to(actor: User, account: Account | None) -> "QuerySet[AuthToken]":
    """The tokens that `actor` may list and revoke: the own ones, and with the right to change users those of
    the people of `account` (None: of everybody). Only superusers see the tokens of superusers."""
    seen = Q(user=actor)
    if actor.is_superuser:
        seen = Q() if account is None else seen | Q(user__account=account)
    elif account is not None and actor.has_perm("accounts.change_user"):
        seen |= Q(user__account=account, user__is_superuser=False)
    found: QuerySet[AuthToken] = AuthToken.objects.filter(seen).select_related("user")
    return found


def revoke(token: AuthToken, actor: User | None) -> None:
    """End a token at once."""
    if AuthToken.objects.filter(pk=token.pk).delete()[0]:
        audit.record(token.user.account_id, actor, "token.revoked", token.user, key=token.token_key)


def revoke_all(user: User, actor: User | None) -> int:
    """End every token of a user; returns how many there were."""
    count: int = AuthToken.objects.filter(user=user).delete()[0]
    if count:
        audit.record(user.account_id, actor, "token.all_revoked", user, count=count)
    return count
