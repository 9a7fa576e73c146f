"""Writing the audit log: called by the verbs, in the transaction of what they record."""

from datetime import datetime
from typing import Any

from django.db import models
from django.utils import timezone

from otaplatform.accounts.models import Account, AuditEntry, User


def record(
    account: Account | int,
    actor: User | None,
    action: str,
    target: models.Model,
    *,
    name: str = "",
    now: datetime | None = None,
    **detail: Any,
) -> AuditEntry:
    """Add an entry: who (None is the platform itself) did what (a dotted code) to which object."""
    return AuditEntry.objects.create(
        account_id=account if isinstance(account, int) else account.pk,
        at=now or timezone.now(),
        actor=actor,
        actor_name=actor.get_username() if actor else "",
        action=action,
        object_type=target._meta.label_lower,
        object_id=str(target.pk),
        object_name=(name or str(target))[:128],
        detail=detail,
    )
