"""The firmware list: its filters, and what may be done with each row or why not."""

from dataclasses import dataclass
from typing import Any

from django.db.models import Q, QuerySet
from django.urls import NoReverseMatch, reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from devices.models import Product
from firmware import services
from firmware.models import Firmware
from otaplatform.accounts.models import Account, User

_NOT_ALLOWED = _("Your role does not allow this.")


@dataclass(frozen=True)
class Action:
    """A thing to do with a firmware; with a reason, why it cannot be done now."""

    label: str | Promise
    url: str
    reason: str | Promise = ""


def filtered(rows: QuerySet[Firmware], filters: dict[str, Any]) -> QuerySet[Firmware]:
    """The rows that `FilterForm` asks for: part of a name or version, product, status, algorithm."""
    if text := filters.get("q"):
        rows = rows.filter(Q(name__icontains=text) | Q(version__icontains=text))
    for column in ("product", "status", "sign_method"):
        value = filters.get(column)
        if value is not None and value != "":
            rows = rows.filter(**{column: value})
    return rows.select_related("product", "account", "created_by").prefetch_related("files", "campaigns")


def actions(firmware: Firmware, user: User) -> list[Action]:
    """Validate, Batch Update, Update Details, Delete. Pages that this installation lacks are left out."""
    offered = [
        ("campaigns:validate", _("Validate Firmware"), _why_not_validate(firmware, user)),
        ("campaigns:batch", _("Batch Update"), _why_not_batch(firmware, user)),
        ("campaigns:firmware-details", _("Update Details"), ""),
        ("firmware:delete", _("Delete"), _why_not_delete(firmware, user)),
    ]
    found = []
    for view, label, reason in offered:
        try:
            found.append(Action(label, reverse(view, args=[firmware.pk]), reason))
        except NoReverseMatch:
            continue
    return found


def _why_not_validate(firmware: Firmware, user: User) -> str | Promise:
    if not user.has_perm("campaigns.add_campaign"):
        return _NOT_ALLOWED
    return "" if firmware.product_id else _("Associate the firmware with a product first.")


def _why_not_batch(firmware: Firmware, user: User) -> str | Promise:
    if reason := _why_not_validate(firmware, user):
        return reason
    return "" if firmware.is_batchable else _("Validate this firmware first.")


def _why_not_delete(firmware: Firmware, user: User) -> str | Promise:
    if not user.has_perm("firmware.delete_firmware"):
        return _NOT_ALLOWED
    users = sorted(firmware.campaigns.all(), key=lambda campaign: campaign.pk)
    return services.in_use(firmware, [str(campaign) for campaign in users]) if users else ""


def why_not_new(account: Account | None, user: User) -> str | Promise:
    """Why New Firmware is closed, or nothing."""
    if not user.has_perm("firmware.add_firmware"):
        return _NOT_ALLOWED
    if account and Firmware.objects.of(account).unassociated().exists():
        return services.UNASSOCIATED
    if account and (quota := services.quota(account)).is_reached:
        return str(services.QUOTA_REACHED) % {"limit": quota.limit}
    if not Product.objects.of(account).exists():
        return _("Register a product first.")
    return ""
