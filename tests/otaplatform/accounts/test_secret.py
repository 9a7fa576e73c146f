"""Secrets at rest."""

import pytest
from cryptography.fernet import Fernet, InvalidToken
from pytest_django import Settings

from devices.models import Product
from otaplatform.accounts import secret
from tests.factories import ProductFactory


def test_the_column_holds_no_clear_text_and_the_attribute_reads_it() -> None:
    product = ProductFactory.build(secret="s3cret-value")
    assert product.secret == "s3cret-value"
    assert "s3cret-value" not in product.secret_encrypted


def test_an_empty_secret_stays_empty() -> None:
    product = Product(secret="")
    assert (product.secret, product.secret_encrypted) == ("", "")


def test_the_same_text_is_never_encrypted_alike() -> None:
    assert secret.encrypt("x") != secret.encrypt("x")


def test_an_older_key_still_reads_and_rotation_needs_only_the_newest(settings: Settings) -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    settings.OTA_ENCRYPTION_KEYS = [old]
    token = secret.encrypt("text")
    settings.OTA_ENCRYPTION_KEYS = [new, old]
    assert secret.decrypt(token) == "text"
    rotated = secret.rotate(token)
    settings.OTA_ENCRYPTION_KEYS = [new]
    assert secret.decrypt(rotated) == "text"
    with pytest.raises(InvalidToken):
        secret.decrypt(token)
