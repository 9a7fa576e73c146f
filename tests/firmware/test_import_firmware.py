"""Bringing in files from before firmware belonged to products."""

from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from firmware.models import Firmware
from tests.factories import AccountFactory
from tests.firmware.samples import BIN, CONTENT

pytestmark = pytest.mark.django_db


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "old"
    folder.mkdir()
    return folder


def run(*arguments: object) -> str:
    out = StringIO()
    call_command("import_firmware", *map(str, arguments), stdout=out, stderr=out)
    return out.getvalue()


def test_a_folder_is_brought_in_without_products(folder: Path) -> None:
    AccountFactory.create()
    (folder / "gateway-1.0.2.bin").write_bytes(BIN)
    (folder / "固件升级-2.0.tar.gz").write_bytes(CONTENT[".tar.gz"])
    (folder / "README.txt").write_text("not firmware")
    assert "2 of 2 files brought in" in run(folder)
    rows = Firmware.objects.unassociated().order_by("version").values_list("name", "version")
    assert list(rows) == [("gateway_1_0_2", "1.0.2"), ("固件升级_2_0", "2.0")]


def test_a_table_names_what_is_brought_in_and_how(folder: Path) -> None:
    account = AccountFactory.create(name="Second")
    AccountFactory.create()
    (folder / "a.bin").write_bytes(BIN)
    (folder / "list.csv").write_text("file,name,version,sign_method\na.bin,gateway_fw,1.0,sha256\n")
    run(folder / "list.csv", "--account", "Second")
    firmware = Firmware.objects.get()
    assert (firmware.account, firmware.name, firmware.sign_method) == (account, "gateway_fw", "SHA256")


def test_what_breaks_a_rule_is_refused_by_name_and_the_rest_is_brought_in(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    AccountFactory.create()
    (folder / "gateway-1.0.bin").write_bytes(BIN)
    (folder / "gateway.bin").write_bytes(BIN)
    (folder / "gateway-1.1.zip").write_bytes(BIN)
    with pytest.raises(CommandError, match="2 of 3 files were refused"):
        run(folder)
    assert Firmware.objects.count() == 1
    with pytest.raises(CommandError, match="3 of 3"):
        run(folder)


@pytest.mark.parametrize("content", [b"file,name\n", b"", b"\xff\xfe\x00"])
def test_a_table_that_is_none_is_an_error(content: bytes, folder: Path) -> None:
    AccountFactory.create()
    (folder / "list.csv").write_bytes(content)
    with pytest.raises(CommandError):
        run(folder / "list.csv")


def test_the_account_must_be_clear(folder: Path) -> None:
    AccountFactory.create()
    AccountFactory.create()
    with pytest.raises(CommandError, match="--account"):
        run(folder)
    with pytest.raises(CommandError, match="no account"):
        run(folder, "--account", "Nobody")


def test_a_missing_file_of_a_table_is_refused(folder: Path) -> None:
    AccountFactory.create()
    (folder / "list.csv").write_text("file,name,version\ngone.bin,gateway_fw,1.0\n")
    with pytest.raises(CommandError, match="1 of 1"):
        run(folder / "list.csv")
