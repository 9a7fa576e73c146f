"""Files in a bucket of an S3 API, against moto's server (which checks neither signatures nor expiry)."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import boto3  # type: ignore[import-untyped]
import pytest
from django.utils import timezone
from moto.server import ThreadedMotoServer
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings

from firmware import links, services
from firmware.download import _accelerated
from firmware.errors import FileUnavailableError
from firmware.models import Firmware, FirmwareFile
from firmware.storage import object_storage, open_range
from tests.factories import ProductFactory
from tests.firmware.samples import BIN, upload

pytestmark = pytest.mark.django_db

BUCKET = "firmware-files"
OUTSIDE = "https://files.example"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, settings: Settings) -> Iterator[None]:
    options = {
        "bucket_name": BUCKET,
        "endpoint_url": endpoint,
        "region_name": "us-east-1",
        "access_key": "a-key",
        "secret_key": "a-secret",
        "addressing_style": "path",
        "signature_version": "s3v4",
        "file_overwrite": False,
        "max_memory_size": 1024 * 1024,
    }
    backend = {"BACKEND": "firmware.storage.ObjectStorage", "OPTIONS": options}
    settings.STORAGES = {**settings.STORAGES, "default": backend}
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="a-key",
        aws_secret_access_key="a-secret",
    )
    client.create_bucket(Bucket=BUCKET)
    yield
    for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=item["Key"])
    client.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def file(bucket: None) -> FirmwareFile:
    product = ProductFactory.create()
    firmware = services.upload_firmware(
        product.account,
        name="gateway_fw",
        version="2.0.0",
        product=product,
        sign_method="MD5",
        upload=upload(),
        actor=None,
    )
    return firmware.files.get()


def public(settings: Settings, signature: str) -> None:
    """Give the bucket an address that devices reach."""
    backend = settings.STORAGES["default"]
    options = {**backend["OPTIONS"], "public_endpoint": OUTSIDE, "signature_version": signature}
    settings.STORAGES = {**settings.STORAGES, "default": {**backend, "OPTIONS": options}}


def test_a_bucket_holds_what_was_uploaded_and_nothing_lies_in_the_folder(
    file: FirmwareFile, stored: Path
) -> None:
    services.verify_files(file.firmware)
    assert not list(stored.iterdir())


def test_a_range_is_read_without_fetching_the_whole_object(file: FirmwareFile) -> None:
    blocks = open_range(file.file.name, 10, 20, file.size)
    assert blocks.read(1000) == BIN[10:30]
    assert blocks.read(1000) == b""
    blocks.close()


def test_a_lost_object_is_told_apart(
    file: FirmwareFile, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    name = file.file.name
    firmware = file.firmware
    file.file.storage.delete(name)
    with pytest.raises(FileNotFoundError):
        open_range(name, 0, 10, file.size)
    with pytest.raises(FileUnavailableError):
        services.verify_files(firmware)
    with django_capture_on_commit_callbacks(execute=True):
        services.delete_firmware(firmware, None)
    assert not Firmware.objects.exists()


def test_deleting_a_firmware_removes_its_object(
    file: FirmwareFile, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    storage, name = file.file.storage, file.file.name
    with django_capture_on_commit_callbacks(execute=True):
        services.delete_firmware(file.firmware, None)
    assert not storage.exists(name)


def test_the_sweep_works_in_a_bucket(file: FirmwareFile) -> None:
    storage = file.file.storage
    storage.save("firmware/orphan.bin", upload())
    assert services.sweep_orphans() == 0
    assert services.sweep_orphans(timezone.now() + services.ORPHAN_AGE * 2) == 1
    services.verify_files(file.firmware)


def test_without_a_public_endpoint_devices_come_to_us(file: FirmwareFile) -> None:
    assert links.make_link(1, file).startswith("http://ota.example/f/")


def test_a_presigned_address_that_fits_goes_to_the_devices(file: FirmwareFile, settings: Settings) -> None:
    public(settings, "s3")
    address = urlsplit(links.make_link(1, file))
    assert (address.netloc, address.path) == ("files.example", f"/{BUCKET}/{file.file.name}")
    query = parse_qs(address.query)
    assert set(query) == {"AWSAccessKeyId", "Signature", "Expires"}
    lifetime = int(query["Expires"][0]) - timezone.now().timestamp()
    assert abs(lifetime - timedelta(hours=settings.OTA_LINK_HOURS).total_seconds()) < 60


def test_a_presigned_address_that_is_too_long_stays_at_home(file: FirmwareFile, settings: Settings) -> None:
    public(settings, "s3v4")
    store = object_storage()
    assert store
    assert len(store.presigned(file.file.name, timedelta(hours=24), public=True)) > links.MAX_URL
    assert links.make_link(1, file).startswith("http://ota.example/f/")


def test_nginx_is_sent_to_the_store_by_a_signed_address(file: FirmwareFile, settings: Settings) -> None:
    settings.OTA_X_ACCEL_PREFIX = "/_firmware/"
    target = urlsplit(_accelerated(file))
    assert target.path == f"/_firmware/{BUCKET}/{file.file.name}"
    assert "X-Amz-Signature" in parse_qs(target.query)
