"""The example on a host of its own, and with services of other settings."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from pytest_django import Settings

from accounts.models import Session, User
from conftest import PASSWORD
from tests.rig.browser import needs_chromium
from tests.rig.example import MODES, Window, watched
from tests.rig.gunicorn import Server, serve
from tests.rig.smtp import use_mailer

pytestmark = needs_chromium


@pytest.mark.parametrize("mode", MODES)
def test_from_another_origin(
    browser: Browser, server: Server, alice: User, elsewhere: tuple[Path, str], mode: str
) -> None:
    _, origin = elsewhere
    with watched(browser.new_context()) as page:
        window = Window(page, origin, mode)
        window.open("/")
        window.sign_in()
        window.sees("Account")
        page.reload()
        window.go("Devices")
        expect(window.row("this device")).to_be_visible()
        window.act_outside("Sign out")
        window.is_told("You are signed out.")
    assert not Session.objects.active().exists()


def test_without_cookies_the_page_says_how_to_get_them(
    browser: Browser, alice: User, tmp_path: Path
) -> None:
    with (
        serve(tmp_path / "log", DEBUG="true", AUTH_RATE_LIMIT="1/10s") as server,
        watched(browser.new_context()) as page,
    ):
        window = Window(page, f"http://localhost:{server.port}")
        window.open()
        page.get_by_label(MODES["cookie"]).check()
        expect(page.get_by_text("make run REFRESH_COOKIE=true")).to_be_visible()
        expect(page.get_by_label(MODES["bearer"])).to_be_checked()

        window.sign_in("a guess")
        expect(window.part.get_by_role("alert").filter(has_text="incorrect")).to_be_visible()
        window.sign_in()
        expect(page.locator("#waiting")).to_contain_text("The service asks to wait.")
        expect(page.locator("#waiting")).to_be_empty(timeout=30_000)
        window.sees("Account")


def test_where_registration_begins_with_the_address(
    browser: Browser, alice: User, settings: Settings, tmp_path: Path
) -> None:
    mailbox = f"filemail://{tmp_path}/mail"
    variables = {"DEBUG": "true", "EMAIL_URL": mailbox, "REGISTRATION": "verified"}
    with (
        serve(tmp_path / "log", **variables) as server,
        watched(browser.new_context()) as page,
    ):
        use_mailer(settings, mailbox)
        settings.FRONTEND_URL = f"http://localhost:{server.port}/example"
        window = Window(page, f"http://localhost:{server.port}")
        window.open()
        window.go("Create an account")
        fields = {"Username": "bob", "Email address": "bob@example.com", "Password": PASSWORD}
        window.act("Create account", fields)
        window.is_told("Open the link that was sent to you")

        window.follow_the_email("Complete your registration")
        window.act("Create account", {"Username": "bob", "Password": PASSWORD})
        window.sees("Account")
        expect(window.part.get_by_text("verified", exact=True)).to_be_visible()
