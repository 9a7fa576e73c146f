"""The audit log's codes in words. A code that is not listed is shown as it is."""

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

ACTIONS: dict[str, Promise] = {
    "product.created": _("Created a product"),
    "product.changed": _("Changed a product"),
    "product.removed": _("Removed a product"),
    "product.secret_shown": _("Looked at a ProductSecret"),
    "device.registered": _("Registered a device or devices"),
    "device.disabled": _("Disabled a device"),
    "device.enabled": _("Enabled a device"),
    "device.removed": _("Removed a device"),
    "device.secret_reset": _("Reset a DeviceSecret"),
    "device.secret_shown": _("Looked at device credentials"),
    "firmware.uploaded": _("Uploaded firmware"),
    "firmware.imported": _("Imported firmware"),
    "firmware.associated": _("Associated firmware with a product"),
    "firmware.deleted": _("Deleted firmware"),
    "firmware.validated": _("Launched a validation"),
    "campaign.launched": _("Launched a batch update"),
    "campaign.canceled": _("Canceled an update batch"),
    "campaign.paused": _("Paused an update batch"),
    "campaign.resumed": _("Resumed an update batch"),
    "campaign.matching_stopped": _("Stopped the matching of a dynamic batch"),
    "tasks.canceled": _("Canceled updates of devices"),
    "tasks.restarted": _("Updated devices again"),
    "secure_update.switched_on": _("Switched secure update on"),
    "secure_update.switched_off": _("Switched secure update off"),
    "secure_update.key_copied": _("Copied a public key"),
    "webhook.created": _("Created a webhook"),
    "webhook.changed": _("Changed a webhook"),
    "webhook.secret_reset": _("Replaced a webhook's secret"),
    "webhook.removed": _("Removed a webhook"),
    "token.created": _("Created an API token"),
    "token.revoked": _("Revoked an API token"),
}

# The roles are Django groups, stored by their English names.
ROLES: dict[str, Promise] = {
    "Viewer": _("Viewer"),
    "Operator": _("Operator"),
    "Administrator": _("Administrator"),
}


def role(name: str) -> str:
    """A group's name in words."""
    return str(ROLES.get(name, name))
