"""Secure Update: the key of a product, and the signature as AliOS Things checks it."""

import base64
import hashlib
import re

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from devices.models import Product
from firmware import signing
from firmware.models import FirmwareFile, SignMethod
from otaplatform.accounts.models import AuditEntry
from tests.factories import FirmwareFactory, ProductFactory, UserFactory

pytestmark = pytest.mark.django_db


def secure_file(sign_method: str = SignMethod.SHA256, content: bytes = b"image") -> FirmwareFile:
    product = ProductFactory.create()
    firmware = FirmwareFactory.create(product=product, sign_method=sign_method, file=content)
    signing.set_secure_update(product, True, None)
    return FirmwareFile.objects.select_related("firmware__product").get(firmware=firmware)


def c_bytes(text: str, name: str) -> bytes:
    """What a C compiler makes of an array in the copied text."""
    match = re.search(rf"static const unsigned char {name}\[(\d+)\] = {{([^}}]*)}};", text)
    assert match
    content = bytes(int(item, 16) for item in match[2].split(","))
    assert len(content) == int(match[1])
    return content


def key_on_the_device(product: Product) -> rsa.RSAPublicKey:
    """The key as it is pasted into the firmware of a device."""
    key = signing.public_key(product)
    assert key
    text = signing.public_key_c(key)
    n, e = c_bytes(text, "ota_pubn_buf"), c_bytes(text, "ota_pube_buf")
    assert (len(n), len(e), n[0] != 0) == (256, 3, True)
    return rsa.RSAPublicNumbers(int.from_bytes(e, "big"), int.from_bytes(n, "big")).public_key()


def device_accepts(key: rsa.RSAPublicKey, digestsign: str, content: bytes, algorithm: str) -> bool:
    """The device's check: base64 to exactly 256 bytes, then PKCS#1 v1.5 with SHA-256 over the raw digest."""
    signature = base64.b64decode(digestsign, validate=True)
    assert len(signature) == 256
    try:
        key.verify(signature, hashlib.new(algorithm, content).digest(), padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True


@pytest.mark.parametrize(("method", "algorithm"), [(SignMethod.MD5, "md5"), (SignMethod.SHA256, "sha256")])
def test_a_device_accepts_the_signature_of_its_file_and_of_no_other(method: str, algorithm: str) -> None:
    file = secure_file(method, b"the image")
    product = file.firmware.product
    assert product
    digestsign = signing.digestsign(file, product)
    assert digestsign
    assert len(digestsign) == 344
    key = key_on_the_device(product)
    assert device_accepts(key, digestsign, b"the image", algorithm)
    assert not device_accepts(key, digestsign, b"the imagE", algorithm)
    other = ProductFactory.create()
    signing.set_secure_update(other, True, None)
    assert not device_accepts(key_on_the_device(other), digestsign, b"the image", algorithm)


def test_the_pem_is_the_same_key_as_the_arrays() -> None:
    product = secure_file().firmware.product
    assert product
    key = signing.public_key(product)
    assert key
    pem = serialization.load_pem_public_key(signing.public_key_pem(key).encode())
    assert isinstance(pem, rsa.RSAPublicKey)
    assert pem.public_numbers() == key_on_the_device(product).public_numbers()


def test_nothing_is_signed_while_switched_off_and_the_key_stays() -> None:
    file = secure_file()
    product = file.firmware.product
    assert product
    before = signing.digestsign(file, product)
    signing.set_secure_update(product, False, None)
    assert signing.digestsign(file, product) is None
    signing.set_secure_update(product, True, None)
    assert signing.digestsign(file, product) == before


def test_a_product_that_never_was_secure_has_no_key() -> None:
    assert signing.public_key(ProductFactory.create()) is None


def test_the_private_key_is_encrypted_at_rest() -> None:
    product = secure_file().firmware.product
    assert product
    assert "PRIVATE KEY" not in product.signing_key_encrypted
    assert "PRIVATE KEY" in product.signing_key


def test_switching_is_recorded_once_per_change() -> None:
    user = UserFactory.create()
    product = ProductFactory.create(account=user.account)
    assert signing.set_secure_update(product, True, user)
    assert not signing.set_secure_update(product, True, user)
    assert signing.set_secure_update(product, False, user)
    actions = AuditEntry.objects.order_by("id").values_list("action", "actor")
    assert list(actions) == [
        ("secure_update.switched_on", user.pk),
        ("secure_update.switched_off", user.pk),
    ]


def test_two_who_switch_on_at_once_keep_one_key() -> None:
    product = ProductFactory.create()
    seen_before = Product.objects.get(pk=product.pk)
    signing.set_secure_update(product, True, None)
    kept = product.signing_key_encrypted
    # The other one read the product before there was a key.
    signing.set_secure_update(seen_before, True, None)
    assert seen_before.signing_key_encrypted == kept
