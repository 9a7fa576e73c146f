"""WebSocket addresses of the live pages."""

from typing import Any

from django.urls import path

from campaigns.consumers import CampaignsConsumer

# An ASGI application where Django's types expect a view.
_consumer: Any = CampaignsConsumer.as_asgi()

websocket_urlpatterns: list[Any] = [
    path("ws/campaigns/<int:pk>/", _consumer),
    path("ws/firmware/<int:firmware>/", _consumer),
    path("ws/updates/", _consumer),
]
