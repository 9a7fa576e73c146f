"""The table of contents of every address."""

from django.contrib import admin
from django.urls import include, path

from otaplatform.health import healthz

urlpatterns = [
    path("healthz", healthz, name="healthz"),
    path("", include("otaplatform.accounts.urls")),
    path("", admin.site.urls),
]
