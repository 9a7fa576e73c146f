"""The REST API and its own rows: idempotency keys, registration jobs, webhooks."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class ApiConfig(AppConfig):
    name = "otaplatform.api"
    label = "api"
    verbose_name = _("API")

    def ready(self) -> None:
        from otaplatform.api import schema  # noqa: F401  (registers how tokens are described)
