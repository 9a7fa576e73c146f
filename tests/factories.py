"""Test data: one factory per model, with what a test would otherwise have to repeat."""

import secrets
from datetime import timedelta
from typing import Any

import factory
from django.utils import timezone
from factory.django import DjangoModelFactory

from campaigns.models import Campaign, UpdateTask
from campaigns.states import CampaignKind, CampaignStatus, TaskStatus
from devices import counters
from devices.models import BrokerEpoch, Channel, Device, DevicePresence, DeviceVersion, Product
from firmware.models import Firmware, FirmwareFile, FirmwareStatus
from otaplatform.accounts.models import Account, User

EPOCH = "epoch-1"


class AccountFactory(DjangoModelFactory[Account]):
    class Meta:
        model = Account

    name = factory.Sequence(lambda n: f"Account {n}")


class UserFactory(DjangoModelFactory[User]):
    class Meta:
        model = User
        skip_postgeneration_save = True

    username = factory.Sequence(lambda n: f"user{n}")
    account = factory.SubFactory(AccountFactory)
    is_staff = True
    password = factory.django.Password("pw")


class ProductFactory(DjangoModelFactory[Product]):
    class Meta:
        model = Product

    account = factory.SubFactory(AccountFactory)
    name = factory.Sequence(lambda n: f"product_{n}")
    product_key = factory.LazyFunction(lambda: "a1" + secrets.token_hex(5)[:9])
    secret = factory.LazyFunction(lambda: secrets.token_hex(8))


class DeviceFactory(DjangoModelFactory[Device]):
    """An activated, offline device; `online=True` connects it, `version="1.0"` reported one yesterday."""

    class Meta:
        model = Device
        skip_postgeneration_save = True

    product = factory.SubFactory(ProductFactory)
    name = factory.Sequence(lambda n: f"device-{n:06d}")
    secret = factory.LazyFunction(lambda: secrets.token_hex(16))
    activated_at = factory.LazyFunction(timezone.now)

    @factory.post_generation
    def online(self: Any, create: bool, extracted: bool | None, **kwargs: Any) -> None:
        now = timezone.now()
        DevicePresence.objects.create(
            device=self,
            channel=Channel.MQTT,
            is_up=bool(extracted),
            connection_id=f"c{self.pk}" if extracted else "",
            epoch=EPOCH if extracted else "",
            changed_at=now if extracted else None,
            connected_at=now if extracted else None,
        )
        if extracted:
            BrokerEpoch.objects.update_or_create(pk=1, defaults={"epoch": EPOCH})

    @factory.post_generation
    def version(self: Any, create: bool, extracted: str | None, **kwargs: Any) -> None:
        if extracted:
            at = kwargs.get("at") or timezone.now() - timedelta(days=1)
            DeviceVersion.objects.create(
                device=self, product=self.product, version=extracted, reported_at=at, changed_at=at
            )
            counters.add_versions({(self.product_id, "default", extracted): 1})


class FirmwareFactory(DjangoModelFactory[Firmware]):
    class Meta:
        model = Firmware
        skip_postgeneration_save = True

    product = factory.SubFactory(ProductFactory)
    account = factory.LazyAttribute(lambda o: o.product.account)
    name = factory.Sequence(lambda n: f"firmware_{n}")
    version = "2.0.0"
    status = FirmwareStatus.VERIFIED

    @factory.post_generation
    def file(self: Any, create: bool, extracted: bytes | None, **kwargs: Any) -> None:
        import hashlib

        from django.core.files.base import ContentFile

        content = extracted or b"firmware image " + self.version.encode()
        row = FirmwareFile(
            firmware=self,
            name="image.bin",
            suffix=".bin",
            size=len(content),
            md5=hashlib.md5(content, usedforsecurity=False).hexdigest(),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        row.file.save("image.bin", ContentFile(content), save=True)


class CampaignFactory(DjangoModelFactory[Campaign]):
    class Meta:
        model = Campaign

    firmware = factory.SubFactory(FirmwareFactory)
    product = factory.LazyAttribute(lambda o: o.firmware.product)
    account = factory.LazyAttribute(lambda o: o.firmware.account)
    kind = CampaignKind.UPGRADE
    status = CampaignStatus.IN_PROGRESS
    started_at = factory.LazyFunction(timezone.now)
    expanded_at = factory.LazyFunction(timezone.now)


class TaskFactory(DjangoModelFactory[UpdateTask]):
    class Meta:
        model = UpdateTask

    campaign = factory.SubFactory(CampaignFactory)
    device = factory.LazyAttribute(
        lambda o: DeviceFactory(product=o.campaign.product, version="1.0.0", online=True)
    )
    firmware = factory.LazyAttribute(lambda o: o.campaign.firmware)
    from_version = "1.0.0"
    to_version = factory.LazyAttribute(lambda o: o.firmware.version)
    status = TaskStatus.QUEUED
    due_at = factory.LazyFunction(timezone.now)
