"""The refresh token in a cookie (REFRESH_COOKIE)."""

import uuid
from typing import Any

import pytest
from pytest_django import DjangoAssertNumQueries, Settings

import config.settings
from accounts.models import Session, User
from conftest import API, PASSWORD
from tests.rig.cookies import (
    COOKIE,
    LISTED,
    OWN,
    Browser,
    assert_is_deleted,
    assert_is_in_the_cookie,
    assert_is_rejected,
    enable,
)
from tests.service.test_project import CLOSED, operations


@pytest.fixture(autouse=True)
def enabled(settings: Settings) -> None:
    enable(settings)


@pytest.fixture
def browser(user: User) -> Browser:
    browser = Browser()
    assert browser.login().status_code == 200
    return browser


def test_it_is_off_by_default() -> None:
    assert config.settings.REFRESH_COOKIE is False


class TestSetting:
    def test_a_login_that_asks_for_the_cookie_gets_it(self, user: User) -> None:
        response = Browser().login()

        assert_is_in_the_cookie(response)
        assert response.json().keys() == {
            *("access_token", "token_type", "expires_in", "refresh_expires_in", "user")
        }
        assert response.headers["Cache-Control"] == "no-store"

    @pytest.mark.parametrize("body", [{}, {"cookie": False}])
    def test_others_get_the_token_in_the_body(self, user: User, body: dict[str, Any]) -> None:
        login = {"identity": "alice", "password": PASSWORD}

        response = Browser().send("login", login | body)

        assert response.json()["refresh_token"]
        assert not response.cookies

    @pytest.mark.parametrize("odd", ["true", 1, None, [], {"a": 1}])
    def test_anything_but_true_and_false_is_rejected(self, user: User, odd: Any) -> None:
        response = Browser().login(cookie=odd)

        assert_is_rejected(response, 400, "validation_error")
        [error] = response.json()["errors"]
        assert (error["field"], error["code"]) == ("cookie", "null" if odd is None else "invalid")
        assert not Session.objects.exists()

    def test_a_reauthentication_moves_it_to_the_new_token(
        self, browser: Browser, user: User
    ) -> None:
        before = browser.token

        response = browser.send("reauthenticate", {"password": PASSWORD, "cookie": True})

        assert_is_in_the_cookie(response)
        assert browser.token != before
        assert browser.refresh().status_code == 200
        assert user.sessions.active().count() == 1

    def test_a_refresh_by_body_moves_the_token_into_the_cookie(self, user: User) -> None:
        browser = Browser(origin=None)
        token = browser.login(cookie=False).json()["refresh_token"]

        response = browser.refresh({"refresh_token": token, "cookie": True})

        assert_is_in_the_cookie(response)

    def test_over_http_in_development_it_has_another_name_and_is_not_secure(
        self, user: User, settings: Settings
    ) -> None:
        settings.DEBUG = True
        browser = Browser("http://testserver")

        assert_is_in_the_cookie(browser.login(secure=False), "refresh")
        assert_is_in_the_cookie(browser.refresh(secure=False), "refresh")
        # Over HTTPS it is the secure one, also in development.
        assert_is_in_the_cookie(browser.login())

    def test_outside_development_it_is_always_secure(self, user: User, settings: Settings) -> None:
        settings.DEBUG = False

        assert_is_in_the_cookie(Browser().login(secure=False))


class TestRefresh:
    def test_the_new_token_is_in_the_cookie(
        self, browser: Browser, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        first = browser.token

        with django_assert_num_queries(1):
            response = browser.refresh()

        assert_is_in_the_cookie(response)
        assert browser.token != first
        assert browser.get(f"{API}/users/me", secure=True).status_code == 200

    @pytest.mark.parametrize("cookie", [True, False])
    def test_it_is_never_in_the_body(self, browser: Browser, *, cookie: bool) -> None:
        assert_is_in_the_cookie(browser.refresh({"cookie": cookie}))

    @pytest.mark.parametrize(
        "origin",
        [LISTED, OWN, "https://api.example.com"],
        ids=["listed", "of the request", "of PUBLIC_URL"],
    )
    def test_an_allowed_origin_refreshes(self, browser: Browser, origin: str) -> None:
        browser.origin = origin

        assert_is_in_the_cookie(browser.refresh())

    @pytest.mark.parametrize(
        "origin",
        [
            *(None, "", "null", "https://evil.example", "https://sub.app.example.com"),
            *("http://testserver", "https://testserver:8443", "https://testserver/"),
            *("http://app.example.com", "https://app.example.com.evil.example", "*", "://"),
            *("https://api.example.com/base", f"{LISTED}, {OWN}"),
        ],
    )
    def test_any_other_origin_changes_nothing(
        self, browser: Browser, origin: str | None, user: User
    ) -> None:
        browser.origin = origin
        before = Session.objects.values().get()

        response = browser.refresh()

        assert_is_rejected(response, 403, "origin_not_allowed")
        assert not response.cookies
        assert Session.objects.values().get() == before

    def test_the_wildcard_allows_no_origin(self, browser: Browser, settings: Settings) -> None:
        settings.CORS_ALLOWED_ORIGINS, settings.CORS_ALLOW_ALL_ORIGINS = [], True
        browser.origin = LISTED

        assert_is_rejected(browser.refresh(), 403, "origin_not_allowed")

    def test_without_public_url_the_host_of_the_request_is_its_own(
        self, browser: Browser, settings: Settings
    ) -> None:
        settings.PUBLIC_URL = ""

        assert browser.refresh().status_code == 200
        assert_is_rejected(browser.refresh(HTTP_ORIGIN=""), 403, "origin_not_allowed")

    def test_behind_a_proxy_it_is_the_scheme_of_the_client(
        self, browser: Browser, settings: Settings
    ) -> None:
        settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
        headers = {"HTTP_X_FORWARDED_PROTO": "https", "HTTP_HOST": "testserver"}

        assert_is_in_the_cookie(browser.refresh(secure=False, **headers))

    def test_a_token_in_the_body_is_used_instead_of_the_cookie(
        self, browser: Browser, user: User
    ) -> None:
        kept = browser.token
        other = browser.login(cookie=False).json()["refresh_token"]

        response = browser.refresh({"refresh_token": other}, HTTP_ORIGIN="https://evil.example")

        assert response.json()["refresh_token"] not in {kept, other}
        assert not response.cookies
        assert browser.token == kept
        assert browser.refresh().status_code == 200

    @pytest.mark.parametrize("odd", [None, 7, ""])
    def test_an_odd_token_in_the_body_does_not_make_it_read_the_cookie(
        self, browser: Browser, odd: Any
    ) -> None:
        assert_is_rejected(browser.refresh({"refresh_token": odd}), 400, "validation_error")

    def test_without_a_cookie_it_is_a_request_without_a_token(self, user: User) -> None:
        response = Browser().refresh()

        assert_is_rejected(response, 401, "not_authenticated")
        assert response.json()["detail"] == "The request has no refresh token."
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert not response.cookies

    @pytest.mark.parametrize(
        "value",
        ["", "x", "a.b.c", "é", "\x00", '"', "%00", "e30.e30.", "x" * 2049, "x" * 60_000],
    )
    def test_a_malformed_cookie_is_rejected_and_deleted(self, user: User, value: str) -> None:
        response = Browser().refresh(HTTP_COOKIE=f"{COOKIE}={value}")

        assert_is_rejected(response, 401, "token_not_valid")
        assert_is_deleted(response)

    def test_an_access_token_in_the_cookie_is_rejected(self, browser: Browser) -> None:
        access = browser.refresh().json()["access_token"]

        response = browser.refresh(HTTP_COOKIE=f"{COOKIE}={access}")

        assert_is_rejected(response, 401, "token_not_valid")

    @pytest.mark.parametrize(
        "header",
        [
            "{0}={1}; {0}=other",
            "{0}=other; {0}={1}",
            "{0}={1}; {0}={1}",
            "{0}={1},{0}={1}",
        ],
    )
    def test_two_cookies_are_rejected(self, browser: Browser, user: User, header: str) -> None:
        response = browser.refresh(HTTP_COOKIE=header.format(COOKIE, browser.token))

        assert_is_rejected(response, 401, "token_not_valid")
        assert user.sessions.active().exists()

    @pytest.mark.parametrize(
        "header",
        ["refresh={1}", "x{0}={1}", "{0}x={1}", "={0}={1}", "a={0}={1}", "__host-refresh={1}"],
    )
    def test_a_cookie_of_another_name_is_not_read(self, browser: Browser, header: str) -> None:
        """Another host of the site can set one, in some browsers even one without a name."""
        response = browser.refresh(HTTP_COOKIE=header.format(COOKIE, browser.token))

        assert_is_rejected(response, 401, "not_authenticated")

    def test_other_cookies_do_not_matter(self, browser: Browser) -> None:
        header = f"sessionid=1; {COOKIE}={browser.token}; refresh=2; ; odd; =; x{COOKIE}=3"

        assert_is_in_the_cookie(browser.refresh(HTTP_COOKIE=header))


def test_the_schema_describes_the_cookie() -> None:
    described = operations()
    refresh = described["POST", "/auth/refresh"]

    assert [(p["name"], p["in"]) for p in refresh["parameters"]] == [(COOKIE, "cookie")]
    assert "403" in refresh["responses"]
    for path in ("/auth/login", "/auth/refresh", "/auth/reauthenticate"):
        assert "Set-Cookie" in described["POST", path]["responses"]["200"]["headers"]


def test_the_cookie_authenticates_no_other_route(browser: Browser, user: User) -> None:
    """Only what anyone may do without a token works with the cookie alone."""
    browser.credentials()
    cookie = browser.token

    for method, path in sorted(CLOSED):
        url = API + path.replace("{id}", "1" if "sessions" not in path else str(uuid.uuid4()))
        response = browser.generic(
            *(method, url, b"{}", "application/json"),
            secure=True,
            HTTP_ORIGIN=OWN,
            HTTP_COOKIE=f"{COOKIE}={cookie}; refresh={cookie}",
        )
        assert response.status_code == 401, (method, path)
