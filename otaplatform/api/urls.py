"""The table of contents of REST v1. What is not here answers 404 in the API's own form."""

from typing import Any

from django.urls import URLPattern, path, re_path, register_converter
from rest_framework.response import Response
from rest_framework.views import APIView

from otaplatform.api import documentation
from otaplatform.api.base import Resource
from otaplatform.api.errors import ApiError
from otaplatform.api.views.campaigns import CampaignResource, TaskResource
from otaplatform.api.views.devices import DeviceResource, JobResource
from otaplatform.api.views.firmware import FirmwareResource, file
from otaplatform.api.views.others import AuditResource, TokenResource, WebhookResource
from otaplatform.api.views.products import ProductResource


class _Converter:
    regex: str

    def to_python(self, value: str) -> Any:
        return value

    def to_url(self, value: Any) -> str:
        return str(value)


class ProductKeyConverter(_Converter):
    regex = "[A-Za-z0-9]{1,20}"


class DeviceNameConverter(_Converter):
    regex = "[A-Za-z0-9_.:@-]{4,32}"


class TokenKeyConverter(_Converter):
    regex = "[0-9a-f]{15}"


class NumberConverter(_Converter):
    regex = "[0-9]{1,18}"

    def to_python(self, value: str) -> int:
        return int(value)


register_converter(ProductKeyConverter, "product_key")
register_converter(DeviceNameConverter, "device_name")
register_converter(TokenKeyConverter, "token_key")
register_converter(NumberConverter, "number")


class NothingHere(APIView):
    """An address that the API does not have."""

    schema = None
    permission_classes = []
    authentication_classes = []

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        self.headers = self.default_response_headers
        self.args, self.kwargs = args, kwargs
        self.request = self.initialize_request(request)
        refusal = self.handle_exception(ApiError("not_found"))
        assert isinstance(refusal, Response)
        return self.finalize_response(self.request, refusal)


def at(address: str, resource: type[Resource], **actions: str) -> URLPattern:
    return path(address, resource.as_view({**actions}))


PRODUCT = "products/<product_key:product_key>/"
DEVICE = PRODUCT + "devices/<device_name:device_name>/"
JOB = PRODUCT + "registrations/<number:pk>/"
FIRMWARE = "firmware/<number:pk>/"
CAMPAIGN = "campaigns/<number:pk>/"
TASK = "tasks/<number:pk>/"
WEBHOOK = "webhooks/<number:pk>/"

app_name = "api"
urlpatterns = [
    at("products/", ProductResource, get="list", post="create"),
    at(PRODUCT, ProductResource, get="retrieve", patch="partial_update", delete="destroy"),
    at(PRODUCT + "credentials/", ProductResource, get="credentials"),
    at(PRODUCT + "versions/", ProductResource, get="versions"),
    at(PRODUCT + "secure-update/", ProductResource, get="secure_update", post="switch_secure_update"),
    at(PRODUCT + "registrations/", JobResource, post="create"),
    at(JOB, JobResource, get="retrieve"),
    at(JOB + "rows/", JobResource, get="rows"),
    at(PRODUCT + "devices/", DeviceResource, get="list", post="create"),
    at(DEVICE, DeviceResource, get="retrieve", delete="destroy"),
    at(DEVICE + "history/", DeviceResource, get="history"),
    at(DEVICE + "tasks/", DeviceResource, get="tasks"),
    at(DEVICE + "credentials/", DeviceResource, get="credentials"),
    at(DEVICE + "reset-secret/", DeviceResource, post="reset_secret"),
    at(DEVICE + "disable/", DeviceResource, post="disable"),
    at(DEVICE + "enable/", DeviceResource, post="enable"),
    at("firmware/", FirmwareResource, get="list", post="create"),
    at(FIRMWARE, FirmwareResource, get="retrieve", delete="destroy"),
    at(FIRMWARE + "download/", FirmwareResource, get="download"),
    at(FIRMWARE + "associate/", FirmwareResource, post="associate"),
    at(FIRMWARE + "validate/", FirmwareResource, post="validate"),
    path("files/<str:token>", file, name="file"),
    at("campaigns/", CampaignResource, get="list", post="create"),
    at("campaigns/preview/", CampaignResource, post="preview"),
    at(CAMPAIGN, CampaignResource, get="retrieve"),
    at(CAMPAIGN + "tasks/", CampaignResource, get="tasks"),
    at(CAMPAIGN + "cancel/", CampaignResource, post="cancel"),
    at(CAMPAIGN + "pause/", CampaignResource, post="pause"),
    at(CAMPAIGN + "resume/", CampaignResource, post="resume"),
    at(CAMPAIGN + "stop-matching/", CampaignResource, post="stop_matching"),
    at(CAMPAIGN + "retry/", CampaignResource, post="retry"),
    at(TASK, TaskResource, get="retrieve"),
    at(TASK + "events/", TaskResource, get="events"),
    at(TASK + "cancel/", TaskResource, post="cancel"),
    at(TASK + "retry/", TaskResource, post="retry"),
    at("audit/", AuditResource, get="list"),
    at("tokens/", TokenResource, get="list", post="create"),
    at("tokens/<token_key:key>/", TokenResource, delete="destroy"),
    at("webhooks/", WebhookResource, get="list", post="create"),
    at(WEBHOOK, WebhookResource, get="retrieve", patch="partial_update", delete="destroy"),
    at(WEBHOOK + "new-secret/", WebhookResource, post="new_secret"),
    at(WEBHOOK + "deliveries/", WebhookResource, get="deliveries"),
    at(WEBHOOK + "deliveries/<number:delivery>/send-again/", WebhookResource, post="send_again"),
    path("schema/", documentation.SchemaView.as_view(), name="schema"),
    path("docs/", documentation.swagger, name="swagger"),
    path("docs/swagger.js", documentation.swagger_script, name="swagger-script"),
    path("redoc/", documentation.redoc, name="redoc"),
    re_path("", NothingHere.as_view()),
]
