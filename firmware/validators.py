"""The rules of the product text for what a firmware may be called."""

from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.utils.translation import gettext_lazy as _

from firmware.wire_keys import KEY_NAMES

validate_firmware_name = RegexValidator(
    r"\A(?!_)[A-Za-z0-9_\u4e00-\u9fa5]{4,32}\Z",
    _("Use 4 to 32 letters, digits, Chinese characters or underscores; do not begin with an underscore."),
)
_validate_version_characters = RegexValidator(
    r"\A[A-Za-z0-9._-]{1,64}\Z",
    _("Use 1 to 64 letters, digits, periods, hyphens or underscores."),
)


def validate_version(version: str) -> None:
    """The product text's characters, and no word that devices would mistake for a key of the message.

    Link SDK 4.x finds a key by its first textual occurrence, so a version called "url" would hide the link.
    """
    _validate_version_characters(version)
    if version in KEY_NAMES:
        raise ValidationError(_("Devices could not read this version. Choose another."), code="invalid")
