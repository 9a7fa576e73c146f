"""The addresses of the console and the API; those of devices are in `otaplatform.device_http.urls`."""

from django.contrib import admin
from django.urls import include, path

from otaplatform.health import healthz
from otaplatform.views import fleet_now, remove_sample_product

urlpatterns = [
    path("healthz", healthz, name="healthz"),
    path("", include("otaplatform.accounts.urls")),
    path("fleet.json", fleet_now, name="fleet_now"),
    path("devices/product/<int:pk>/remove-sample/", remove_sample_product, name="remove_sample"),
    path("api/v1/", include("otaplatform.api.urls")),
    path("", include("otaplatform.api.console_urls")),
    path("firmware/", include("firmware.urls")),
    path("", include("campaigns.urls")),
    path("", admin.site.urls),
]
