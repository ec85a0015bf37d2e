"""The example: registration, sign-in and emailed links, in bearer mode and in cookie mode."""

import re

from playwright.sync_api import expect
from pytest_django import Settings

from accounts.models import Session, Ticket, User
from conftest import PASSWORD
from tests.rig.browser import needs_chromium
from tests.rig.example import MODES, Window
from tests.rig.factors import code_of, enrol

pytestmark = needs_chromium

NEW = "a rainy night in June"


def test_a_newcomer_registers_and_verifies_the_address(window: Window) -> None:
    window.page.get_by_label(MODES[window.mode]).check()
    window.go("Create an account")
    fields = {"Username": "bob", "Email address": "bob@example.com", "Password": PASSWORD}
    window.act("Create account", fields)
    window.sees("Account")
    expect(window.part).to_contain_text("This address is not verified yet.")

    window.follow_the_email("Verify your email address")
    window.page.get_by_label("Username or email address").fill("bob")
    window.page.get_by_label("Password").fill(PASSWORD)
    window.page.get_by_role("button").click()
    expect(window.page.get_by_text("Your email address is confirmed.")).to_be_visible()

    window.open()
    expect(window.part.get_by_text("verified", exact=True)).to_be_visible()


def test_errors_are_at_their_fields(window: Window) -> None:
    window.go("Create an account")
    fields = {"Username": "al", "Email address": "alice@example.com", "Password": "short"}
    window.act("Create account", fields)

    username = window.part.get_by_label("Username", exact=True)
    expect(username).to_have_attribute("aria-invalid", "true")
    expect(username).to_be_focused()
    expect(username).to_have_accessible_description(re.compile("at least 3 characters"))
    password = window.part.get_by_label("Password", exact=True)
    expect(password).to_have_accessible_description(re.compile("8 characters or more.*short"))
    window.act("Create account", {"Username": "bob"})
    expect(username).to_have_attribute("aria-invalid", "false")


def test_a_password_signs_in_and_the_page_stays_signed_in(window: Window) -> None:
    window.sign_in("a guess")
    expect(window.part.get_by_role("alert").filter(has_text="incorrect")).to_be_visible()
    window.sign_in()
    window.sees("Account")

    window.page.reload()
    window.sees("Account")
    cookies = {cookie["name"] for cookie in window.page.context.cookies()}
    assert cookies == ({"refresh"} if window.mode == "cookie" else set())

    window.act_outside("Sign out")
    window.is_told("You are signed out.")
    window.page.reload()
    window.sees("Sign in")
    assert not Session.objects.active().exists()


def test_by_keyboard_alone(window: Window) -> None:
    keyboard = window.page.keyboard
    window.page.get_by_label(MODES[window.mode]).check()
    window.page.get_by_label("Username").first.focus()
    keyboard.type("alice")
    keyboard.press("Tab")
    keyboard.type(PASSWORD)
    keyboard.press("Enter")
    window.sees("Account")
    expect(window.page.get_by_role("heading", name="Account", exact=True)).to_be_focused()

    for _ in ("Activity", "Tokens", "Devices"):
        keyboard.press("Shift+Tab")
    keyboard.press("Enter")
    window.sees("Devices")


def test_an_app_is_the_second_step(window: Window, alice: User) -> None:
    secret, codes = enrol(alice)
    window.sign_in()
    window.sees("Second step")
    window.act("Continue", {"Code": "0123-4567-89AB-CDEF-GHJK-MNPQ"})
    expect(window.part.get_by_role("alert").filter(has_text="wrong")).to_be_visible()
    window.act("Continue", {"Code": code_of(secret)})
    window.sees("Account")

    window.act_outside("Sign out")
    window.sign_in()
    window.act("Continue", {"Code": codes[0]})
    window.sees("Account")


def test_a_forgotten_password(window: Window, settings: Settings) -> None:
    settings.FRONTEND_URL = f"{window.origin}/example"
    window.go("Forgot your password?")
    window.act("Send a link", {"Username or email address": "alice"})
    window.is_told("Open the mailbox")
    window.follow_the_email("Reset your password")

    window.sees("Choose a new password")
    assert window.page.url == f"{window.origin}/example/"
    window.act("Change password", {"New password": NEW})
    window.is_told("Your password is changed.")
    window.sign_in(NEW)
    window.sees("Account")


def test_a_password_that_must_be_changed(window: Window, alice: User) -> None:
    User.objects.update(must_change_password=True)
    window.sign_in()
    window.act("Change password", {"New password": NEW})
    window.is_told("Your password is changed.")
    window.sign_in(NEW)
    window.sees("Account")


def test_a_link_verifies_an_address(window: Window, alice: User) -> None:
    User.objects.update(email_verified_at=None)
    ticket = Ticket.objects.issue(Ticket.Purpose.VERIFY, alice, address=alice.email)
    window.open(f"/example/verify-email#token={ticket.token}")
    window.sees("Sign in")
    window.sign_in()
    window.act("Confirm address")
    window.is_told("Your email address is confirmed.")


def test_a_used_link_says_so(window: Window) -> None:
    window.open("/example/reset-password#token=x")
    window.act("Change password", {"New password": NEW})
    expect(window.part.get_by_role("alert").filter(has_text="not valid")).to_be_visible()
    window.go("Send another link")
    window.sees("Forgot your password?")
