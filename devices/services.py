"""What can be done to products and devices. Pages, APIs and commands call these verbs.

A person who did it is `actor`; None is the platform itself. What is refused raises ValidationError, keyed by
field where a form has one.
"""

import io
import secrets
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from typing import IO

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import ProtectedError
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from devices import counters, mqtt, presence
from devices.models import (
    Device,
    DevicePresence,
    DeviceVersion,
    DeviceVersionChange,
    Product,
    ProductCounter,
    validate_device_name,
)
from otaplatform.accounts import audit
from otaplatform.accounts.models import Account, User
from otaplatform.accounts.secret import encrypt
from otaplatform.core.csv_files import device_names

MAX_BATCH = 10_000
# Of a file with so many DeviceNames and some other columns.
MAX_FILE_BYTES = 4 * 1024 * 1024
LOOKUP_SIZE = 1000
KEY_PREFIX = "a1"
_ALPHABET = string.ascii_letters + string.digits

# Called with the ids of removed devices and the time, in the removing transaction, the devices' presence
# rows locked. The apps above this one end here what they still do with a device.
AFTER_REMOVAL: list[Callable[[list[int], datetime], object]] = []


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


# ---- products ----------------------------------------------------------------------------------------


def create_product(
    account: Account, name: str, description: str = "", actor: User | None = None, is_sample: bool = False
) -> Product:
    """A new product with its ProductKey and ProductSecret."""
    product = Product(
        account=account,
        name=name,
        description=description,
        product_key=KEY_PREFIX + _random(9),
        is_sample=is_sample,
    )
    product.secret = _random(16)
    product.full_clean()
    with transaction.atomic():
        product.save(force_insert=True)
        audit.record(account, actor, "product.created", product)
    return product


def change_product(product: Product, *, name: str, description: str, actor: User | None = None) -> Product:
    """Give a product another name and description; its ProductKey stays."""
    product.name, product.description = name, description
    product.full_clean()
    with transaction.atomic():
        product.save(update_fields=["name", "description"])
        audit.record(product.account_id, actor, "product.changed", product)
    return product


def show_product_secret(product: Product, actor: User | None) -> str:
    """The ProductSecret in clear text; the showing is recorded."""
    audit.record(product.account_id, actor, "product.secret_shown", product)
    return str(product.secret)


def remove_product(product: Product, actor: User | None = None) -> None:
    """Delete a product that has no devices, firmware or update batches."""
    try:
        with transaction.atomic():
            if product.devices.present().exists():
                raise ValidationError(_("The product still has devices. Remove them first."))
            forget_devices(product)
            audit.record(product.account_id, actor, "product.removed", product, key=product.product_key)
            product.delete()
    except ProtectedError:
        raise ValidationError(_("The product still has firmware files or update batches.")) from None


def forget_devices(product: Product) -> None:
    """Delete the rows of all devices of a product, with what they reported."""
    devices = product.devices.values("pk")
    DeviceVersionChange.objects.filter(device__in=devices).delete()
    DeviceVersion.objects.filter(product=product).delete()
    product.devices.all().delete()


# ---- registration ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Registration:
    """What became of one row of a registration: a device, or why there is none."""

    name: str
    device: Device | None = None
    error: str = ""

    @property
    def secret(self) -> str:
        return self.device.secret if self.device else ""


def register_device(product: Product, name: str | None = None, actor: User | None = None) -> Device:
    """Register one device, under a made-up name if none is given."""
    (result,) = register_devices(product, [name or _random(20)], actor=actor)
    if result.device is None:
        raise ValidationError({"name": result.error})
    return result.device


def register_devices(
    product: Product,
    names: Sequence[str] | None = None,
    count: int | None = None,
    actor: User | None = None,
    now: datetime | None = None,
) -> list[Registration]:
    """Register devices by name, or `count` of them under made-up names; at most MAX_BATCH.

    One answer per row, in order: a name that is wrong, taken or repeated does not hold up the others.
    """
    if names is None:
        names = [_random(20) for _ in range(count or 0)]
    if not 1 <= len(names) <= MAX_BATCH:
        raise ValidationError(
            _("Register between 1 and %(max)d devices at a time."), params={"max": MAX_BATCH}, code="count"
        )
    now = now or timezone.now()
    with transaction.atomic():
        # Registrations of a product take turns, so that a name looked up as free stays free.
        Product.objects.select_for_update(no_key=True).get(pk=product.pk)
        errors = _errors(product, names)
        devices = [
            Device(product=product, name=name, secret_encrypted=encrypt(_random(32)), created_at=now)
            for name, error in zip(names, errors, strict=True)
            if not error
        ]
        Device.objects.bulk_create(devices, batch_size=1000)
        DevicePresence.objects.bulk_create([DevicePresence(device=device) for device in devices], 1000)
        if len(devices) == 1:
            audit.record(product.account_id, actor, "device.registered", devices[0], product=product.name)
        elif devices:
            audit.record(product.account_id, actor, "device.registered", product, devices=len(devices))
        counters.add_products({(product.pk, ProductCounter.Kind.REGISTERED.value): len(devices)})
    made = iter(devices)
    return [
        Registration(name, error=error) if error else Registration(name, next(made))
        for name, error in zip(names, errors, strict=True)
    ]


def names_of_file(file: IO[bytes]) -> list[str]:
    """The DeviceNames of a list to register; more than MAX_BATCH are not read to the end.

    ValidationError: the file is too large, or no list of devices.
    """
    if file.seek(0, io.SEEK_END) > MAX_FILE_BYTES:
        message = _("The file is larger than %(max)d MB.")
        raise ValidationError(message, params={"max": MAX_FILE_BYTES // 1024**2}, code="size")
    file.seek(0)
    return list(islice(device_names(file), MAX_BATCH + 1))


def _errors(product: Product, names: Sequence[str]) -> list[str]:
    """For each name why it cannot be registered, or nothing."""
    seen: set[str] = set()
    errors = []
    taken = _taken(product, names)
    for name in names:
        try:
            validate_device_name(name)
        except ValidationError as error:
            errors.append(str(error.messages[0]))
            continue
        if name in taken:
            errors.append(str(_("The product already has a device of this name.")))
        elif name in seen:
            errors.append(str(_("The name occurs twice in this list.")))
        else:
            errors.append("")
        seen.add(name)
    return errors


def _taken(product: Product, names: Sequence[str]) -> set[str]:
    present = product.devices.present()
    askable = [name for name in names if "\0" not in name]
    return {
        name
        for start in range(0, len(askable), LOOKUP_SIZE)
        for name in present.filter(name__in=askable[start : start + LOOKUP_SIZE]).values_list(
            "name", flat=True
        )
    }


# ---- one device --------------------------------------------------------------------------------------


def set_disabled(device: Device, disabled: bool, actor: User | None = None) -> bool:
    """Forbid a device to connect, or allow it again; False if it was so already, or is removed."""
    with transaction.atomic():
        moved = Device.objects.present().filter(pk=device.pk, is_disabled=not disabled)
        if not moved.update(is_disabled=disabled):
            return False
        device.is_disabled = disabled
        action = "device.disabled" if disabled else "device.enabled"
        audit.record(device.product.account_id, actor, action, device, product=device.product.name)
        if disabled:
            presence.forget_requests(device.pk)
            _disconnect_after_commit(device, "disabled")
    return True


def reset_secret(device: Device, actor: User | None = None, now: datetime | None = None) -> str:
    """A new DeviceSecret: the device must come back with it, and its download links are dead."""
    with transaction.atomic():
        device.secret = secret = _random(32)
        device.secret_reset_at = now or timezone.now()
        device.save(update_fields=["secret_encrypted", "secret_reset_at"])
        audit.record(
            device.product.account_id, actor, "device.secret_reset", device, product=device.product.name
        )
        presence.forget_requests(device.pk)
        _disconnect_after_commit(device, "secret reset")
    return secret


@dataclass(frozen=True, slots=True)
class DeviceCredentials:
    """The three texts that a device is made with."""

    product_key: str
    device_name: str
    device_secret: str


def show_credentials(device: Device, actor: User | None) -> DeviceCredentials:
    """The credentials in clear text; the showing is recorded."""
    audit.record(device.product.account_id, actor, "device.secret_shown", device, product=device.product.name)
    return DeviceCredentials(device.product.product_key, device.name, device.secret)


def remove_device(device: Device, actor: User | None = None, now: datetime | None = None) -> bool:
    """Mark a device as removed: it cannot connect, counts nowhere, and its name is free. False if it was."""
    now = now or timezone.now()
    with transaction.atomic():
        presence.lock([device.pk])
        if not Device.objects.present().filter(pk=device.pk).update(removed_at=now):
            return False
        device.removed_at = now
        DevicePresence.objects.filter(pk=device.pk).update(is_up=False, changed_at=now)
        for end in AFTER_REMOVAL:
            end([device.pk], now)
        audit.record(device.product.account_id, actor, "device.removed", device, product=device.product.name)
        _uncount(device)
        _disconnect_after_commit(device, "removed")
    return True


def _uncount(device: Device) -> None:
    activated = Device.objects.filter(pk=device.pk, activated_at__isnull=False).exists()
    kinds = ProductCounter.Kind
    counters.add_products(
        {
            (device.product_id, kinds.REGISTERED.value): -1,
            (device.product_id, kinds.ACTIVATED.value): -int(activated),
        }
    )
    versions = DeviceVersion.objects.filter(device=device).values_list("product_id", "module", "version")
    counters.add_versions({key: -count for key, count in Counter(versions).items()})


def _disconnect_after_commit(device: Device, reason: str) -> None:
    transaction.on_commit(partial(mqtt.kick, device.product.product_key, device.name, reason))
