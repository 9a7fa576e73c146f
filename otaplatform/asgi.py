"""ASGI entry point: pages and API over HTTP, live pages over WebSocket."""

import os
import warnings

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator

from otaplatform.requests import OriginForm
from otaplatform.requests import application as measured_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "otaplatform.settings")

# WhiteNoise's responses are synchronous iterators; they are small files, and nothing streams through them.
warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")

http_application = measured_application()

from django.conf import settings  # noqa: E402  (needs the loaded app registry, as the next ones do)

from otaplatform import checks  # noqa: E402
from otaplatform.body_limit import BodyLimit  # noqa: E402
from otaplatform.device_http.middleware import is_device_path  # noqa: E402
from otaplatform.device_http.views import MAX_BODY  # noqa: E402
from otaplatform.routing import websocket_urlpatterns  # noqa: E402

checks.refuse_wrong_settings()

# Twice the largest firmware, so that a file that is a little too large gets its sentence in the form; and
# room for a list of a million DeviceNames of 32 characters.
LARGEST_BODY = max(2 * settings.OTA_MAX_FIRMWARE_MB + 1, 40) * 1024 * 1024


def limit_of_devices(path: str) -> int | None:
    """Twice what devices may send, so that one that sends a little too much gets its code."""
    return 2 * MAX_BODY if is_device_path(path) else None


application = ProtocolTypeRouter(
    {
        "http": OriginForm(BodyLimit(http_application, LARGEST_BODY, limit_of_devices)),
        "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(websocket_urlpatterns))),
    }
)
