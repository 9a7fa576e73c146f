"""Addresses of the firmware pages."""

from django.urls import path

from firmware import views

app_name = "firmware"
urlpatterns = [
    path("", views.firmware_list, name="list"),
    path("new/", views.new, name="new"),
    path("associate/", views.associate, name="associate"),
    path("secure-update/", views.secure_update, name="secure-update"),
    path("secure-update/<int:pk>/switch/", views.switch, name="switch"),
    path("secure-update/<int:pk>/key/", views.key, name="key"),
    path("<int:pk>/", views.detail, name="detail"),
    path("<int:pk>/delete/", views.delete, name="delete"),
]
