"""The console's addresses of webhooks and tokens."""

from django.urls import include, path

from otaplatform.api import token_views, webhook_views

webhooks = [
    path("", webhook_views.webhook_list, name="list"),
    path("new/", webhook_views.add, name="new"),
    path("<int:pk>/", webhook_views.detail, name="detail"),
    path("<int:pk>/edit/", webhook_views.edit, name="edit"),
    path("<int:pk>/secret/", webhook_views.new_secret, name="secret"),
    path("<int:pk>/remove/", webhook_views.remove, name="remove"),
    path("<int:pk>/deliveries/<int:delivery>/", webhook_views.send_again, name="send-again"),
]
tokens = [
    path("", token_views.token_page, name="list"),
    path("<slug:key>/revoke/", token_views.revoke, name="revoke"),
]
urlpatterns = [
    path("webhooks/", include((webhooks, "webhooks"))),
    path("me/tokens/", include((tokens, "tokens"))),
]
