"""Secure Update: an RSA-2048 key pair per product, and the signature that its devices check.

AliOS Things keeps the public key in two fixed buffers (modulus of 256 bytes, exponent of 3) and checks
RSASSA-PKCS1-v1_5 with SHA-256 over the raw digest of the file, whichever digest that is.
"""

import base64
from datetime import datetime
from functools import lru_cache

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from django.db import transaction

from devices.models import Product
from firmware.models import FirmwareFile
from otaplatform.accounts import audit
from otaplatform.accounts.models import User
from otaplatform.accounts.secret import decrypt, encrypt

_EXPONENT = 65537
_MODULUS_BYTES = 256
_BYTES_PER_LINE = 12


def set_secure_update(product: Product, on: bool, actor: User | None, now: datetime | None = None) -> bool:
    """Switch secure update of a product; whether that changed anything.

    The key pair is made when it is first switched on and stays for ever, so devices in the field
    remain valid. Two people who switch on at once get one key.
    """
    if on and not product.signing_key_encrypted:
        # Made outside of the transaction: it takes a tenth of a second.
        key = encrypt(_new_key())
        Product.objects.filter(pk=product.pk, signing_key_encrypted="").update(signing_key_encrypted=key)
    with transaction.atomic():
        changed = Product.objects.filter(pk=product.pk, secure_update=not on).update(secure_update=on)
        if changed:
            action = "secure_update.switched_on" if on else "secure_update.switched_off"
            audit.record(product.account_id, actor, action, product, now=now)
    product.refresh_from_db(fields=["secure_update", "signing_key_encrypted"])
    return bool(changed)


def _new_key() -> str:
    key = rsa.generate_private_key(public_exponent=_EXPONENT, key_size=8 * _MODULUS_BYTES)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _load(encrypted: str) -> rsa.RSAPrivateKey:
    key = serialization.load_pem_private_key(decrypt(encrypted).encode(), password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


@lru_cache(maxsize=1024)
def _sign(encrypted_key: str, digest: bytes) -> str:
    """Kept by the key's ciphertext, so no key lies in the cache; the signature is the same each time."""
    signature = _load(encrypted_key).sign(digest, padding.PKCS1v15(), hashes.SHA256())
    return base64.b64encode(signature).decode()


def digestsign(file: FirmwareFile, product: Product) -> str | None:
    """The `digestsign` of a push: 344 characters of base64; None (leave the key out) when switched off."""
    if not product.secure_update:
        return None
    return _sign(product.signing_key_encrypted, bytes.fromhex(file.digest))


def public_key(product: Product) -> rsa.RSAPublicKey | None:
    """What devices of the product check with; None before secure update was first switched on."""
    return _load(product.signing_key_encrypted).public_key() if product.signing_key_encrypted else None


def public_key_pem(key: rsa.RSAPublicKey) -> str:
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


def public_key_c(key: rsa.RSAPublicKey) -> str:
    """The two arrays of AliOS Things' `ota_public_key_config.h`, to paste: big-endian, no zero in front."""
    numbers = key.public_numbers()
    return "\n".join(
        [
            _c_array("ota_pubn_buf", numbers.n.to_bytes(_MODULUS_BYTES, "big")),
            _c_array("ota_pube_buf", numbers.e.to_bytes(3, "big")),
        ]
    )


def _c_array(name: str, content: bytes) -> str:
    lines = [content[start : start + _BYTES_PER_LINE] for start in range(0, len(content), _BYTES_PER_LINE)]
    body = ",\n".join("    " + ", ".join(f"0x{byte:02x}" for byte in line) for line in lines)
    return f"static const unsigned char {name}[{len(content)}] = {{\n{body}\n}};\n"
