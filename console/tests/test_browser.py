"""The console in a browser, served by gunicorn."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import Group, Permission
from django.utils import timezone
from playwright.sync_api import Browser, ConsoleMessage, Page, expect
from pytest_django import Settings

from accounts.models import Event, Invitation, OutgoingEmail, User
from accounts.passwords import BoundedBCryptSHA256PasswordHasher
from conftest import API, PASSWORD
from tests.articles.models import Article
from tests.rig.browser import PHONE, chromium, needs_chromium
from tests.rig.client import Client
from tests.rig.gunicorn import Server, serve

SUPPORT = ["view_user", "view_session", "end_session", "view_event"]

pytestmark = [
    needs_chromium,
    pytest.mark.django_db(transaction=True),
    pytest.mark.heavy,
]


@pytest.fixture(scope="module")
def server(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("browser") / "log"
    with serve(log, AUTH_RATE_LIMIT="1000/m") as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A browser window; errors of the page and its scripts fail the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(described(line)) if is_error(line) else None)
    yield page
    context.close()
    assert not [error for error in errors if "429" not in error], errors


def described(line: ConsoleMessage) -> str:
    return f"{line.text} {line.location['url']}"


def is_error(line: ConsoleMessage) -> bool:
    """Tell whether a line is an error of a page, not a response that the page shows."""
    return line.type == "error" and not re.search(r"/api/|/favicon\.ico", line.location["url"])


@pytest.fixture
def users(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.PASSWORD_HASHERS = ["accounts.passwords.BoundedBCryptSHA256PasswordHasher"]
    monkeypatch.setattr(BoundedBCryptSHA256PasswordHasher, "rounds", 4)
    User.objects.create_superuser("boss", "boss@example.com", PASSWORD)
    susan = User.objects.create_user("susan", "susan@example.com", PASSWORD, is_staff=True)
    # Tests that commit remove the rows that migrations created.
    group, _ = Group.objects.get_or_create(name="Support")
    group.permissions.set(Permission.objects.filter(codename__in=SUPPORT))
    susan.groups.add(group)
    User.objects.create_user("alice", "alice@example.com", PASSWORD, names="Alice Archer")


def sign_in(page: Page, server: Server, name: str, password: str = PASSWORD) -> None:
    page.goto(f"http://127.0.0.1:{server.port}/admin/")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def status_of(device: Client) -> int:
    device.connection.close()  # The service may have closed it while the browser worked.
    return device.get(f"{API}/users/me").status


def test_support_ends_a_stolen_session(page: Page, server: Server, users: None) -> None:
    devices = [Client(server.port).sign_in("alice") for _ in range(3)]
    stolen = devices[1].get(f"{API}/auth/sessions").json["results"]
    number = next(session["id"] for session in stolen if session["current"])

    sign_in(page, server, "susan")
    page.get_by_role("link", name="Users", exact=True).click()
    page.locator("#searchbar").fill("archer")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name="alice", exact=True).click()
    expect(page.get_by_role("heading", name="Signed in on 3 devices")).to_be_visible()
    page.locator(f"form[action*='{number}'] button").click()

    expect(page.get_by_text("1 session ended.")).to_be_visible()
    expect(page.get_by_role("heading", name="Signed in on 2 devices")).to_be_visible()
    expect(page.locator("#events")).to_contain_text("by susan")
    statuses = [status_of(device) for device in devices]
    assert statuses == [200, 401, 200]
    assert Event.objects.filter(actor="susan", session_id=number, detail="staff").count() == 1


def test_actions_without_permission_are_not_shown(page: Page, server: Server, users: None) -> None:
    sign_in(page, server, "susan")
    expect(page.get_by_text("Active sessions")).to_be_visible()
    assert page.get_by_role("link", name="Products").count() == 0
    page.goto(
        f"http://127.0.0.1:{server.port}/admin/accounts/user/{User.objects.get(username='alice').pk}/change/"
    )

    for offer in ("Deactivate", "Force a password change", "Save"):
        assert page.get_by_role("button", name=offer).count() == 0
    assert page.locator("input[name=email]").count() == 0


def test_the_first_page_counts_events(page: Page, users: None, tmp_path: Path) -> None:
    with serve(tmp_path / "log") as server:  # The page may be ten seconds old.
        for _ in range(2):
            Client(server.port).sign_in("alice")
        wrong = {"identity": "alice", "password": "wrong"}
        Client(server.port).post(f"{API}/auth/login", wrong)

        sign_in(page, server, "boss")

        shown = {
            label: page.locator(".number", has_text=label).locator("b").inner_text()
            for label in (
                "Active sessions",
                "Users signed in",
                "Sign-ins",
                "Rejected",
                "New accounts",
            )
        }
        assert shown == {
            "Active sessions": "2",
            "Users signed in": "1",
            "Sign-ins": "3",  # including the console's
            "Rejected": "1",
            "New accounts": "3",
        }
        assert page.locator("svg.plot").count() == 2
        page.locator(".number", has_text="Rejected").click()
        expect(page.locator("#result_list")).to_contain_text("wrong password")


def test_all_sessions_end_after_a_confirmation(page: Page, server: Server, users: None) -> None:
    devices = [Client(server.port).sign_in("alice") for _ in range(2)]
    sign_in(page, server, "susan")
    page.goto(f"http://127.0.0.1:{server.port}/admin/accounts/session/?state=active")
    page.locator("#result_list .action-select").first.check()
    page.get_by_label("Action:").select_option("end_all_of_users")
    page.get_by_role("button", name="Go").click()
    expect(page.get_by_role("heading", name="End 2 sessions of 1 user?")).to_be_visible()
    assert devices[0].get(f"{API}/users/me").status == 200
    page.get_by_role("button", name="End them").click()

    expect(page.get_by_text("2 sessions ended.")).to_be_visible()
    assert [status_of(device) for device in devices] == [401, 401]


def test_the_sign_in_is_limited_to_five_attempts(page: Page, users: None, tmp_path: Path) -> None:
    with serve(tmp_path / "log") as strict:
        for _ in range(5):
            sign_in(page, strict, "boss", "wrong")
            expect(page.locator(".errornote")).to_be_visible()
        sign_in(page, strict, "boss")

        expect(page.get_by_role("heading", name="Too Many Requests")).to_be_visible()


def test_a_form_that_was_left_open_changes_only_what_was_typed(
    page: Page, server: Server, users: None
) -> None:
    text = "\n  a\n\nb \n"
    owner = User.objects.get(username="alice")
    article = Article.objects.create(owner=owner, title="Lamp", description=text, amount=1)
    sign_in(page, server, "boss")
    page.goto(f"http://127.0.0.1:{server.port}/admin/articles/article/{article.pk}/change/")
    Article.objects.update(amount=7)
    page.get_by_label("Title").fill("Desk lamp")
    page.get_by_role("button", name="Save", exact=True).click()

    expect(page.get_by_text("was changed successfully")).to_be_visible()
    article.refresh_from_db()
    assert (article.title, article.amount, article.description) == ("Desk lamp", 7, text)


def test_staff_choose_a_new_password_before_they_sign_in(
    page: Page, server: Server, users: None
) -> None:
    User.objects.filter(username="susan").update(must_change_password=True)
    sign_in(page, server, "susan")
    expect(page.get_by_text("must be changed before you sign in")).to_be_visible()
    new = "a rainy night in June"
    page.get_by_label("New password:", exact=True).fill(new)
    page.get_by_label("New password confirmation").fill(new)
    page.get_by_role("button", name="Change password").click()

    expect(page.get_by_text("Your password was changed.")).to_be_visible()
    sign_in(page, server, "susan", new)
    expect(page.get_by_text("Active sessions")).to_be_visible()


def test_staff_send_a_reset_link_and_send_a_failed_email_again(
    page: Page, server: Server, users: None
) -> None:
    alice = User.objects.get(username="alice")
    failed = {"error": "550 5.1.1 no such user", "failed_at": timezone.now()}
    OutgoingEmail.objects.create(kind="new_device", user=alice, address=alice.email, **failed)
    sign_in(page, server, "boss")
    page.goto(f"http://127.0.0.1:{server.port}/admin/accounts/user/{alice.pk}/change/")
    expect(page.locator("#emails")).to_contain_text("550 5.1.1 no such user")
    page.get_by_role("button", name="Send reset link").click()
    expect(page.get_by_text("1 email queued.")).to_be_visible()
    expect(page.locator("#emails tbody tr, #emails tr").filter(has_text="Reset")).to_be_visible()

    page.get_by_role("link", name="All emails").click()
    page.get_by_role("link", name="failed", exact=True).click()
    page.locator("#result_list .action-select").check()
    page.get_by_label("Action:").select_option("retry")
    page.get_by_role("button", name="Go").click()

    expect(page.get_by_text("1 email due now.")).to_be_visible()
    assert OutgoingEmail.objects.due().count() == 2


def invite(page: Page, server: Server, address: str) -> str:
    """Send an invitation, with the keyboard alone, and return the link of its email."""
    page.goto(f"http://127.0.0.1:{server.port}/admin/accounts/user/")
    page.get_by_role("link", name="Add user").press("Enter")
    page.get_by_label("Email address").focus()
    page.keyboard.type(address)
    page.keyboard.press("Enter")
    expect(page.get_by_text(f"An invitation to {address} is queued.")).to_be_visible()
    token = Invitation.objects.get(address=address, expires_at__gt=timezone.now()).token
    return f"http://127.0.0.1:{server.port}/account/invite#token={token}"


@pytest.mark.parametrize("way", ["mouse", "keyboard"])
def test_staff_invite_a_user_who_registers(
    page: Page, server: Server, users: None, way: str
) -> None:
    """The service has REGISTRATION=open; tests/service/test_pages.py has the other value."""
    sign_in(page, server, "boss")
    page.goto(invite(page, server, "bob@example.com"))
    for label, text in {"Username": "bob", "Password": PASSWORD}.items():
        if way == "mouse":
            page.get_by_label(label).click()
        else:
            page.keyboard.press("Tab")
        expect(page.get_by_label(label)).to_be_focused()
        page.keyboard.type(text)
    if way == "mouse":
        page.get_by_role("button").click()
    else:
        page.keyboard.press("Enter")

    expect(page.get_by_role("alert")).to_contain_text("Your account is created")
    me = Client(server.port).sign_in("bob").get(f"{API}/users/me").json
    assert (me["email"], me["email_verified"]) == ("bob@example.com", True)
    page.goto(f"http://127.0.0.1:{server.port}/admin/accounts/invitation/")
    expect(page.locator("#result_list tbody tr")).to_contain_text("accepted")


@pytest.mark.parametrize("way", ["mouse", "keyboard"])
def test_staff_withdraw_an_invitation(page: Page, server: Server, users: None, way: str) -> None:
    sign_in(page, server, "boss")
    link = invite(page, server, "bob@example.com")
    row = page.locator("#result_list tbody tr")
    expect(row).to_contain_text("pending")
    expect(row).to_contain_text("boss")
    box, go = row.locator(".action-select"), page.get_by_role("button", name="Go")
    if way == "mouse":
        box.click()
        page.get_by_label("Action:").select_option("withdraw")
        go.click()
    else:
        box.press("Space")
        page.get_by_label("Action:").press("W")
        go.press("Enter")

    expect(page.get_by_text("1 invitation withdrawn.")).to_be_visible()
    expect(row).to_contain_text("ended")
    page.goto(link)
    page.get_by_label("Username").fill("bob")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button").click()
    expect(page.get_by_role("alert")).to_contain_text("This link is no longer valid")
    assert not User.objects.filter(username="bob").exists()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_wider_than_the_screen(
    page: Page, server: Server, users: None, scheme: str
) -> None:
    Client(server.port).sign_in("alice")
    alice = User.objects.get(username="alice")
    error = f"550 5.1.1 {'a' * 150}"
    OutgoingEmail.objects.create(
        kind="new_device", user=alice, address=alice.email, error=error, failed_at=timezone.now()
    )
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(PHONE)
    sign_in(page, server, "boss")

    Invitation.objects.send(f"{'b' * 60}@example.com")
    for path in ("", f"accounts/user/{alice.pk}/change/", "accounts/user/add/"):
        page.goto(f"http://127.0.0.1:{server.port}/admin/{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(13, 18, 29)") == (scheme == "dark")
