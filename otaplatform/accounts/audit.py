"""Writing the audit log: called by the verbs, in the transaction of what they record."""

from datetime import datetime
from typing import Any

from django.db import models
from django.utils import timezone

from otaplatform.accounts.models import Account, AuditEntry, User


def record(
    account: Account | int | None,
    actor: User | None,
    action: str,
    target: models.Model | None,
    *,
    name: str = "",
    now: datetime | None = None,
    **detail: Any,
) -> AuditEntry:
    """Add an entry: who (None: the platform itself, or a stranger) did what (a dotted code) to which object.

    `account` None is above the accounts: only superusers see the entry. `target` None: there is no object.
    """
    return AuditEntry.objects.create(
        account_id=account.pk if isinstance(account, Account) else account,
        at=now or timezone.now(),
        actor=actor,
        actor_name=actor.get_username() if actor else "",
        action=action,
        object_type=target._meta.label_lower if target else "",
        object_id=str(target.pk) if target else "",
        object_name=(name or str(target or ""))[:128],
        detail=detail,
    )
