"""The pages that emailed links lead to, in a real browser."""

import json
import re
import runpy
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client as DjangoClient
from playwright.sync_api import Browser, Page, Route, expect
from pytest_django import Settings

from config import urls
from tests.rig.browser import PHONE, chromium, needs_chromium
from tests.rig.gunicorn import Server, serve

TOKEN = "abcdefghijklmnopqrstuvwxyz0123456789_-ABCDE"
PAGES = ["reset-password", "verify-email", "register", "invite"]
FIELDS = {
    "reset-password": {"New password": "a sunny day in June"},
    "verify-email": {"Username or email address": "alice", "Password": "a sunny day in May"},
    "register": {"Username": "alice", "Password": "a sunny day in May"},
    "invite": {"Username": "alice", "Password": "a sunny day in May"},
}
DONE = {
    "reset-password": "Your password is changed",
    "verify-email": "Your email address is confirmed",
    "register": "Your account is created",
    "invite": "Your account is created",
}
CALLS = {
    "reset-password": [("/auth/password/reset", {"token": TOKEN, "new_password": "…"})],
    "verify-email": [
        ("/auth/login", {"identity": "alice", "password": "…"}),
        ("/users/me/email/verify", {"token": TOKEN}),
        ("/auth/logout", {}),
    ],
    "register": [("/users", {"registration_token": TOKEN, "username": "alice", "password": "…"})],
    "invite": [("/users", {"registration_token": TOKEN, "username": "alice", "password": "…"})],
}


class API:
    """What the browser's requests to the API get, and what they were."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.bearers: list[str | None] = []
        self.replies: dict[str, tuple[int, Any]] = {
            "/auth/password/reset": (204, None),
            "/auth/login": (200, {"access_token": "the-access-token"}),
            "/users/me/email/verify": (200, {}),
            "/auth/logout": (204, None),
            "/users": (201, {}),
        }

    def reply(self, route: Route) -> None:
        path = route.request.url.partition("/api/v1")[2]
        assert route.request.method == "POST"
        assert route.request.headers["content-type"] == "application/json"
        self.calls.append((path, json.loads(route.request.post_data or "")))
        self.bearers.append(route.request.headers.get("authorization"))
        status, body = self.replies[path]
        if status == 0:
            route.abort()
        else:
            text = "" if body is None else json.dumps(body)
            route.fulfill(status=status, body=text, content_type="application/json")

    def refuse(self, path: str, *errors: tuple[str | None, str, str], status: int = 400) -> None:
        fields = [{"field": f, "code": code, "detail": text} for f, code, text in errors]
        self.replies[path] = (status, {"detail": "1 field needs attention.", "errors": fields})


@pytest.fixture(scope="module")
def server(
    django_db_setup: None, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with (
        django_db_blocker.unblock(),
        serve(tmp_path_factory.mktemp("pages") / "log") as server,
    ):
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def api() -> API:
    return API()


@pytest.fixture
def page(browser: Browser, server: Server, api: API) -> Iterator[Page]:
    """A window that reaches the service alone, and in which nothing goes wrong in silence."""
    origin = f"http://127.0.0.1:{server.port}"
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    errors: list[str] = []
    requests: list[Any] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    page.on("request", lambda request: requests.append((request.url, request.headers)))
    page.route("**/api/v1/**", api.reply)
    page.base = f"{origin}/account"
    yield page
    context.close()
    # The browser reports a status of 400 or above, or a connection that failed, on its own.
    assert not [error for error in errors if "Failed to load resource" not in error], errors
    for url, headers in requests:
        assert url.startswith(origin)
        assert TOKEN not in url.partition("#")[0]
        assert "referer" not in headers


def visit(page: Page, name: str) -> None:
    page.goto(f"{page.base}/{name}#token={TOKEN}")


def masked(calls: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    hidden = {"password", "new_password"}
    return [(path, {k: "…" if k in hidden else v for k, v in b.items()}) for path, b in calls]


@needs_chromium
@pytest.mark.parametrize("name", PAGES)
class TestEveryPage:
    def test_it_works_with_the_mouse(self, page: Page, api: API, name: str) -> None:
        visit(page, name)
        for label, value in FIELDS[name].items():
            page.get_by_label(label).click()
            page.get_by_label(label).fill(value)
        page.get_by_role("button").click()

        expect(page.get_by_role("alert")).to_contain_text(DONE[name])
        expect(page.locator("form")).to_be_hidden()
        assert masked(api.calls) == CALLS[name]
        assert list(FIELDS[name].values())[-1] in str(api.calls)

    def test_it_works_with_the_keyboard_alone(self, page: Page, api: API, name: str) -> None:
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
        assert masked(api.calls) == CALLS[name]

    def test_the_token_leaves_the_address_bar(self, page: Page, name: str) -> None:
        visit(page, name)

        expect(page.locator("form")).to_be_visible()
        assert page.url == f"{page.base}/{name}"
        assert page.evaluate("history.length") <= 2
        assert TOKEN not in page.content()

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_it_fits_a_phone(self, page: Page, name: str, scheme: str) -> None:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size(PHONE)
        visit(page, name)

        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(13, 18, 29)") == (scheme == "dark")
        assert page.get_by_role("button").bounding_box()["height"] >= 44

    def test_a_scanner_that_presses_every_button_changes_nothing(
        self, page: Page, api: API, name: str
    ) -> None:
        visit(page, name)
        page.get_by_role("button").click()
        page.evaluate("document.querySelector('form').requestSubmit()")

        expect(page.locator(".error").first).to_have_text("This field is required.")
        expect(page.locator("input").first).to_be_focused()
        assert api.calls == []

    def test_a_link_without_its_token_says_so(self, page: Page, api: API, name: str) -> None:
        for fragment in ("", "#", "#token=", "#other=x"):
            page.goto("about:blank")
            page.goto(f"{page.base}/{name}{fragment}")
            expect(page.get_by_role("alert")).to_contain_text("This link is incomplete.")
            expect(page.locator("form")).to_be_hidden()

    def test_a_link_that_is_no_longer_valid_says_so(self, page: Page, api: API, name: str) -> None:
        path = CALLS[name][min(1, len(CALLS[name]) - 1)][0]
        field = "registration_token" if path == "/users" else "token"
        api.refuse(path, (field, "ticket_not_valid", "Not valid."))
        submit(page, name)

        expect(page.get_by_role("alert")).to_contain_text("This link is no longer valid.")
        expect(page.locator("form")).to_be_hidden()

    def test_a_limit_is_told(self, page: Page, api: API, name: str) -> None:
        api.replies[CALLS[name][0][0]] = (429, {"detail": "Too many requests.", "code": "x"})
        submit(page, name)

        expect(page.get_by_role("alert")).to_have_text("Too many requests.")
        expect(page.get_by_role("button")).to_be_enabled()

    def test_a_service_that_cannot_be_reached_is_told(
        self, page: Page, api: API, name: str
    ) -> None:
        api.replies[CALLS[name][0][0]] = (0, None)
        submit(page, name)
        expect(page.get_by_role("alert")).to_contain_text("cannot be reached")

        api.replies[CALLS[name][0][0]] = (502, None)
        page.get_by_role("button").click()
        expect(page.get_by_role("alert")).to_contain_text("cannot be reached")


def submit(page: Page, name: str) -> None:
    visit(page, name)
    for label, value in FIELDS[name].items():
        page.get_by_label(label).fill(value)
    page.get_by_role("button").click()


@needs_chromium
def test_an_error_of_a_field_is_told_there(page: Page, api: API) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    api.refuse("/users", ("username", "unique", "Taken."), ("password", "too_short", hostile))
    submit(page, "register")

    for label, text in (("Username", "Taken."), ("Password", hostile)):
        field = page.get_by_label(label)
        expect(field).to_have_attribute("aria-invalid", "true")
        expect(field).to_have_accessible_description(text)
    expect(page.get_by_label("Username")).to_be_focused()
    expect(page.locator("#message")).to_be_hidden()

    api.refuse("/users", (None, "invalid", "The whole is wrong."))
    page.get_by_role("button").click()
    expect(page.get_by_role("alert")).to_have_text("The whole is wrong.")
    expect(page.get_by_label("Username")).to_have_attribute("aria-invalid", "false")


@needs_chromium
def test_the_session_for_a_verification_is_ended_whatever_happens(page: Page, api: API) -> None:
    api.refuse("/users/me/email/verify", ("token", "unique", "The address is taken."))
    api.replies["/auth/logout"] = (503, {"detail": "Unavailable."})
    submit(page, "verify-email")

    expect(page.get_by_role("alert")).to_have_text("The address is taken.")
    assert [path for path, _ in api.calls][-1] == "/auth/logout"
    assert api.bearers == [None, "Bearer the-access-token", "Bearer the-access-token"]


@needs_chromium
def test_wrong_credentials_verify_nothing(page: Page, api: API) -> None:
    api.replies["/auth/login"] = (401, {"detail": "The identity or the password is wrong."})
    submit(page, "verify-email")

    expect(page.get_by_role("alert")).to_have_text("The identity or the password is wrong.")
    assert [path for path, _ in api.calls] == ["/auth/login"]


@pytest.mark.parametrize("name", PAGES)
def test_headers(name: str) -> None:
    response = DjangoClient().get(f"/account/{name}")

    policy = response["Content-Security-Policy"]
    assert set(re.findall(r"'[^']+'|https?:\S+|data:", policy)) == {"'self'", "'none'"}
    assert "script-src 'self'" in policy
    assert response["Referrer-Policy"] == "no-referrer"
    assert response["Cache-Control"] == "no-store"
    assert not response.cookies
    html = response.content.decode()
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
