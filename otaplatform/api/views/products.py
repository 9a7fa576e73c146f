"""Products: create, look, edit, delete; what their devices run; secure update."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from devices import services
from devices.models import DEFAULT_MODULE, Product, VersionCounter
from firmware import signing
from otaplatform.accounts.models import Account
from otaplatform.api.base import Resource, one
from otaplatform.api.errors import ApiError
from otaplatform.api.serializers import devices as shapes

VERSIONS_SHOWN = 1000


@extend_schema_serializer(component_name="VersionDistribution")
class Distribution(serializers.Serializer[Any]):
    module = serializers.CharField()
    total = serializers.IntegerField(help_text="Devices that reported a version of the module")
    results = shapes.VersionShare(many=True, help_text=f"At most {VERSIONS_SHOWN}, most devices first")
    others = serializers.IntegerField(help_text="Devices on versions that are not listed")


@contextmanager
def _one_name(account: Account, name: str, but: int = 0) -> Iterator[None]:
    """A refusal because of another product of this name is a conflict, not a wrong value."""
    try:
        yield
    except ValidationError as error:
        if Product.objects.of(account).filter(name=name).exclude(pk=but).exists():
            raise ApiError("already_exists", " ".join(error.messages)) from None
        raise


class ProductResource(Resource):
    """Products of the account."""

    permissions = {
        "list": "devices.view_product",
        "retrieve": "devices.view_product",
        "create": "devices.add_product",
        "partial_update": "devices.change_product",
        "destroy": "devices.delete_product",
        "credentials": "devices.change_product",
        "versions": "devices.view_device",
        "secure_update": "devices.view_product",
        "switch_secure_update": "devices.change_product",
    }
    inputs = {
        "create": shapes.ProductNew,
        "partial_update": shapes.ProductEdit,
        "switch_secure_update": shapes.SecureUpdateSwitch,
    }
    outputs = {
        "list": (200, shapes.ProductShown),
        "retrieve": (200, shapes.ProductShown),
        "create": (201, shapes.ProductCreated),
        "partial_update": (200, shapes.ProductShown),
        "destroy": (204, None),
        "credentials": (200, shapes.ProductSecret),
        "versions": (200, Distribution),
        "secure_update": (200, shapes.SecureUpdateShown),
        "switch_secure_update": (200, shapes.SecureUpdateShown),
    }
    filters = {"list": shapes.ProductFilters, "versions": shapes.VersionFilters}

    def get_queryset(self) -> "QuerySet[Product]":
        return Product.objects.of(self.account)

    def list(self, request: Request) -> Response:
        """Products, newest first."""
        products = self.get_queryset()
        if name := self.asked().get("name"):
            products = products.filter(name__contains=name)
        return self.list_of(self.page(products))

    def create(self, request: Request) -> Response:
        """Create a product. The answer is the only one that carries its ProductSecret unasked."""
        data = self.read()
        account = self.own_account
        with _one_name(account, data["name"]):
            product = services.create_product(
                account, data["name"], data.get("description", ""), actor=self.actor
            )
        return self.show(product)

    def retrieve(self, request: Request, product_key: str) -> Response:
        """One product; its ETag is what an edit sends as If-Match."""
        return self.show(one(self.get_queryset(), product_key=product_key))

    def partial_update(self, request: Request, product_key: str) -> Response:
        """Another name or description."""
        data = self.read()
        with transaction.atomic():
            product = one(self.get_queryset().select_for_update(), product_key=product_key)
            self.unchanged(product)
            values = {"name": product.name, "description": product.description} | data
            with _one_name(product.account, values["name"], but=product.pk):
                services.change_product(product, **values, actor=self.actor)
        return self.show(product)

    def destroy(self, request: Request, product_key: str) -> Response:
        """Delete a product that no device, firmware or campaign belongs to; 409 `in_use` otherwise."""
        with transaction.atomic():
            product = one(self.get_queryset().select_for_update(), product_key=product_key)
            self.unchanged(product)
            try:
                services.remove_product(product, self.actor)
            except ValidationError as error:
                raise ApiError("in_use", " ".join(error.messages)) from None
        return Response(status=204)

    def credentials(self, request: Request, product_key: str) -> Response:
        """The ProductSecret; looking at it is recorded in the audit log."""
        product = one(self.get_queryset(), product_key=product_key)
        services.show_product_secret(product, self.actor)
        return self.show(product)

    def versions(self, request: Request, product_key: str) -> Response:
        """How many devices run which version of a module, from the stored counters."""
        product = one(self.get_queryset(), product_key=product_key)
        module = self.asked().get("module", DEFAULT_MODULE)
        shares = VersionCounter.objects.distribution(product, module)
        total = sum(devices for _version, devices in shares)
        shown = [
            {"version": version, "devices": devices, "percent": round(100 * devices / total, 2)}
            for version, devices in shares[:VERSIONS_SHOWN]
        ]
        others = sum(devices for _version, devices in shares[VERSIONS_SHOWN:])
        return self.show({"module": module, "total": total, "results": shown, "others": others})

    def secure_update(self, request: Request, product_key: str) -> Response:
        """Whether pushes are signed, and the key that devices check with."""
        return self._secure_update(one(self.get_queryset(), product_key=product_key))

    def switch_secure_update(self, request: Request, product_key: str) -> Response:
        """Switch the signing of pushes on or off; the key pair stays."""
        product = one(self.get_queryset(), product_key=product_key)
        signing.set_secure_update(product, self.read()["enabled"], self.actor)
        return self._secure_update(product)

    def _secure_update(self, product: Product) -> Response:
        key = signing.public_key(product)
        return self.show(
            {
                "enabled": product.secure_update,
                "public_key_pem": signing.public_key_pem(key) if key else "",
                "public_key_c": signing.public_key_c(key) if key else "",
            }
        )
