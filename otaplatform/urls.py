"""The table of contents of every address."""

from django.contrib import admin
from django.urls import include, path

from campaigns.downloads import download
from firmware.links import PATH
from otaplatform.health import healthz

urlpatterns = [
    path("healthz", healthz, name="healthz"),
    path(f"{PATH}/<token>", download),
    path("", include("otaplatform.accounts.urls")),
    path("", admin.site.urls),
]
