"""The pages that emailed links lead to, in a real browser and against the real service."""

import contextlib
import json
import re
import runpy
from collections.abc import Iterator
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client as DjangoClient
from playwright.sync_api import Browser, Page, Route, expect
from pytest_django import Settings

from accounts.models import Event, OutgoingEmail, Session, Ticket, User
from config import urls
from conftest import PASSWORD, find_tickets
from tests.rig.browser import PHONE, chromium, needs_chromium
from tests.rig.factors import enrol, wrong_code_of
from tests.rig.gunicorn import Server, serve
from tests.rig.smtp import use_mailer

NEW = "a rainy night in June"
PAGES = ["reset-password", "verify-email", "register", "invite"]
FIELDS = {
    "reset-password": {"New password": NEW},
    "verify-email": {"Username or email address": "alice", "Password": PASSWORD},
    "register": {"Username": "bob", "Password": NEW},
    "invite": {"Username": "bob", "Password": NEW},
}
DONE = {
    "reset-password": "Your password is changed",
    "verify-email": "Your email address is confirmed",
    "register": "Your account is created",
    "invite": "Your account is created",
}
CALLS = {
    "reset-password": ["/auth/password/reset"],
    "verify-email": ["/auth/login", "/users/me/email/verify", "/auth/logout"],
    "register": ["/users"],
    "invite": ["/users"],
}


@pytest.fixture(scope="module")
def server(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("pages") / "log"
    variables = {"REGISTRATION": "verified", "REFRESH_COOKIE": "true"}
    with serve(log, AUTH_RATE_LIMIT="1000/m", **variables) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def tickets(alice: User) -> dict[str, Ticket]:
    """A ticket for each page."""
    reset = Ticket.objects.issue(Ticket.Purpose.RESET, alice, address=alice.email)
    verify = Ticket.objects.issue(Ticket.Purpose.VERIFY, alice, address=alice.email)
    register = Ticket.objects.issue(Ticket.Purpose.REGISTER, address="bob@example.com")
    invite = Ticket.objects.issue(Ticket.Purpose.INVITE, address="bob@example.com")
    return dict(zip(PAGES, [reset, verify, register, invite], strict=True))


@contextlib.contextmanager
def window(browser: Browser, port: int) -> Iterator[Page]:
    """A window in which nothing fails in silence, and which requests nothing of another host."""
    origin = f"http://127.0.0.1:{port}"
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    errors: list[str] = []
    requests: list[Any] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    page.on("request", lambda request: requests.append(request))
    page.base, page.sent = f"{origin}/account", requests
    yield page
    context.close()
    # The browser reports a status of 400 or above, or a connection that failed, on its own.
    assert not [error for error in errors if "Failed to load resource" not in error], errors
    for request in requests:
        assert request.url.startswith(origin)
        assert not find_tickets(request.url.partition("#")[0])
        assert not request.headers.get("referer")


@pytest.fixture
def page(browser: Browser, server: Server, tickets: dict[str, Ticket]) -> Iterator[Page]:
    with window(browser, server.port) as page:
        page.tickets = tickets
        yield page


def visit(page: Page, name: str) -> None:
    page.goto(f"{page.base}/{name}#token={page.tickets[name].token}")


def submit(page: Page, name: str, **fields: str) -> None:
    visit(page, name)
    for label, value in (FIELDS[name] | fields).items():
        page.get_by_label(label).fill(value)
    page.get_by_role("button").click()


def calls(page: Page) -> list[str]:
    """Return the routes of the API that the page has called, each with JSON."""
    posts = [request for request in page.sent if "/api/v1" in request.url]
    assert all(request.method == "POST" for request in posts)
    assert all(json.loads(request.post_data or "") is not None for request in posts)
    return [request.url.partition("/api/v1")[2] for request in posts]


def assert_effect(name: str) -> None:
    """Assert that a page has done what it says, and has left nobody signed in."""
    username = "bob" if name in {"register", "invite"} else "alice"
    user = User.objects.get(username=username)
    assert user.email_verified
    assert user.check_password(PASSWORD if name == "verify-email" else NEW)
    assert not Session.objects.active().exists()


def state() -> list[Any]:
    """Return everything that a link could change."""
    models = [User, Session, Ticket, OutgoingEmail, Event]
    return [list(model._default_manager.order_by("pk").values()) for model in models]


@needs_chromium
def test_a_page_leaves_the_session_of_a_front_end_on_this_host(page: Page) -> None:
    visit(page, "verify-email")
    status = page.evaluate(
        """(body) => fetch("/api/v1/auth/login", {
            method: "POST", body: JSON.stringify(body),
            headers: { "Content-Type": "application/json" },
        }).then((response) => response.status)""",
        {"identity": "alice", "password": PASSWORD, "cookie": True},
    )
    before = page.context.cookies()
    assert (status, [cookie["name"] for cookie in before]) == (200, ["refresh"])

    submit(page, "verify-email")

    expect(page.get_by_role("alert")).to_contain_text(DONE["verify-email"])
    assert page.context.cookies() == before
    assert Session.objects.active().count() == 1


@needs_chromium
@pytest.mark.parametrize("name", PAGES)
class TestEveryPage:
    def test_it_works_with_the_mouse(self, page: Page, name: str) -> None:
        visit(page, name)
        for label, value in FIELDS[name].items():
            page.get_by_label(label).click()
            page.get_by_label(label).fill(value)
        page.get_by_role("button").click()

        expect(page.get_by_role("alert")).to_contain_text(DONE[name])
        expect(page.locator("form")).to_be_hidden()
        assert calls(page) == CALLS[name]
        assert_effect(name)

    def test_it_works_with_the_keyboard_alone(self, page: Page, name: str) -> None:
        visit(page, name)
        for label, value in FIELDS[name].items():
            page.keyboard.press("Tab")
            expect(page.get_by_label(label)).to_be_focused()
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid"
            page.keyboard.type(value)
        page.keyboard.press("Tab")
        expect(page.get_by_role("button")).to_be_focused()
        page.keyboard.press("Enter")

        expect(page.get_by_role("alert")).to_contain_text(DONE[name])
        expect(page.get_by_role("alert")).to_be_focused()
        assert_effect(name)

    def test_the_token_leaves_the_address_bar(self, page: Page, name: str) -> None:
        visit(page, name)

        expect(page.locator("form")).to_be_visible()
        assert page.url == f"{page.base}/{name}"
        assert page.evaluate("history.length") <= 2
        assert page.tickets[name].token not in page.content()

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_it_fits_a_phone(self, page: Page, name: str, scheme: str) -> None:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size(PHONE)
        visit(page, name)

        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(13, 18, 29)") == (scheme == "dark")
        assert page.get_by_role("button").bounding_box()["height"] >= 44

    def test_an_empty_form_is_not_sent(self, page: Page, name: str) -> None:
        before = state()
        visit(page, name)
        page.get_by_role("button").click()
        page.evaluate("document.querySelector('form').requestSubmit()")

        expect(page.locator(".error").first).to_have_text("This field is required.")
        expect(page.locator("input").first).to_be_focused()
        assert calls(page) == []
        assert state() == before

    def test_a_link_without_its_token_says_so(self, page: Page, name: str) -> None:
        for fragment in ("", "#", "#token=", "#other=x"):
            page.goto("about:blank")
            page.goto(f"{page.base}/{name}{fragment}")
            expect(page.get_by_role("alert")).to_contain_text("This link is incomplete.")
            expect(page.locator("form")).to_be_hidden()

    def test_a_link_that_was_used_says_so(self, page: Page, name: str) -> None:
        page.tickets[name].use()
        submit(page, name)

        expect(page.get_by_role("alert")).to_contain_text("This link is no longer valid.")
        expect(page.locator("form")).to_be_hidden()
        assert not Session.objects.active().exists()

    def test_a_service_that_cannot_be_reached_is_reported(self, page: Page, name: str) -> None:
        page.route("**/api/v1/**", lambda route: route.abort())
        submit(page, name)
        expect(page.get_by_role("alert")).to_contain_text("cannot be reached")

        page.unroute_all()
        page.route("**/api/v1/**", lambda route: route.fulfill(status=502))
        page.get_by_role("button").click()
        expect(page.get_by_role("alert")).to_contain_text("cannot be reached")


@needs_chromium
def test_a_limit_is_reported(browser: Browser, tickets: dict[str, Ticket], tmp_path: Path) -> None:
    with (
        serve(tmp_path / "log", REGISTRATION="verified", AUTH_RATE_LIMIT="1/m") as server,
        window(browser, server.port) as page,
    ):
        page.tickets = tickets
        for name in PAGES[:3]:
            server.post(CALLS[name][0], {})
            submit(page, name)

            expect(page.get_by_role("alert")).to_contain_text("rate limit is exceeded")
            expect(page.get_by_role("button")).to_be_enabled()


@needs_chromium
def test_an_error_of_a_field_is_shown_at_the_field(page: Page) -> None:
    submit(page, "register", Username="al", Password="short")

    for label, text in (("Username", "at least 3"), ("Password", "at least 8")):
        field = page.get_by_label(label)
        expect(field).to_have_attribute("aria-invalid", "true")
        expect(field).to_have_accessible_description(re.compile(text))
    expect(page.get_by_label("Username")).to_be_focused()
    expect(page.locator("#message")).to_be_hidden()

    page.get_by_label("Username").fill("ALICE")
    page.get_by_label("Password").fill(NEW)
    page.get_by_role("button").click()
    username = page.get_by_label("Username")
    expect(username).to_have_accessible_description(re.compile("already exists"))
    expect(page.get_by_label("Password")).to_have_attribute("aria-invalid", "false")

    username.fill("bob")
    page.get_by_role("button").click()
    expect(page.get_by_role("alert")).to_contain_text(DONE["register"])
    assert_effect("register")


@needs_chromium
def test_a_text_of_the_service_is_no_markup(page: Page) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    errors = [{"field": field, "code": "x", "detail": hostile} for field in ("username", None)]

    def respond(route: Route) -> None:
        route.fulfill(status=400, json={"detail": hostile, "errors": errors})

    page.route("**/api/v1/**", respond)
    submit(page, "register")

    expect(page.get_by_role("alert")).to_have_text(hostile)
    expect(page.get_by_label("Username")).to_have_accessible_description(hostile)


@needs_chromium
def test_a_verification_that_fails_leaves_no_session(page: Page, make_user: Any) -> None:
    make_user("mallory")
    submit(page, "verify-email", **{"Username or email address": "mallory"})

    expect(page.get_by_role("alert")).to_contain_text("This link is no longer valid.")
    assert calls(page) == CALLS["verify-email"]
    assert not Session.objects.active().exists()
    assert not User.objects.filter(email_verified_at__isnull=False).exists()


@needs_chromium
def test_a_sign_out_that_fails_undoes_no_verification(page: Page) -> None:
    page.route("**/auth/logout", lambda route: route.abort())
    submit(page, "verify-email")

    expect(page.get_by_role("alert")).to_contain_text(DONE["verify-email"])
    assert User.objects.get(username="alice").email_verified


@needs_chromium
def test_wrong_credentials_verify_nothing(page: Page) -> None:
    submit(page, "verify-email", Password="something else")

    expect(page.get_by_role("alert")).to_have_text("The identity or the password is incorrect.")
    assert calls(page) == ["/auth/login"]
    assert not User.objects.get(username="alice").email_verified


@needs_chromium
def test_a_second_factor_completes_a_verification(page: Page, alice: User) -> None:
    secret, codes = enrol(alice)
    submit(page, "verify-email")
    alert, code = page.get_by_role("alert"), page.get_by_label("Code")
    expect(alert).to_contain_text("Enter a code")
    expect(page.get_by_label("Password")).to_be_hidden()

    page.get_by_role("button").click()
    expect(code).to_have_accessible_description("This field is required.")
    code.fill(wrong_code_of(secret))
    page.get_by_role("button").click()
    expect(alert).to_contain_text("The code is wrong")
    code.fill(codes[0])
    page.get_by_role("button").click()

    expect(alert).to_contain_text(DONE["verify-email"])
    assert_effect("verify-email")


@needs_chromium
def test_a_verification_begins_again_after_five_wrong_codes(page: Page, alice: User) -> None:
    secret, _ = enrol(alice)
    submit(page, "verify-email")
    for _ in range(5):
        page.get_by_label("Code").fill(wrong_code_of(secret))
        page.get_by_role("button").click()
        expect(page.get_by_role("alert")).to_contain_text("The code is wrong")
    page.get_by_role("button").click()

    expect(page.get_by_role("alert")).to_contain_text("Enter your password again.")
    expect(page.get_by_label("Password")).to_be_visible()
    expect(page.get_by_label("Code")).to_be_hidden()


@needs_chromium
def test_a_scanner_of_every_email_changes_nothing(
    browser: Browser, server: Server, alice: User, settings: Settings, tmp_path: Path
) -> None:
    """It opens every link, follows redirects, runs scripts and presses every button."""
    use_mailer(settings, f"filemail://{tmp_path}/mail")
    settings.PUBLIC_URL = f"http://127.0.0.1:{server.port}"
    emails, kinds = OutgoingEmail.objects, OutgoingEmail.Kind
    for kind in (kinds.VERIFY_EMAIL, kinds.RESET_PASSWORD, kinds.CONFIRM_EMAIL):
        emails.enqueue(kind, alice)
    emails.enqueue(kinds.EMAIL_CHANGED, alice, address="former@example.com", with_undo=True)
    emails.enqueue_entered(kinds.REGISTRATION, "bob@example.com", client_address="192.0.2.1")
    call_command("mailworker", "--once", verbosity=0)
    links = {
        link
        for path in (tmp_path / "mail").iterdir()
        for part in message_from_bytes(path.read_bytes(), policy=policy.default).walk()
        if part.get_content_maintype() == "text"
        for link in re.findall(r"https?://[^\s\"<>]+", part.get_content())
    }
    before = state()

    with window(browser, server.port) as page:
        for link in sorted(links):
            server.request("HEAD", link.partition(str(server.port))[2].partition("#")[0])
            page.goto("about:blank")
            page.goto(link)
            page.wait_for_load_state("networkidle")
            for button in page.get_by_role("button").all():
                button.click()
            page.evaluate("document.querySelectorAll('form').forEach((f) => f.requestSubmit())")
            page.wait_for_load_state("networkidle")

    assert len(find_tickets("\n".join(links))) == len(links) == 5
    assert state() == before


@pytest.mark.parametrize("name", PAGES)
def test_headers(name: str) -> None:
    response = DjangoClient().get(f"/account/{name}")

    policy = response["Content-Security-Policy"]
    directives = dict(directive.split() for directive in policy.split("; "))
    assert set(directives.values()) == {"'self'", "'none'"}
    assert (directives["default-src"], directives["script-src"]) == ("'none'", "'self'")
    assert response["Referrer-Policy"] == "no-referrer"
    assert response["Cache-Control"] == "no-store"
    assert not response.cookies
    html = response.content.decode()
    assert html.count("<script") == 1
    assert not re.search(r"<script(?![^>]*src=)|<style|\bon\w+=|style=", html)


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_a_page_takes_nothing(method: str) -> None:
    response = getattr(DjangoClient(), method)("/account/reset-password")

    assert response.status_code == 405


def test_a_front_end_replaces_the_pages(settings: Settings) -> None:
    for url, has_pages in (("", True), ("https://app.example.com", False)):
        settings.FRONTEND_URL = url
        patterns = runpy.run_path(urls.__file__)["urlpatterns"]
        assert any(str(pattern.pattern) == "account/" for pattern in patterns) == has_pages
