"""From the first login to registered devices, as people do it."""

import re

import pytest
from playwright.sync_api import Page, expect

from devices.models import Device, Product
from otaplatform.accounts.models import User
from tests.browser.conftest import OpenConsole, screenshot
from tests.factories import DeviceFactory, ProductFactory

WORDS = {
    False: {
        "log_in": "Log in",
        "change": "Change my password",
        "products": "Products",
        "create": "Create product",
        "name": "Product name",
        "register": "Register device",
        "batch": "Register in a batch",
        "from_csv": "From a CSV file",
        "go": "Register devices",
        "download": "Download result file",
        "taken": "The product already has a device of this name.",
        "save": "Save",
    },
    True: {
        "log_in": "登录",
        "change": "修改我的密码",
        "products": "产品",
        "create": "创建产品",
        "name": "产品名称",
        "register": "注册设备",
        "batch": "批量注册",
        "from_csv": "从 CSV 文件读取",
        "go": "注册设备",
        "download": "下载结果文件",
        "taken": "该产品下已有同名设备。",
        "save": "保存",
    },
}


def log_in(page: Page, words: dict[str, str], password: str) -> None:
    page.locator("#id_username").fill("lihua")
    page.locator("#id_password").fill(password)
    page.get_by_role("button", name=words["log_in"]).click()


@pytest.mark.parametrize("chinese", [False, True], ids=["en", "zh"])
def test_a_new_administrator_logs_in_and_registers_devices(
    open_console: OpenConsole, administrator: User, chinese: bool
) -> None:
    words = WORDS[chinese]
    User.objects.filter(pk=administrator.pk).update(must_change_password=True)
    page = open_console("/", chinese=chinese)
    log_in(page, words, "pw")

    expect(page).to_have_url(re.compile("/password_change/$"))
    page.locator("#id_old_password").fill("pw")
    page.locator("#id_new_password1").fill("Kanton-1997-x")
    page.locator("#id_new_password2").fill("Kanton-1997-x")
    page.get_by_role("button", name=words["change"]).click()
    expect(page).to_have_url(re.compile("/password_change/done/$"))

    page.get_by_role("link", name=words["products"], exact=True).click()
    page.get_by_role("link", name=words["create"]).first.click()
    page.get_by_label(words["name"]).fill("智能网关")
    page.get_by_role("button", name=words["create"]).click()
    expect(page.get_by_role("heading", name="智能网关")).to_be_visible()

    page.get_by_role("link", name=words["register"]).click()
    page.get_by_label("DeviceName").fill("gw-0001")
    page.get_by_role("button", name=words["register"]).click()
    expect(page.get_by_role("heading", name="gw-0001")).to_be_visible()

    page.goto("/devices/product/")
    page.get_by_role("link", name="智能网关").click()
    page.get_by_role("link", name=words["batch"]).click()
    page.get_by_label(words["from_csv"]).check()
    names = b"DeviceName\r\ngw-0001\r\ngw-0002\r\ngw 3\r\n@gw-0004\r\n"
    page.locator("#id_file").set_input_files({"name": "names.csv", "mimeType": "text/csv", "buffer": names})
    page.get_by_role("button", name=words["go"]).click()
    expect(page.get_by_role("cell", name=words["taken"])).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name=words["download"]).click()
    rows = download.value.path().read_text(encoding="utf-8-sig").splitlines()
    assert rows[2].split(",")[:3] == [
        "gw-0002",
        Device.objects.get(name="gw-0002").secret,
        Product.objects.get().product_key,
    ]
    assert rows[4].startswith("'@gw-0004,")
    screenshot(page, f"registered-{'zh' if chinese else 'en'}")

    administrator.refresh_from_db()
    assert administrator.time_zone == "Asia/Shanghai"


def test_credentials_are_shown_when_asked_for(open_console: OpenConsole, administrator: User) -> None:
    device = DeviceFactory(product=ProductFactory(account=administrator.account), online=True)
    page = open_console(f"/devices/device/{device.pk}/change/", administrator)
    expect(page.get_by_text(device.secret)).to_have_count(0)
    page.get_by_role("button", name="Show credentials").click()
    expect(page.locator("#device-secret")).to_have_text(device.secret)


def test_the_language_chosen_in_the_header_is_kept(open_console: OpenConsole, administrator: User) -> None:
    page = open_console("/", administrator)
    page.get_by_role("button", name="中文").click()
    expect(page.get_by_role("heading", name="总览")).to_be_visible()
    again = open_console("/", administrator)
    expect(again.get_by_role("heading", name="总览")).to_be_visible()


def test_a_time_zone_that_does_not_exist_is_refused_beside_its_field(
    open_console: OpenConsole, administrator: User
) -> None:
    page = open_console("/me/", administrator)
    page.get_by_label("Time zone").fill("Asia/Nowhere")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".field.wrong")).to_contain_text("is not a known time zone")
    expect(page.get_by_label("Time zone")).to_have_value("Asia/Nowhere")
