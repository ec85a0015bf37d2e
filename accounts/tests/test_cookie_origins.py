"""CORS with REFRESH_COOKIE: which pages may send the cookie, and where."""

import pytest
from pytest_django import Settings

from accounts.models import User
from conftest import API
from tests.rig.cookies import LISTED, OWN, Browser, enable


@pytest.fixture(autouse=True)
def enabled(settings: Settings) -> None:
    enable(settings)


@pytest.fixture
def browser(user: User) -> Browser:
    browser = Browser()
    assert browser.login().status_code == 200
    return browser


class TestCors:
    PATHS = ("auth/login", "auth/refresh", "auth/sessions", "auth/password/forgot", "auth/nothing")

    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize("method", ["options", "post", "get"])
    def test_a_listed_origin_may_send_credentials_to_auth(
        self, browser: Browser, path: str, method: str
    ) -> None:
        send = getattr(browser, method)

        response = send(f"{API}/{path}", secure=True, HTTP_ORIGIN=LISTED)

        assert response.headers["Access-Control-Allow-Credentials"] == "true"
        assert response.headers["Access-Control-Allow-Origin"] == LISTED
        assert "origin" in response.headers["Vary"].lower()

    @pytest.mark.parametrize("path", ["users/me", "users", "auth", "authx/"])
    def test_nowhere_else(self, browser: Browser, path: str) -> None:
        for method in (browser.options, browser.get):
            response = method(f"{API}/{path}", secure=True, HTTP_ORIGIN=LISTED)

            assert "Access-Control-Allow-Credentials" not in response.headers
            assert response.headers["Access-Control-Allow-Origin"] == LISTED

    @pytest.mark.parametrize("origin", ["https://evil.example", "null", "", OWN])
    @pytest.mark.parametrize("all_allowed", [True, False])
    def test_no_other_origin_may(
        self, browser: Browser, settings: Settings, origin: str, *, all_allowed: bool
    ) -> None:
        settings.CORS_ALLOW_ALL_ORIGINS = all_allowed

        response = browser.options(f"{API}/auth/refresh", secure=True, HTTP_ORIGIN=origin)

        assert "Access-Control-Allow-Credentials" not in response.headers

    def test_beside_the_wildcard_a_listed_origin_still_may(
        self, browser: Browser, settings: Settings
    ) -> None:
        settings.CORS_ALLOW_ALL_ORIGINS = True

        response = browser.options(f"{API}/auth/refresh", secure=True, HTTP_ORIGIN=LISTED)

        assert response.headers["Access-Control-Allow-Origin"] == LISTED
        assert response.headers["Access-Control-Allow-Credentials"] == "true"

    def test_disabled_nobody_may(self, browser: Browser, settings: Settings) -> None:
        settings.REFRESH_COOKIE = False

        response = browser.options(f"{API}/auth/refresh", secure=True, HTTP_ORIGIN=LISTED)

        assert "Access-Control-Allow-Credentials" not in response.headers
