"""Second factors of staff in a browser: enrolment and sign-in, by mouse and by keyboard."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect
from pytest_django import Settings

from accounts.models import Event, Passkey, TOTPDevice, User
from accounts.passwords import BoundedBCryptSHA256PasswordHasher
from conftest import PASSWORD
from tests.rig.browser import PHONE, chromium, needs_chromium
from tests.rig.factors import code_of, enrol, wrong_code_of
from tests.rig.gunicorn import Server, serve
from tests.rig.virtual_authenticator import VirtualAuthenticator

pytestmark = [
    needs_chromium,
    pytest.mark.django_db(transaction=True),
    pytest.mark.heavy,
]
USERS = "/admin/accounts/user/"


@pytest.fixture(scope="module")
def server(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("factors") / "log"
    with serve(log, AUTH_RATE_LIMIT="1000/m", STAFF_MFA="required") as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(params=["desktop", "phone"])
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A browser window; errors of the page, its scripts and its policy fail the test."""
    is_phone = request.param == "phone"
    context = browser.new_context(
        viewport=PHONE if is_phone else {"width": 1280, "height": 900},
        color_scheme="dark" if is_phone else "light",
    )
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    yield page
    context.close()
    assert not errors


@pytest.fixture
def boss(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> User:
    """A superuser whose password the service can verify."""
    settings.PASSWORD_HASHERS = ["accounts.passwords.BoundedBCryptSHA256PasswordHasher"]
    monkeypatch.setattr(BoundedBCryptSHA256PasswordHasher, "rounds", 4)
    return User.objects.create_superuser("boss", "boss@example.com", PASSWORD)


def enter_password(page: Page, server: Server, path: str = USERS) -> None:
    page.goto(f"http://localhost:{server.port}{path}")
    page.get_by_label("Username").fill("boss")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


def fits(page: Page) -> bool:
    """Tell whether nothing of the page is wider than the window."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def press(page: Page, name: str) -> None:
    """Move the focus with the Tab key to a button, and press Enter."""
    assert any(tab_reaches(page, name) for _ in range(40)), name
    page.keyboard.press("Enter")


def tab_reaches(page: Page, name: str) -> bool:
    page.keyboard.press("Tab")
    return bool(page.evaluate("document.activeElement.textContent.trim()") == name)


def test_enrolment_of_an_app_by_mouse(page: Page, server: Server, boss: User) -> None:
    enter_password(page, server)
    expect(page.get_by_text("Add a second factor to use the console")).to_be_visible()
    assert fits(page)
    page.get_by_role("button", name="Add an authenticator app").click()
    expect(page.get_by_role("img", name="QR code of the secret").locator("svg")).to_be_visible()
    width = page.locator("svg.qr").evaluate("svg => svg.getBoundingClientRect().width")
    assert 150 < width < 350
    assert fits(page)
    secret = page.locator("#secret").inner_text().replace(" ", "")
    page.get_by_role("textbox", name="Code").fill(wrong_code_of(secret))
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_text("This code is wrong.")).to_be_visible()
    assert page.locator("#secret").inner_text().replace(" ", "") == secret
    page.get_by_role("textbox", name="Code").fill(code_of(secret))
    page.get_by_role("button", name="Confirm").click()

    expect(page.locator(".codes code")).to_have_count(10)
    codes = page.locator(".codes code").all_inner_texts()
    assert fits(page)
    page.get_by_role("button", name="Continue").click()
    expect(page.locator(".codes")).to_be_visible()  # The box must be ticked first.
    page.get_by_label("I have saved these codes").check()
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("link", name="Users", exact=True)).to_be_visible()
    page.get_by_role("button", name="Log out").click()

    enter_password(page, server)
    page.get_by_role("textbox", name="Code").fill(codes[0].lower())
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"**{USERS}")
    assert Event.objects.filter(kind="recovery_code_used").count() == 1


def test_enrolment_and_sign_in_by_keyboard(page: Page, server: Server, boss: User) -> None:
    page.goto(f"http://localhost:{server.port}{USERS}")
    for text in ("boss", PASSWORD):  # The first field has the focus.
        page.keyboard.type(text)
        page.keyboard.press("Tab" if text == "boss" else "Enter")
    expect(page.get_by_text("Add a second factor to use the console")).to_be_visible()
    press(page, "Add an authenticator app")
    expect(page.locator("svg.qr")).to_be_visible()
    secret = page.locator("#secret").inner_text().replace(" ", "")
    page.keyboard.type(code_of(secret))
    page.keyboard.press("Enter")
    expect(page.locator(".codes")).to_be_visible()
    page.get_by_label("I have saved these codes").focus()
    page.keyboard.press("Space")
    press(page, "Continue")
    expect(page.get_by_role("link", name="Users", exact=True)).to_be_visible()
    press(page, "Log out")
    expect(page.get_by_text("Logged out")).to_be_visible()

    TOTPDevice.objects.update(last_step=0)
    enter_password(page, server)
    expect(page.get_by_role("textbox", name="Code")).to_be_focused()
    page.keyboard.type(code_of(secret))
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{USERS}")


def test_the_codes_are_printed(page: Page, server: Server, boss: User) -> None:
    page.add_init_script("window.print = () => { document.title = 'printed'; }")
    enter_password(page, server)
    page.get_by_role("button", name="Add an authenticator app").click()
    page.get_by_role("textbox", name="Code").fill(
        code_of(page.locator("#secret").inner_text().replace(" ", ""))
    )
    page.get_by_role("button", name="Confirm").click()
    page.get_by_role("button", name="Print").click()

    assert page.title() == "printed"
    page.emulate_media(media="print")
    expect(page.locator(".codes")).to_be_visible()
    expect(page.get_by_role("button", name="Continue")).to_be_hidden()


def test_a_passkey_from_the_enrolment_to_its_removal(
    page: Page, server: Server, boss: User
) -> None:
    authenticator = VirtualAuthenticator(page)
    enter_password(page, server)
    page.get_by_role("button", name="Add a passkey").click()  # A name is required.
    expect(page.get_by_label("Name")).to_be_focused()
    page.get_by_label("Name").fill("Laptop")
    page.get_by_role("button", name="Add a passkey").click()
    expect(page.locator(".codes code")).to_have_count(10)
    page.get_by_label("I have saved these codes").check()
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Log out").click()

    enter_password(page, server)
    expect(page.locator("#passkey-error")).to_be_hidden()
    authenticator.verify_user(False)
    page.get_by_role("button", name="Use a passkey").click()
    expect(page.get_by_text("No passkey was used.")).to_be_visible()
    assert fits(page)
    authenticator.verify_user(True)
    page.get_by_role("button", name="Use a passkey").click()
    page.wait_for_url(f"**{USERS}")
    assert Passkey.objects.get().last_used_at is not None

    page.goto(f"http://localhost:{server.port}/admin/factors/")
    assert fits(page)
    page.get_by_label("Name").fill("Again")
    page.get_by_role("button", name="Add a passkey").click()
    expect(page.get_by_text("The passkey was not added.")).to_be_visible()
    page.get_by_role("button", name="Remove Laptop").click()
    expect(page.get_by_text("The second factor was removed.")).to_be_visible()
    expect(page.get_by_text("Add a second factor to use the console")).to_be_visible()


def test_a_passkey_by_keyboard(page: Page, server: Server, boss: User) -> None:
    VirtualAuthenticator(page)
    enter_password(page, server)
    page.get_by_label("Name").focus()
    page.keyboard.type("Laptop")
    press(page, "Add a passkey")
    expect(page.locator(".codes code")).to_have_count(10)
    page.context.clear_cookies()

    enter_password(page, server)
    expect(page.get_by_role("textbox", name="Code")).to_be_focused()
    press(page, "Use a passkey")
    page.wait_for_url(f"**{USERS}")


def test_a_factor_reset_is_begun_and_cancelled(page: Page, server: Server, boss: User) -> None:
    alice = User.objects.create_user("alice", "alice@example.com", PASSWORD)
    enrol(alice)
    secret, _ = enrol(boss)
    path = f"{USERS}{alice.pk}/change/"
    enter_password(page, server, path)
    page.get_by_role("textbox", name="Code").fill(code_of(secret))
    page.get_by_role("button", name="Log in").click()

    expect(page.locator("#factors")).to_contain_text("Authenticator app")
    assert fits(page)
    page.get_by_role("button", name="Begin factor reset").click()
    expect(page.locator("#factors")).to_contain_text("reset pending")
    page.get_by_role("button", name="Cancel factor reset").click()
    expect(page.locator("#factors")).not_to_contain_text("reset pending")
