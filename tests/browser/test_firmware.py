"""Firmware as people handle it: upload with its progress, associate, secure update; in both languages."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect
from pytest_django import Settings

from devices.models import Product
from firmware import services
from firmware.models import Firmware, FirmwareStatus
from firmware.signing import public_key, public_key_c, public_key_pem, set_secure_update
from otaplatform.accounts.models import AuditEntry, User
from tests.browser.conftest import OpenConsole, screenshot, scrolls_sideways, serious_faults
from tests.factories import CampaignFactory, FirmwareFactory, ProductFactory
from tests.firmware.samples import BIN, upload
from tests.running import TIMEOUT

WORDS = {
    False: {
        "new": "New Firmware",
        "name": "Firmware Name",
        "version": "Firmware Version",
        "product": "Product",
        "algorithm": "Signature Algorithm",
        "file": "Upload Firmware",
        "upload": "Upload",
        "content": "The name ends in .zip, but the content is something else.",
        "large": "The file is larger than allowed.",
        "associate": "Associate",
        "secure": "Secure Update",
        "activated": "Activated",
        "copied": "Copied",
        "closed": "Some firmware files belong to no product yet.",
    },
    True: {
        "new": "新增固件",
        "name": "固件名称",
        "version": "固件版本",
        "product": "所属产品",
        "algorithm": "签名算法",
        "file": "上传固件",
        "upload": "上传",
        "content": "文件名以 .zip 结尾，但内容并非该格式。",
        "large": "文件超过大小限制。",
        "associate": "关联产品",
        "secure": "安全升级",
        "activated": "已开启",
        "copied": "已复制",
        "closed": "有固件文件尚未关联产品",
    },
}
LANGUAGES = pytest.mark.parametrize("chinese", [False, True], ids=["en", "zh"])


@pytest.fixture(autouse=True)
def stored(settings: Settings, tmp_path: Path) -> Path:
    settings.MEDIA_ROOT = str(tmp_path)
    return tmp_path


@pytest.fixture
def product(administrator: User) -> Product:
    return ProductFactory.create(account=administrator.account, name="智能网关")


def old_firmware(product: Product, name: str, version: str) -> Firmware:
    return services.import_firmware(
        product.account, name=name, version=version, sign_method="MD5", upload=upload()
    )


def choose_file(page: Page, words: dict[str, str], name: str, content: bytes) -> None:
    chosen: Any = {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    page.get_by_label(words["file"]).set_input_files(chosen)


@LANGUAGES
def test_uploading_a_firmware(
    chinese: bool, open_console: OpenConsole, administrator: User, product: Product
) -> None:
    words = WORDS[chinese]
    page = open_console("/firmware/", administrator, chinese=chinese)
    screenshot(page, f"firmware-empty-{chinese}")
    page.get_by_role("link", name=words["new"]).first.click()
    page.get_by_label(words["name"]).fill("gateway_fw_2")
    page.get_by_label(words["version"]).fill("2.1.0")
    page.get_by_label(words["product"]).select_option(label="智能网关")
    page.get_by_label(words["algorithm"]).select_option("SHA256")

    choose_file(page, words, "image.zip", BIN)
    page.get_by_role("button", name=words["upload"], exact=True).click()
    expect(page.locator(".field.wrong")).to_contain_text(words["content"])
    expect(page.get_by_label(words["name"])).to_have_value("gateway_fw_2")
    assert page.get_by_label(words["file"]).evaluate("input => input.files[0].name") == "image.zip"
    screenshot(page, f"firmware-refused-{chinese}")

    choose_file(page, words, "image.bin", BIN)
    page.get_by_role("button", name=words["upload"], exact=True).click()
    expect(page).to_have_url(re.compile(r"/firmware/\d+/$"))
    expect(page.get_by_role("heading", name="gateway_fw_2")).to_be_visible()
    file = Firmware.objects.get().files.get()
    expect(page.locator("main")).to_contain_text(file.md5)
    expect(page.locator("main")).to_contain_text(file.sha256)
    screenshot(page, f"firmware-uploaded-{chinese}")


def test_the_bar_moves_while_the_file_travels(
    open_console: OpenConsole, administrator: User, product: Product
) -> None:
    words = WORDS[False]
    page = open_console("/firmware/new/", administrator)
    held: list[Route] = []
    page.route("**/firmware/new/", lambda route: held.append(route))
    page.get_by_label(words["name"]).fill("gateway_fw_2")
    page.get_by_label(words["version"]).fill("2.1.0")
    page.get_by_label(words["product"]).select_option(index=1)
    choose_file(page, words, "image.bin", b"x" * 3_000_000)
    page.get_by_role("button", name=words["upload"], exact=True).click()
    expect(page.get_by_role("progressbar")).to_be_visible()
    expect(page.get_by_role("button", name=words["upload"], exact=True)).to_be_disabled()
    screenshot(page, "firmware-progress")
    deadline = time.monotonic() + TIMEOUT
    while not held and time.monotonic() < deadline:
        page.wait_for_timeout(20)  # the only way to let the browser's events in
    held[0].continue_()
    expect(page).to_have_url(re.compile(r"/firmware/\d+/$"))


def test_a_connection_that_breaks_is_said_and_can_be_tried_again(
    open_console: OpenConsole, administrator: User, product: Product
) -> None:
    words = WORDS[False]
    page = open_console("/firmware/new/", administrator)
    answer = json.dumps({"detail": "from a proxy"})
    page.route("**/firmware/new/", lambda route: route.fulfill(status=413, body=answer))
    page.get_by_label(words["name"]).fill("gateway_fw_2")
    choose_file(page, words, "image.bin", BIN)
    page.get_by_role("button", name=words["upload"], exact=True).click()
    expect(page.locator("[data-errors]")).to_contain_text(words["large"])
    expect(page.get_by_role("button", name=words["upload"], exact=True)).to_be_enabled()
    expect(page.get_by_label(words["name"])).to_have_value("gateway_fw_2")


def test_a_file_that_is_too_large_is_refused_before_it_travels(
    open_console: OpenConsole, administrator: User, product: Product, settings: Settings
) -> None:
    settings.OTA_MAX_FIRMWARE_MB = 1
    page = open_console("/firmware/new/", administrator)
    choose_file(page, WORDS[False], "image.bin", b"x" * 1_100_000)
    expect(page.locator(".field.wrong")).to_contain_text(WORDS[False]["large"])


@LANGUAGES
def test_associating_old_files(
    chinese: bool, open_console: OpenConsole, administrator: User, product: Product
) -> None:
    words = WORDS[chinese]
    first, second = old_firmware(product, "old_gateway", "1.0"), old_firmware(product, "old_sensor", "1.0")
    page = open_console("/firmware/", administrator, chinese=chinese)
    expect(page.locator(".note.warning")).to_contain_text("2")
    disabled = page.locator(".actions [aria-disabled=true]")
    expect(disabled).to_contain_text(words["new"])
    expect(disabled).to_have_attribute("title", re.compile(words["closed"]))
    screenshot(page, f"firmware-unassociated-{chinese}")
    page.get_by_role("link", name=words["associate"], exact=True).click()
    for row in (first, second):
        page.locator(f"#id_product_{row.pk}").select_option(label="智能网关")
    page.get_by_role("button", name=words["associate"]).click()
    # Two files of one version cannot both go to it.
    expect(page.locator("td.wrong")).to_have_count(1)
    screenshot(page, f"firmware-associate-{chinese}")
    sensor = ProductFactory.create(account=product.account, name="传感器节点")
    page.goto("/firmware/associate/")
    page.locator(f"#id_product_{first.pk}").select_option(label="智能网关")
    page.locator(f"#id_product_{second.pk}").select_option(label="传感器节点")
    page.get_by_role("button", name=words["associate"]).click()
    expect(page).to_have_url(re.compile(r"/firmware/$"))
    expect(page.get_by_role("link", name=words["new"])).to_be_visible()
    second.refresh_from_db()
    assert second.product == sensor


@LANGUAGES
def test_secure_update_is_switched_on_and_its_key_copied(
    chinese: bool, open_console: OpenConsole, administrator: User, product: Product
) -> None:
    words = WORDS[chinese]
    page = open_console("/firmware/", administrator, chinese=chinese)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("link", name=words["secure"]).click()
    switch = page.get_by_role("switch", name=re.compile("智能网关"))
    expect(switch).to_have_attribute("aria-checked", "false")
    switch.click()
    expect(switch).to_have_attribute("aria-checked", "true")
    expect(page.get_by_text(words["activated"], exact=True)).to_be_visible()
    screenshot(page, f"secure-update-{chinese}")
    product.refresh_from_db()
    key = public_key(product)
    assert key
    buttons = page.locator("form.keys button")
    for number, expected in enumerate([public_key_c(key), public_key_pem(key)]):
        buttons.nth(number).click()
        expect(buttons.nth(number)).to_have_text(words["copied"])
        assert page.evaluate("() => navigator.clipboard.readText()") == expected
    assert AuditEntry.objects.filter(action="secure_update.key_copied").count() == 2


def test_where_the_clipboard_is_closed_the_key_is_shown(
    open_console: OpenConsole, administrator: User, product: Product
) -> None:
    set_secure_update(product, True, None)
    page = open_console("/firmware/secure-update/", administrator)
    page.add_init_script("delete Navigator.prototype.clipboard")
    page.reload()
    page.locator("form.keys button").first.click()
    expect(page.locator("#key")).to_contain_text("ota_pubn_buf[256]")


@pytest.mark.parametrize(("chinese", "phone", "dark"), [(True, False, False), (False, True, True)])
def test_nothing_serious_on_any_firmware_page(
    chinese: bool,
    phone: bool,
    dark: bool,
    open_console: OpenConsole,
    administrator: User,
    product: Product,
) -> None:
    verified = FirmwareFactory.create(
        product=product, name="gateway_fw_2", version="2.1.0", sign_method="SHA256"
    )
    CampaignFactory.create(firmware=verified)
    for number in range(5):
        FirmwareFactory.create(
            product=product,
            name=f"gateway_fw_1_{number}",
            version=f"1.{number}.0",
            status=FirmwareStatus.UNVERIFIED,
        )
    set_secure_update(product, True, None)
    ProductFactory.create(account=product.account, name="传感器节点")
    pages = {
        "list": "/firmware/",
        "filtered": "/firmware/?q=nothing",
        "new": "/firmware/new/",
        "detail": f"/firmware/{verified.pk}/",
        "delete": f"/firmware/{verified.pk}/delete/",
        "secure": "/firmware/secure-update/",
        "associated": "/firmware/associate/",
    }
    page = open_console("/firmware/", administrator, chinese=chinese, phone=phone, dark=dark)
    faults = []
    for name, address in pages.items():
        page.goto(address)
        faults += [f"{name}: {fault}" for fault in serious_faults(page)]
        if scrolls_sideways(page):
            faults.append(f"{name}: wider than the window")
        screenshot(page, f"firmware-{name}-{'zh' if chinese else 'phone'}")
    old_firmware(product, "old_gateway", "0.1")
    for name, address in {"banner": "/firmware/", "associate": "/firmware/associate/"}.items():
        page.goto(address)
        faults += [f"{name}: {fault}" for fault in serious_faults(page)]
        screenshot(page, f"firmware-{name}-{'zh' if chinese else 'phone'}")
    assert faults == []
