"""The catalogue of error codes: what a program may meet, with its HTTP status. docs/api.md lists it.

Codes of single fields (`required`, `max_length`, …) stand under `fields` and are those of the validators.
"""

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

CODES: dict[str, tuple[int, Promise]] = {
    "invalid": (400, _("Some values are not right; see the fields.")),
    "malformed": (400, _("The request could not be read.")),
    "unauthenticated": (401, _("Log in, or send a valid token.")),
    "forbidden": (403, _("Your role does not allow this.")),
    "not_found": (404, _("There is no such object.")),
    "method_not_allowed": (405, _("This address does not know the method.")),
    "not_acceptable": (406, _("Only JSON can be answered.")),
    "already_exists": (409, _("Something of this name or version exists already.")),
    "in_use": (409, _("The object is in use and cannot be deleted.")),
    "quota": (409, _("The account's quota is reached.")),
    "unassociated": (409, _("Firmware files without a product have to be associated first.")),
    "not_associated": (409, _("The firmware belongs to no product yet.")),
    "not_verified": (409, _("The firmware has not been validated.")),
    "unproven": (409, _("No device has been updated successfully yet; send accept_unproven to go on.")),
    "downgrade": (409, _("Devices run a later firmware; send confirm_downgrade to go on.")),
    "no_devices": (409, _("None of the devices can be updated.")),
    "dynamic_exists": (409, _("The firmware has a running dynamic batch.")),
    "not_dynamic": (409, _("Only a running dynamic batch can stop matching.")),
    "is_over": (409, _("It is over already.")),
    "no_account": (409, _("The user belongs to no account; choose one first.")),
    "conflict": (409, _("Something else changed it at the same moment; try again.")),
    "idempotency_mismatch": (409, _("This Idempotency-Key was used for another request.")),
    "idempotency_running": (409, _("The first request with this Idempotency-Key is still running.")),
    "length_required": (411, _("Send the length of the body: the server did not read it.")),
    "precondition_failed": (412, _("The object has changed since it was read.")),
    "too_large": (413, _("The request is too large.")),
    "unsupported_media_type": (415, _("The request body is in a format that this address does not read.")),
    "throttled": (429, _("Too many requests; wait as long as Retry-After says.")),
    "server_error": (500, _("The server failed; the error was logged.")),
}

# Codes of single fields that are about the state of things, not about the form of a value: status 409.
CONFLICTS = {
    "unique": "already_exists",
    "unique_together": "already_exists",
    "name_taken": "already_exists",
    "version_taken": "already_exists",
    "quota": "quota",
    "unassociated": "unassociated",
}
