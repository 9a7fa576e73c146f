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
    "token.all_revoked": _("Revoked all API tokens of a user"),
    "webhook.sent_again": _("Sent a webhook message again"),
    "user.logged_in": _("Logged in"),
    "user.logged_out": _("Logged out"),
    "user.login_failed": _("Failed log-in"),
    "user.login_blocked": _("Log-ins blocked after too many failures"),
    "user.login_unblocked": _("Allowed log-ins again"),
    "user.created": _("Created a user"),
    "user.changed": _("Changed a user"),
    "user.activated": _("Activated a user"),
    "user.deactivated": _("Deactivated a user"),
    "user.moved_away": _("Moved a user to another account"),
    "user.roles_changed": _("Changed the roles of a user"),
    "user.password_changed": _("Changed the own password"),
    "user.password_reset": _("Set a password of somebody else"),
    "user.deleted": _("Deleted a user"),
    "role.created": _("Created a role"),
    "role.changed": _("Changed a role"),
    "role.deleted": _("Deleted a role"),
    "account.created": _("Created an account"),
    "account.changed": _("Changed an account"),
    "account.deleted": _("Deleted an account"),
    "tick.switched_on": _("Switched a periodic task on"),
    "tick.switched_off": _("Switched a periodic task off"),
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
