"""Products, their devices, what each device runs and whether it is connected."""

from datetime import datetime, timedelta

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q, Sum
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from otaplatform.accounts.fields import CodePointField
from otaplatform.accounts.models import Account
from otaplatform.accounts.secret import Secret

DEFAULT_MODULE = "default"

validate_product_name = RegexValidator(
    r"\A[A-Za-z0-9_\u4e00-\u9fa5]{4,30}\Z",
    _("Use 4 to 30 letters, digits, Chinese characters or underscores."),
)
validate_device_name = RegexValidator(
    r"\A[A-Za-z0-9_.:@-]{4,32}\Z",
    _("Use 4 to 32 letters, digits or the characters - _ . : @"),
)


class ProductQuerySet(models.QuerySet["Product"]):
    def of(self, account: Account | None) -> "ProductQuerySet":
        """The products of one account; None (a superuser who chose no account) sees all."""
        return self if account is None else self.filter(account=account)


class Product(models.Model):
    """A kind of device. Its ProductKey is part of every topic of its devices."""

    account = models.ForeignKey(Account, models.PROTECT, verbose_name=_("account"), related_name="products")
    name = models.CharField(_("product name"), max_length=30, validators=[validate_product_name])
    product_key = models.CharField("ProductKey", max_length=20, unique=True, editable=False)
    secret_encrypted = models.TextField(editable=False)
    description = models.CharField(_("description"), max_length=100, blank=True)
    secure_update = models.BooleanField(_("secure update"), default=False, editable=False)
    # PKCS#8 PEM of the RSA-2048 pair, made when secure update is first switched on and never replaced.
    signing_key_encrypted = models.TextField(editable=False, blank=True)
    is_sample = models.BooleanField(_("sample product"), default=False, editable=False)
    created_at = models.DateTimeField(_("created"), default=timezone.now, editable=False)

    secret = Secret("secret_encrypted")
    signing_key = Secret("signing_key_encrypted")

    objects = ProductQuerySet.as_manager()

    class Meta:
        verbose_name = _("product")
        verbose_name_plural = _("products")
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["account", "name"],
                name="product_name_once_per_account",
                violation_error_message=_("The account already has a product of this name."),
            )
        ]

    def __str__(self) -> str:
        return self.name


class DeviceQuerySet(models.QuerySet["Device"]):
    def of(self, account: Account | None) -> "DeviceQuerySet":
        """The devices of one account; None (a superuser who chose no account) sees all."""
        return self if account is None else self.filter(product__account=account)

    def present(self) -> "DeviceQuerySet":
        """Not removed."""
        return self.filter(removed_at__isnull=True)

    def usable(self) -> "DeviceQuerySet":
        """Neither removed nor disabled."""
        return self.present().filter(is_disabled=False)

    def activated(self) -> "DeviceQuerySet":
        """Authenticated at least once."""
        return self.filter(activated_at__isnull=False)

    def online(self, now: datetime | None = None) -> "DeviceQuerySet":
        return self.filter(presence__in=DevicePresence.objects.online(now))

    def named_from(self, prefix: str) -> "DeviceQuerySet":
        """Names beginning with a prefix, as a range over the C collation: one index on both databases."""
        if not prefix:
            return self
        return self.filter(name__gte=prefix, name__lt=prefix + "\U0010ffff")


class DeviceStatus(models.TextChoices):
    INACTIVE = "inactive", _("Inactive")
    ONLINE = "online", _("Online")
    OFFLINE = "offline", _("Offline")
    DISABLED = "disabled", _("Disabled")


class Device(models.Model):
    """One device, known by (ProductKey, DeviceName). A removed device is marked, never deleted."""

    product = models.ForeignKey(Product, models.PROTECT, verbose_name=_("product"), related_name="devices")
    name = CodePointField("DeviceName", max_length=32, validators=[validate_device_name])
    secret_encrypted = models.TextField(editable=False)
    # Download links from before this time are dead.
    secret_reset_at = models.DateTimeField(null=True, blank=True, editable=False)
    is_disabled = models.BooleanField(_("disabled"), default=False)
    activated_at = models.DateTimeField(_("activated"), null=True, blank=True, editable=False)
    removed_at = models.DateTimeField(_("removed"), null=True, blank=True, editable=False)
    created_at = models.DateTimeField(_("created"), default=timezone.now, editable=False)

    secret = Secret("secret_encrypted")

    objects = DeviceQuerySet.as_manager()

    class Meta:
        verbose_name = _("device")
        verbose_name_plural = _("devices")
        constraints = [
            models.UniqueConstraint(
                fields=["product", "name"],
                condition=Q(removed_at__isnull=True),
                name="device_name_once_per_product",
                violation_error_message=_("The product already has a device of this name."),
            )
        ]
        indexes = [
            # Expansion and device lists walk a product's devices in id order.
            models.Index(fields=["product", "id"], name="device_by_product"),
            # The search of update tasks by name; the unique constraint's index serves the present ones.
            models.Index(
                fields=["product", "name"],
                condition=Q(removed_at__isnull=False),
                name="removed_device_by_name",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def status(self, now: datetime | None = None) -> DeviceStatus:
        """What the console shows; reads the presence row."""
        if self.is_disabled:
            return DeviceStatus.DISABLED
        if self.activated_at is None:
            return DeviceStatus.INACTIVE
        return DeviceStatus.ONLINE if self.presence.is_online(now) else DeviceStatus.OFFLINE


class DeviceVersion(models.Model):
    """The version that a device last reported for one module; `default` is the whole firmware.

    A report counts where a version decides only when it has *settled*: the C SDK informs twice at each
    connect, first a version of its own, then, up to some seconds later, the application's. `previous` is the
    last version that had settled before the present one; a device that comes back to it within the time
    never left it, and `changed_at` is again what it was. See `devices.versions`.
    """

    # No database constraint: the row is rewritten by every first report, and devices are never deleted.
    device = models.ForeignKey(
        Device, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="versions"
    )
    product = models.ForeignKey(Product, models.DO_NOTHING, db_constraint=False, db_index=False)
    module = models.CharField(_("module"), max_length=64, default=DEFAULT_MODULE)
    version = CodePointField(_("version"), max_length=64)
    reported_at = models.DateTimeField(_("reported"))
    # Since when the version stands.
    changed_at = models.DateTimeField(default=timezone.now, editable=False)
    previous = CodePointField(max_length=64, blank=True, db_default="", editable=False)
    previous_at = models.DateTimeField(null=True, editable=False)
    # When a tick has to look whether it settled; NULL once that is done.
    settles_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name = _("device version")
        verbose_name_plural = _("device versions")
        constraints = [models.UniqueConstraint(fields=["device", "module"], name="device_module_once")]
        # The device list filtered by version, and selection by source version.
        indexes = [
            models.Index(fields=["product", "module", "version", "device"], name="devices_on_version"),
            models.Index(
                fields=["settles_at"], condition=Q(settles_at__isnull=False), name="versions_to_settle"
            ),
        ]

    def __str__(self) -> str:
        return self.version


class DeviceVersionChange(models.Model):
    """The history of what a device reported: the newest changes (`versions.MAX_CHANGES`)."""

    device = models.ForeignKey(
        Device, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="version_changes"
    )
    module = models.CharField(_("module"), max_length=64)
    before = models.CharField(_("version before"), max_length=64, blank=True)
    version = models.CharField(_("version"), max_length=64)
    at = models.DateTimeField(_("time"))

    class Meta:
        verbose_name = _("version change")
        verbose_name_plural = _("version changes")
        indexes = [models.Index(fields=["device", "-id"], name="version_changes_newest")]

    def __str__(self) -> str:
        return f"{self.before} → {self.version}"


class Channel(models.TextChoices):
    MQTT = "mqtt", "MQTT"
    HTTPS = "https", "HTTPS"
    COAP = "coap", "CoAP"


class BrokerEpoch(models.Model):
    """The life of the MQTT broker that counts now. When it starts anew, nobody of the old life is online."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    epoch = models.CharField(max_length=40, blank=True)
    since = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name = _("broker epoch")
        verbose_name_plural = _("broker epochs")

    def __str__(self) -> str:
        return self.epoch


ASKING = (Channel.HTTPS, Channel.COAP)
"""Channels without a connection: the device asks, and nothing can be pushed to it."""


def heard_since(now: datetime | None = None) -> datetime:
    """Devices of the channels without a connection are online if their last request is not older."""
    return (now or timezone.now()) - timedelta(minutes=settings.OTA_HTTP_ONLINE_MINUTES)


class DevicePresenceQuerySet(models.QuerySet["DevicePresence"]):
    def online(self, now: datetime | None = None) -> "DevicePresenceQuerySet":
        """Connected in the broker's present life, or heard of lately on a channel without connections."""
        return self.filter(
            Q(is_up=True, channel=Channel.MQTT, epoch__in=BrokerEpoch.objects.values("epoch"))
            | Q(is_up=True, channel__in=ASKING, changed_at__gte=heard_since(now))
        )

    def locked(self, device_ids: list[int]) -> "DevicePresenceQuerySet":
        """Lock these rows in id order: the one order in which everybody takes them."""
        return self.filter(device_id__in=device_ids).order_by("device_id").select_for_update()


class DevicePresence(models.Model):
    """Whether a device is connected: narrow, because it is rewritten at each connect and disconnect.

    Made together with its device. It is also the lock under which a device's tasks start, are parked and
    are woken. For a device that asks (HTTPS, CoAP) `changed_at` is its last request, and `connected_at` the
    beginning of its present time online: a login, or the first request after a silence.
    """

    device = models.OneToOneField(Device, models.CASCADE, primary_key=True, related_name="presence")
    channel = models.CharField(_("protocol"), max_length=5, choices=Channel, default=Channel.MQTT)
    is_up = models.BooleanField(default=False)
    connection_id = models.CharField(max_length=40, blank=True)
    epoch = models.CharField(max_length=40, blank=True)
    changed_at = models.DateTimeField(_("since"), null=True, blank=True)
    connected_at = models.DateTimeField(_("connected"), null=True, blank=True)
    # After a cancel or time-out of a pushed task: nothing new is pushed before the next inform of that
    # task's module or this time.
    reserved_until = models.DateTimeField(null=True, blank=True)
    reserved_module = models.CharField(max_length=64, blank=True, db_default="", editable=False)

    objects = DevicePresenceQuerySet.as_manager()

    class Meta:
        verbose_name = _("device presence")
        verbose_name_plural = _("device presences")
        indexes = [
            # Who is connected, and by a range on either side of the present epoch, who no longer is.
            models.Index(
                fields=["epoch", "device"],
                condition=Q(is_up=True, channel=Channel.MQTT),
                name="presence_up",
            ),
            # The tick that ends the presence of devices that ask (`presence.expire`).
            models.Index(
                fields=["changed_at"],
                condition=Q(is_up=True, channel__in=["https", "coap"]),
                name="presence_heard",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.device_id} {'up' if self.is_up else 'down'}"

    def is_online(self, now: datetime | None = None) -> bool:
        return DevicePresence.objects.online(now).filter(pk=self.pk).exists()


class CounterQuerySet(models.QuerySet["VersionCounter"]):
    def distribution(self, product: Product, module: str = DEFAULT_MODULE) -> "list[tuple[str, int]]":
        """(version, devices) of a product's module, most devices first, then by version."""
        rows = (
            self.filter(product=product, module=module)
            .values("version")
            .annotate(devices=Sum("count"))
            .filter(devices__gt=0)
            .order_by("-devices", "version")
        )
        return [(row["version"], row["devices"]) for row in rows]


class VersionCounter(models.Model):
    """How many devices run a version, spread over slots so that concurrent writers do not queue."""

    product = models.ForeignKey(Product, models.CASCADE)
    module = models.CharField(max_length=64)
    version = CodePointField(max_length=64)
    slot = models.PositiveSmallIntegerField()
    count = models.BigIntegerField(default=0)

    objects = CounterQuerySet.as_manager()

    class Meta:
        verbose_name = _("version counter")
        verbose_name_plural = _("version counters")
        constraints = [
            models.UniqueConstraint(
                fields=["product", "module", "version", "slot"], name="version_counter_key"
            )
        ]

    def __str__(self) -> str:
        return f"{self.version}: {self.count}"


class ProductCounter(models.Model):
    """Devices of a product in all and activated, spread over slots."""

    class Kind(models.TextChoices):
        REGISTERED = "registered", _("Registered")
        ACTIVATED = "activated", _("Activated")

    product = models.ForeignKey(Product, models.CASCADE)
    kind = models.CharField(max_length=10, choices=Kind)
    slot = models.PositiveSmallIntegerField()
    count = models.BigIntegerField(default=0)

    class Meta:
        verbose_name = _("product counter")
        verbose_name_plural = _("product counters")
        constraints = [
            models.UniqueConstraint(fields=["product", "kind", "slot"], name="product_counter_key")
        ]

    def __str__(self) -> str:
        return f"{self.kind}: {self.count}"
