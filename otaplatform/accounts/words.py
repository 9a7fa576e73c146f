"""The audit log's codes in words. A code that is not listed is shown as it is."""

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

ACTIONS: dict[str, Promise] = {
    "product.created": _("Created a product"),
    "product.changed": _("Changed a product"),
    "product.removed": _("Removed a product"),
    "product.secret_shown": _("Looked at a ProductSecret"),
    "device.registered": _("Registered devices"),
    "device.disabled": _("Disabled a device"),
    "device.enabled": _("Enabled a device"),
    "device.removed": _("Removed a device"),
    "device.secret_reset": _("Reset a DeviceSecret"),
    "device.secret_shown": _("Looked at device credentials"),
}
