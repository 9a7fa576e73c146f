"""What every page of the console needs: the chosen account, the version."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest


def context(request: HttpRequest) -> dict[str, Any]:
    """Template context of every page."""
    return {"platform_version": settings.OTA_VERSION}
