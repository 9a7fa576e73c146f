"""Making and revoking tokens. API, console and command line call these verbs."""

from datetime import timedelta

from django.utils.translation import gettext_lazy as _
from knox.models import AuthToken

from otaplatform.accounts import audit
from otaplatform.accounts.models import User
from otaplatform.api.errors import ApiError

DAYS = 90
MOST = 100


def issue(user: User, days: int = DAYS) -> tuple[AuthToken, str]:
    """A new token of a user: (its row, its text, which is stored nowhere). ApiError if there are too many."""
    if AuthToken.objects.filter(user=user).count() >= MOST:
        raise ApiError("quota", _("You have too many tokens. Revoke one that is not used."))
    row, token = AuthToken.objects.create(user=user, expiry=timedelta(days=days))
    if user.account is not None:
        audit.record(user.account, user, "token.created", user, key=row.token_key, days=days)
    return row, token


def revoke(user: User, key: str) -> bool:
    """End a token of the user, known by its first characters; False if there is none."""
    if not AuthToken.objects.filter(user=user, token_key=key).delete()[0]:
        return False
    if user.account is not None:
        audit.record(user.account, user, "token.revoked", user, key=key)
    return True
