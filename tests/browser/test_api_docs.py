"""The viewers of the API's description, under the policy that they are served with."""

from playwright.sync_api import Browser, expect

from tests.browser.conftest import OpenConsole, screenshot


def test_swagger_ui_shows_the_operations(open_console: OpenConsole) -> None:
    page = open_console("/api/v1/docs/")
    expect(page.get_by_text("/api/v1/campaigns/preview/")).to_be_visible()
    page.get_by_text("/api/v1/campaigns/preview/").click()
    expect(page.get_by_text("What a launch with this body would find", exact=False).last).to_be_visible()
    screenshot(page, "swagger")


def test_redoc_shows_the_operations(server: str, browser: Browser) -> None:
    page = browser.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(f"{server}/api/v1/redoc/")
    expect(page.get_by_role("heading", name="Launch (or schedule) a batch update")).to_be_attached()
    expect(page.get_by_text("API docs by Redocly").first).to_be_attached()
    screenshot(page, "redoc")
    page.close()
    assert complaints == []
