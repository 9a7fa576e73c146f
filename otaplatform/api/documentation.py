"""The schema, and two viewers of it that run from our own files under a policy as strict as they allow."""

from csp.constants import NONCE, SELF
from csp.decorators import csp_update
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from drf_spectacular.views import SpectacularJSONAPIView
from rest_framework.permissions import AllowAny


class SchemaView(SpectacularJSONAPIView):
    """The OpenAPI 3 description of this API; not a secret."""

    permission_classes = [AllowAny]
    authentication_classes = []


def swagger(request: HttpRequest) -> HttpResponse:
    """Swagger UI, logged in as the console is."""
    return render(request, "api/swagger.html")


def swagger_script(request: HttpRequest) -> HttpResponse:
    """What starts Swagger UI; a file of its own, because nothing may run inline."""
    return render(request, "api/swagger.js", content_type="text/javascript")


# The two style elements that ReDoc makes without a nonce: an empty one, and one that never changes.
_REDOC_STYLES = [
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='",
    "'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='",
]


@csp_update({"style-src": [SELF, NONCE, *_REDOC_STYLES]})
def redoc(request: HttpRequest) -> HttpResponse:
    """ReDoc."""
    return render(request, "api/redoc.html")
