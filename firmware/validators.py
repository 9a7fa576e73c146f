"""The rules of the product text for what a firmware may be called."""

from django.core.validators import RegexValidator
from django.utils.translation import gettext_lazy as _

validate_firmware_name = RegexValidator(
    r"\A(?!_)[A-Za-z0-9_\u4e00-\u9fa5]{4,32}\Z",
    _("Use 4 to 32 letters, digits, Chinese characters or underscores; do not begin with an underscore."),
)
validate_version = RegexValidator(
    r"\A[A-Za-z0-9._-]{1,64}\Z",
    _("Use 1 to 64 letters, digits, periods, hyphens or underscores."),
)
