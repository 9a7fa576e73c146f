"""WebSocket addresses of the whole platform."""

from campaigns.routing import websocket_urlpatterns

__all__ = ["websocket_urlpatterns"]
