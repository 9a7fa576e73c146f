"""Removing the sample product with everything that belongs to it, in every app."""

from django.db import transaction

from campaigns.models import Campaign, TaskEvent, UpdateTask
from devices import mqtt, services, topics
from devices.models import DevicePresence, Product
from firmware.services import delete_firmware
from otaplatform.accounts import audit
from otaplatform.accounts.models import User


def remove_sample(product: Product, actor: User | None = None) -> None:
    """Delete the sample product, its devices, firmware and campaigns, and disconnect its devices.

    ValueError for any other product.
    """
    if not product.is_sample:
        raise ValueError("not a sample product")
    connected = DevicePresence.objects.filter(device__product=product, is_up=True)
    kicks = [
        (topics.build(topics.Kind.KICK, product.product_key, name), b"removed")
        for name in connected.values_list("device__name", flat=True)
    ]
    with transaction.atomic():
        campaigns = Campaign.objects.filter(product=product)
        TaskEvent.objects.filter(task__campaign__in=campaigns).delete()
        UpdateTask.objects.filter(campaign__in=campaigns).delete()
        campaigns.delete()
        for firmware in product.firmware.all():
            delete_firmware(firmware, actor)
        services.forget_devices(product)
        audit.record(product.account_id, actor, "product.removed", product, key=product.product_key)
        product.delete()
        if kicks:
            transaction.on_commit(lambda: mqtt.publisher().publish(kicks))
