"""The addresses of devices. They are answered in front of the console's middleware."""

from django.urls import path, re_path

from campaigns.downloads import download
from firmware.links import PATH
from otaplatform.device_http import views

urlpatterns = [
    re_path(rf"\A{PATH}(?:/(?P<token>[\s\S]*))?\Z", download),
    path("auth", views.auth),
    re_path(r"\Atopic(?P<topic>(?:/[\s\S]*)?)\Z", views.topic),
]
