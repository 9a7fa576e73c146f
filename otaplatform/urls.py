"""The table of contents of every address."""

from django.contrib import admin
from django.urls import include, path, re_path

from campaigns.downloads import download
from firmware.links import PATH
from otaplatform.device_http import views as device_http
from otaplatform.health import healthz
from otaplatform.views import fleet_now, remove_sample_product

urlpatterns = [
    path("healthz", healthz, name="healthz"),
    path(f"{PATH}/<token>", download),
    path("auth", device_http.auth),
    re_path(r"\Atopic(?P<topic>/[\s\S]*)\Z", device_http.topic),
    path("", include("otaplatform.accounts.urls")),
    path("fleet.json", fleet_now, name="fleet_now"),
    path("devices/product/<int:pk>/remove-sample/", remove_sample_product, name="remove_sample"),
    path("api/v1/", include("otaplatform.api.urls")),
    path("", include("otaplatform.api.console_urls")),
    path("firmware/", include("firmware.urls")),
    path("", include("campaigns.urls")),
    path("", admin.site.urls),
]
