"""Addresses of a person's own settings and of the choices in the header."""

from django.urls import path

from otaplatform.accounts import views

urlpatterns = [
    path("i18n/setlang/", views.switch_language, name="set_language"),
    path("me/", views.my_settings, name="my_settings"),
    path("me/account/", views.switch_account, name="switch_account"),
]
