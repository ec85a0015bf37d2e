"""The example: the account of a user who is signed in, in bearer mode and in cookie mode."""

import json

import pytest
from playwright.sync_api import expect
from pytest_django import Settings

from accounts.models import ApiToken, Passkey, Session, TOTPDevice, User
from conftest import PASSWORD
from tests.rig.browser import PHONE, needs_chromium
from tests.rig.example import Window
from tests.rig.factors import code_of
from tests.rig.virtual_authenticator import VirtualAuthenticator

pytestmark = needs_chromium

NEW = "a rainy night in June"
FIREFOX = {"user_agent": "", "address": "192.0.2.7", "device": "Firefox on Linux"}
# A virtual authenticator accepts the offer of the field at once, before a test asks for it.
NO_OFFER = "PublicKeyCredential.isConditionalMediationAvailable = async () => false"


def factors(user: User) -> tuple[bool, int]:
    return TOTPDevice.objects.filter(user=user).exists(), Passkey.objects.count()


@pytest.fixture(autouse=True)
def signed_in(window: Window) -> None:
    window.page.add_init_script(NO_OFFER)
    window.open()
    window.sign_in()
    window.sees("Account")


def test_an_app_is_added_and_removed(window: Window, alice: User) -> None:
    window.go("Security")
    window.act("Set up an app")
    window.part.get_by_label("Code of the app").wait_for()
    secret = window.part.locator(".secret").inner_text().replace(" ", "")
    href = window.part.get_by_role("link", name="authenticator app").get_attribute("href")
    assert href.startswith("otpauth://totp/")
    assert secret in href
    window.act("Turn on", {"Code of the app": code_of(secret)})
    window.sees("Your recovery codes")
    codes = window.part.locator("pre").inner_text().split()
    assert len(codes) == 10
    window.act("I have saved it")
    window.is_told("The authenticator app is on.")

    window.act("Get new codes")
    window.sign_in_again(codes[0])
    window.sees("Your recovery codes")
    window.act("I have saved it")
    window.act("Remove the app")
    window.is_told("The authenticator app is off.")
    assert factors(alice) == (False, 0)


def test_a_passkey_signs_in_and_is_removed(window: Window, alice: User) -> None:
    VirtualAuthenticator(window.page)
    window.go("Security")
    window.act("Add a passkey", {"Name of the new passkey": "<b>Laptop</b>"})
    window.act("I have saved it")
    expect(window.row("<b>Laptop</b>")).to_be_visible()
    assert factors(alice) == (False, 1)

    window.act_outside("Sign out")
    window.act("Use a passkey")
    window.sees("Account")
    window.act_outside("Sign out")
    window.sign_in()
    window.sees("Second step")
    window.act("Use a passkey")
    window.sees("Account")

    window.go("Security")
    window.let_time_pass(alice)
    window.act("Remove: <b>Laptop</b>")
    window.sees("Sign in again")
    window.act("Use a passkey")
    window.is_told("The passkey is removed.")
    assert factors(alice) == (False, 0)


def test_devices_are_signed_out(window: Window, alice: User) -> None:
    Session.objects.start(alice, **FIREFOX)
    window.go("Devices")
    window.row("Firefox").get_by_role("button").click()
    window.is_told("That device is signed out.")
    expect(window.row("Firefox")).to_have_count(0)
    assert Session.objects.active().count() == 1

    window.act("Sign out everywhere")
    window.is_told("You are signed out on every device.")
    assert not Session.objects.active().exists()


def test_a_token_is_shown_once_and_ends(window: Window) -> None:
    window.go("Tokens")
    window.act("Create token", {"Name": "Report"})
    window.sees("Your new API token")
    assert window.part.locator("pre").inner_text().startswith("lk_")
    window.act("Copy")
    window.is_told("Copied.")
    window.act("I have saved it")
    expect(window.row("Report")).to_contain_text("read")
    assert ApiToken.objects.count() == 1

    window.act("End: Report")
    window.is_told("The token has ended.")
    expect(window.row("Report")).to_have_count(0)


def test_the_address_changes_by_a_link(window: Window, alice: User, settings: Settings) -> None:
    settings.FRONTEND_URL = f"{window.origin}/example"
    window.let_time_pass(alice)
    window.part.get_by_text("Change the address").click()
    window.act("Send a link to it", {"New email address": "alice@example.org"})
    window.sign_in_again()
    window.is_told("Open the link that was sent to the new address.")
    expect(window.part).to_contain_text("Waiting for the link sent to alice@example.org.")

    window.follow_the_email("Confirm your new email address")
    window.act("Confirm address")
    window.is_told("Your email address is confirmed.")
    expect(window.part).to_contain_text("alice@example.org")


def test_the_password_changes(window: Window, alice: User) -> None:
    window.go("Security")
    window.part.get_by_text("Change the password").click()
    window.act("Change password", {"Current password": "a guess", "New password": NEW})
    wrong = window.part.get_by_label("Current password")
    expect(wrong).to_have_accessible_description("The password is wrong.")
    window.act("Change password", {"Current password": PASSWORD})
    window.is_told("Your password is changed.")
    alice.refresh_from_db()
    assert alice.check_password(NEW)


def test_events_are_listed_page_by_page(window: Window, alice: User) -> None:
    for _ in range(25):
        Session.objects.start(alice, **FIREFOX)
    window.go("Activity")
    expect(window.part.locator("li")).to_have_count(20)
    window.act("Show more")
    expect(window.part.locator("li").last).to_contain_text("Account created")


def test_the_data_is_downloaded(window: Window, alice: User) -> None:
    window.let_time_pass(alice)
    window.act("Download")
    with window.page.expect_download() as started:
        window.sign_in_again()

    assert started.value.suggested_filename == "alice.json"
    data = json.loads(started.value.path().read_text())
    assert data["account"]["username"] == "alice"


def test_the_account_is_deleted(window: Window, alice: User) -> None:
    window.let_time_pass(alice)
    window.part.locator("summary", has_text="Delete").click()
    window.act("Delete my account")
    window.act("Cancel")
    window.act("Delete my account")
    window.sign_in_again()
    window.is_told("Your account is deleted.")
    assert not User.objects.exists()


def test_a_sign_out_elsewhere_is_seen(window: Window) -> None:
    other = window.page.context.new_page()
    other.goto(window.page.url)
    expect(other.get_by_role("heading", name="Account", exact=True)).to_be_visible()
    other.get_by_role("button", name="Sign out").click()
    window.sees("Sign in")
    window.is_told("You are signed out.")


def test_no_view_is_wider_than_a_phone(window: Window) -> None:
    for view in ("Account", "Security", "Devices", "Tokens", "Activity"):
        window.go(view)
        expect(window.page.locator("[aria-current=page]")).to_have_text(view)
        assert window.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
