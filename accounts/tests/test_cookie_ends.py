"""How a session by cookie ends, what counts, and that nothing happens without REFRESH_COOKIE."""

from datetime import timedelta
from typing import Any

import pytest
from pytest_django import Settings

from accounts.models import Session, User
from conftest import API, PASSWORD
from tests.rig.cookies import (
    COOKIE,
    OWN,
    Browser,
    assert_is_deleted,
    assert_is_in_the_cookie,
    assert_is_rejected,
    enable,
)


@pytest.fixture(autouse=True)
def enabled(settings: Settings) -> None:
    enable(settings)


@pytest.fixture
def browser(user: User) -> Browser:
    browser = Browser()
    assert browser.login().status_code == 200
    return browser


class TestEnd:
    def test_a_replay_deletes_the_cookie(self, browser: Browser, user: User) -> None:
        spent = browser.token
        browser.refresh()

        response = browser.refresh(HTTP_COOKIE=f"{COOKIE}={spent}")

        assert_is_rejected(response, 401, "token_not_valid")
        assert_is_deleted(response)
        assert user.sessions.get().end_reason == "token_reuse"

    def test_within_the_grace_the_cookie_gets_the_current_token(
        self, browser: Browser, settings: Settings
    ) -> None:
        settings.REFRESH_GRACE = timedelta(seconds=10)
        spent = browser.token
        browser.refresh()
        current = browser.token

        assert_is_in_the_cookie(browser.refresh(HTTP_COOKIE=f"{COOKIE}={spent}"))

        assert browser.token == current

    def test_an_ended_session_deletes_it_in_the_same_way(
        self, browser: Browser, user: User
    ) -> None:
        user.end_sessions(Session.Reason.STAFF)

        response = browser.refresh()

        assert_is_rejected(response, 401, "token_not_valid")
        assert_is_deleted(response)

    @pytest.mark.parametrize(("path", "status"), [("logout", 204), ("logout-all", 200)])
    def test_a_sign_out_deletes_it(
        self, browser: Browser, user: User, path: str, status: int
    ) -> None:
        response = browser.send(path)

        assert response.status_code == status
        assert_is_deleted(response)
        assert not user.sessions.active().exists()

    @pytest.mark.parametrize("path", ["logout", "logout-all"])
    def test_the_cookie_alone_signs_nobody_out(
        self, browser: Browser, user: User, path: str
    ) -> None:
        browser.credentials()

        assert_is_rejected(browser.send(path), 401, "not_authenticated")
        assert user.sessions.active().exists()

    def test_a_rejected_token_of_a_body_leaves_the_cookie(self, browser: Browser) -> None:
        response = browser.refresh({"refresh_token": "x"})

        assert_is_rejected(response, 401, "token_not_valid")
        assert not response.cookies


class TestLimit:
    @pytest.fixture(autouse=True)
    def limit(self, enabled: None, settings: Settings) -> None:
        settings.AUTH_RATE_LIMIT = (3, 60)

    def test_refreshes_are_counted_by_session(self, browser: Browser) -> None:
        other = Browser()
        assert other.login().status_code == 200

        found = [browser.refresh().status_code for _ in range(4)]

        assert found == [200, 200, 200, 429]
        assert other.refresh().status_code == 200

    def test_a_page_that_asks_without_a_cookie_is_not_counted(self, browser: Browser) -> None:
        """It asks at every load, whether or not a user is signed in."""
        visitor = Browser()
        responses = [visitor.refresh() for _ in range(5)]

        assert {response.status_code for response in responses} == {401}
        assert responses[-1].headers["RateLimit"].startswith('"auth";r=3;')

    def test_another_origin_spends_no_count_of_the_session(self, browser: Browser) -> None:
        for _ in range(5):
            browser.refresh(HTTP_ORIGIN="https://evil.example")

        assert browser.refresh().headers["RateLimit"].startswith('"auth";r=2;')

    @pytest.mark.parametrize(
        "content_type", ["", "text/plain", "application/x-www-form-urlencoded"]
    )
    def test_what_a_page_sends_without_a_preflight_spends_none(
        self, browser: Browser, content_type: str
    ) -> None:
        for _ in range(5):
            response = browser.generic(
                *("POST", f"{API}/auth/refresh", b"{}" if content_type else b"", content_type),
                secure=True,
                HTTP_ORIGIN=OWN,
            )
            assert response.status_code == 415

        assert browser.refresh().headers["RateLimit"].startswith('"auth";r=2;')


class TestDisabled:
    @pytest.fixture(autouse=True)
    def disabled(self, enabled: None, settings: Settings) -> None:
        settings.REFRESH_COOKIE = False

    @pytest.mark.parametrize("cookie", [True, "true", None, []])
    def test_nothing_is_set_and_the_field_is_ignored(self, user: User, cookie: Any) -> None:
        browser = Browser()
        login = browser.login(cookie=cookie)
        refresh = browser.refresh(
            {"refresh_token": login.json()["refresh_token"], "cookie": cookie}
        )
        again = browser.send("reauthenticate", {"password": PASSWORD, "cookie": cookie})

        for response in (login, refresh, again):
            assert response.json()["refresh_token"]
            assert not response.cookies

    def test_no_cookie_is_read(self, user: User) -> None:
        browser = Browser()
        token = browser.login().json()["refresh_token"]

        response = browser.refresh(HTTP_COOKIE=f"{COOKIE}={token}; refresh={token}")

        assert_is_rejected(response, 400, "validation_error")
        [error] = response.json()["errors"]
        assert (error["field"], error["code"]) == ("refresh_token", "required")

    @pytest.mark.parametrize("path", ["logout", "logout-all"])
    def test_no_cookie_is_deleted(self, user: User, path: str) -> None:
        browser = Browser()
        browser.login()

        assert not browser.send(path).cookies
        assert not browser.refresh({"refresh_token": "x"}).cookies
