"""Addresses of the pages of campaigns."""

from django.urls import path

from campaigns.views import acting, batches, details, launch, versions

app_name = "campaigns"
urlpatterns = [
    path("firmware/<int:pk>/validate/", launch.validate, name="validate"),
    path("firmware/<int:pk>/batch/", launch.batch, name="batch"),
    path("firmware/<int:pk>/batch/result.csv", launch.result, name="batch-result"),
    path("firmware/<int:pk>/devices.json", launch.suggest, name="suggest"),
    path("firmware/<int:pk>/details/", details.of_firmware, name="firmware-details"),
    path("firmware/<int:pk>/details/act/", acting.on_firmware, name="firmware-act"),
    path("batches/", batches.batches, name="list"),
    path("batches/<int:pk>/", details.of_campaign, name="detail"),
    path("batches/<int:pk>/act/", acting.on_campaign, name="act"),
    path("tasks/<int:pk>/", details.task, name="task"),
    path("versions/", versions.versions, name="versions"),
]
