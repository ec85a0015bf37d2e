"""The console's sign-in of staff who have a second factor, and what has no way round it."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import Event, Session, Ticket, User
from accounts.tests.test_races import at_once
from conftest import API, PASSWORD
from tests.rig.factors import begin_login, code_of, complete, enrol, wrong_code_of

LOGIN = "/admin/login/"
FACTOR = "/admin/login/second-factor/"
USERS = "/admin/accounts/user/"


@pytest.fixture
def secret(boss: User) -> str:
    """The secret of the authenticator app of a superuser."""
    return enrol(boss)[0]


@pytest.fixture
def browser(secret: str) -> Client:
    """A browser in which the superuser has entered the password."""
    return enter_password(Client(raise_request_exception=False))


def enter_password(browser: Client, target: str = "", name: str = "boss") -> Client:
    body = {"username": name, "password": PASSWORD, "next": target}
    response = browser.post(LOGIN, body)
    assert (response.status_code, response.url.split("?")[0]) == (302, FACTOR)
    return browser


def enter(browser: Client, code: str, target: str = "") -> Any:
    return browser.post(FACTOR, {"code": code, "next": target})


def is_signed_in(browser: Client) -> bool:
    return browser.get(USERS).status_code == 200


def details(kind: str = "refused") -> list[str]:
    return list(Event.objects.filter(kind=kind).order_by("id").values_list("detail", flat=True))


def test_the_password_alone_signs_nobody_in(browser: Client) -> None:
    assert "_auth_user_id" not in browser.session
    assert browser.get("/admin/").url == f"{LOGIN}?next=/admin/"
    page = browser.get(FACTOR).content.decode()
    assert 'name="code"' in page
    assert "Use a passkey" not in page
    assert details() == ["second factor required"]
    assert details("signed_in") == []


def test_a_code_completes_the_sign_in(browser: Client, secret: str) -> None:
    before = browser.session.session_key
    response = enter(browser, code_of(secret))

    assert (response.status_code, response.url) == (302, "/admin/")
    assert is_signed_in(browser)
    assert browser.session.session_key != before
    assert "mfa" not in browser.session
    assert details("signed_in") == ["console, pwd, otp, mfa"]
    assert not Session.objects.exists()


def test_a_recovery_code_completes_it(boss: User) -> None:
    _, codes = enrol(boss)
    for written in (codes[0], codes[1].lower().replace("-", " ")):
        browser = enter_password(Client())
        assert enter(browser, written).status_code == 302
        assert is_signed_in(browser)

    assert details("recovery_code_used") == ["9", "8"]


def test_both_steps_have_session_keys_of_their_own(secret: str) -> None:
    browser = Client()
    browser.get(LOGIN)
    session = browser.session
    session.save()
    planted = str(session.session_key)
    browser.cookies["sessionid"] = planted
    enter_password(browser)
    between = browser.session.session_key
    enter(browser, code_of(secret))

    assert len({planted, between, browser.session.session_key}) == 3


@pytest.mark.parametrize("target", [USERS, "https://example.com/", "//example.com", "/nowhere"])
def test_the_target_is_kept_and_safe(secret: str, target: str) -> None:
    browser = enter_password(Client(), target)
    expected = target if target in {USERS, "/nowhere"} else "/admin/"

    assert enter(browser, code_of(secret), target).url == expected


def test_a_deep_link_leads_to_its_page_in_the_end(secret: str) -> None:
    browser = Client()
    link = f"{USERS}?q=alice"
    login = browser.get(link).url
    response = browser.post(login, {"username": "boss", "password": PASSWORD})
    response = browser.post(response.url, {"code": code_of(secret)})

    assert response.url == link


@pytest.mark.parametrize("method", ["get", "post"])
def test_the_second_page_needs_the_first(secret: str, method: str) -> None:
    response = getattr(Client(), method)(FACTOR, {"code": code_of(secret)})

    assert (response.status_code, response.url) == (302, LOGIN)
    assert details() == []


class TestWrongCodes:
    def test_a_wrong_code_is_shown_and_counted(self, browser: Client, secret: str) -> None:
        page = enter(browser, wrong_code_of(secret))

        assert (page.status_code, b"wrong, or was used before" in page.content) == (200, True)
        assert details() == ["second factor required", "wrong code"]
        assert enter(browser, code_of(secret)).status_code == 302

    @pytest.mark.parametrize("code", ["", "x" * 65])
    def test_a_code_that_is_none_is_not_tried(self, browser: Client, code: str) -> None:
        assert b"errorlist" in enter(browser, code).content
        assert Ticket.objects.get(purpose="mfa").tries == 0

    def test_a_code_works_once(self, browser: Client, secret: str) -> None:
        code = code_of(secret)
        assert enter(browser, code).status_code == 302

        other = enter_password(Client())
        assert enter(other, code).status_code == 200
        assert complete(begin_login("boss"), code).status_code == 401
        assert not is_signed_in(other)

    def test_a_sign_in_ends_after_five(
        self, browser: Client, secret: str, settings: Settings
    ) -> None:
        settings.AUTH_RATE_LIMIT = (100, 60)
        for _ in range(5):
            assert enter(browser, wrong_code_of(secret)).status_code == 200

        response = browser.post(FACTOR, {"code": code_of(secret)}, follow=True)

        assert response.redirect_chain == [(LOGIN, 302)]
        assert b"had too many tries" in response.content
        assert not is_signed_in(browser)

    def test_they_share_the_count_of_the_account(
        self, browser: Client, secret: str, settings: Settings, client: APIClient
    ) -> None:
        settings.LOGIN_FAILURE_LIMIT = (3, 900)
        for _ in range(2):
            enter(browser, wrong_code_of(secret))

        response = enter(browser, code_of(secret))
        login = client.post(f"{API}/auth/login", {"identity": "boss", "password": PASSWORD})

        assert (response.status_code, login.status_code) == (429, 429)
        assert response.headers["RateLimit-Policy"] == '"login-failures";q=3;w=900'
        assert response.headers["Content-Type"].startswith("text/html")

    def test_they_share_the_count_of_a_day(
        self, browser: Client, secret: str, settings: Settings
    ) -> None:
        settings.CODE_FAILURE_LIMIT = (2, 86400)
        complete(begin_login("boss"), wrong_code_of(secret))
        assert enter(browser, wrong_code_of(secret)).status_code == 200

        response = enter(browser, wrong_code_of(secret))

        assert response.status_code == 429
        assert response.headers["RateLimit-Policy"] == '"code-failures";q=2;w=86400'

    def test_a_right_password_alone_clears_no_failures(
        self, secret: str, settings: Settings
    ) -> None:
        settings.LOGIN_FAILURE_LIMIT = (3, 900)
        for _ in range(3):
            enter_password(Client())
        body = {"username": "boss", "password": PASSWORD}

        assert Client(raise_request_exception=False).post(LOGIN, body).status_code == 429

    def test_a_completed_sign_in_clears_them(self, secret: str, settings: Settings) -> None:
        settings.LOGIN_FAILURE_LIMIT = (3, 900)
        Client().post(LOGIN, {"username": "boss", "password": "wrong"})
        assert enter(enter_password(Client()), code_of(secret)).status_code == 302
        enter_password(Client())
        enter_password(Client())

        assert enter(enter_password(Client()), code_of(secret, 1)).status_code == 429

    def test_the_page_is_limited_like_the_sign_in(self, browser: Client, secret: str) -> None:
        pages = [enter(browser, "") for _ in range(6)]

        assert [page.status_code for page in pages] == [200] * 5 + [429]


class TestChangesMeanwhile:
    def test_it_ends_after_five_minutes(self, browser: Client, secret: str) -> None:
        lifetime = Ticket.objects.get(purpose="mfa").lifetime
        Ticket.objects.update(expires_at=Now())

        assert lifetime == timedelta(minutes=5)
        assert browser.get(FACTOR).url == LOGIN
        response = browser.post(f"{FACTOR}?next={USERS}", {"code": code_of(secret)})
        assert response.url == f"{LOGIN}?next=%2Fadmin%2Faccounts%2Fuser%2F"
        assert b"has expired" in browser.get(LOGIN).content

    @pytest.mark.parametrize("name", ["is_active", "is_staff"])
    def test_the_account_is_staff_no_more(
        self, boss: User, browser: Client, secret: str, name: str
    ) -> None:
        User.objects.update(**{name: False})

        assert enter(browser, code_of(secret)).url == LOGIN
        assert "_auth_user_id" not in browser.session

    def test_the_password_was_changed(self, boss: User, browser: Client, secret: str) -> None:
        boss.refresh_from_db()
        boss.set_password("a rainy night in June")
        boss.save()

        assert enter(browser, code_of(secret)).url == LOGIN

    def test_the_account_changed_while_the_password_was_verified(
        self, boss: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        verify = User.check_password

        def change_meanwhile(self: User, raw: str) -> bool:
            User.objects.filter(pk=self.pk).update(password_changed_at=timezone.now())
            return verify(self, raw)

        monkeypatch.setattr(User, "check_password", change_meanwhile)
        page = Client().post(LOGIN, {"username": "boss", "password": PASSWORD})

        assert (page.status_code, b"enter the correct" in page.content) == (200, True)
        assert details() == ["account changed meanwhile"]

    def test_a_factor_was_added_while_the_password_was_verified(
        self, boss: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        check = User.check_proof

        def enrol_meanwhile(self: User, proof: Any) -> None:
            check(self, proof)
            enrol(User.objects.get(pk=self.pk))

        monkeypatch.setattr(User, "check_proof", enrol_meanwhile)
        browser = enter_password(Client())

        assert not is_signed_in(browser)

    def test_two_windows_of_a_browser(self, browser: Client, secret: str) -> None:
        enter_password(browser)
        assert enter(browser, code_of(secret)).status_code == 302
        assert enter(browser, code_of(secret, 1)).url == LOGIN
        assert is_signed_in(browser)


class TestForcedChange:
    def test_it_comes_after_the_factor(self, boss: User, browser: Client, secret: str) -> None:
        User.objects.update(must_change_password=True)
        forced = "/admin/login/password/"
        assert browser.get(forced).status_code == 302
        response = enter(browser, code_of(secret), USERS)

        assert response.url == f"{forced}?next=%2Fadmin%2Faccounts%2Fuser%2F"
        assert not is_signed_in(browser)
        new = "a rainy night in June"
        done = browser.post(response.url, {"new_password1": new, "new_password2": new})
        assert done.url == f"{LOGIN}?next=%2Fadmin%2Faccounts%2Fuser%2F"
        assert not is_signed_in(browser)
        response = browser.post(done.url, {"username": "boss", "password": new})
        assert browser.post(response.url, {"code": code_of(secret, 1)}).url == USERS

    def test_a_factor_reset_that_is_due_comes_before_it(self, boss: User, secret: str) -> None:
        User.objects.update(factor_reset_at=timezone.now())
        response = Client().post(LOGIN, {"username": "boss", "password": PASSWORD})

        assert response.url == "/admin/"
        assert details("factors_reset") == [""]


class TestSessions:
    def test_a_session_without_the_factor_opens_nothing(self, boss: User, secret: str) -> None:
        boss.refresh_from_db()
        browser = Client()
        browser.force_login(boss)

        for path in ("", "accounts/user/", "password_change/", "jsi18n/", "autocomplete/", "x/"):
            response = browser.get(f"/admin/{path}")
            assert (response.status_code, response.url) == (302, f"{LOGIN}?next=/admin/{path}")
        assert b"Sign in again" in browser.get(f"{LOGIN}?next=/admin/").content
        enter_password(browser)
        enter(browser, code_of(secret))
        assert is_signed_in(browser)

    def test_the_password_change_needs_a_fresh_sign_in(
        self, browser: Client, secret: str, settings: Settings
    ) -> None:
        enter(browser, code_of(secret))
        change = "/admin/password_change/"
        assert browser.get(change).status_code == 200
        assert browser.get(f"{LOGIN}?next={change}").url == "/admin/"

        settings.FRESH_LIFETIME = timedelta(0)
        response = browser.get(change)
        assert response.url == f"{LOGIN}?next={change}"
        assert browser.get(LOGIN).url == "/admin/"
        assert browser.get(response.url).status_code == 200
        assert is_signed_in(browser)

    def test_a_password_change_keeps_the_session_and_what_it_has_proven(
        self, browser: Client, secret: str
    ) -> None:
        enter(browser, code_of(secret))
        new = "a rainy night in June"
        form = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}

        assert browser.post("/admin/password_change/", form).url.endswith("done/")
        assert is_signed_in(browser)

    def test_a_factor_added_while_a_password_is_changed_stops_it(
        self, boss: User, console: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        verify = User.check_password

        def enrol_meanwhile(self: User, raw: str) -> bool:
            monkeypatch.setattr(User, "check_password", verify)
            enrol(User.objects.get(pk=self.pk))
            return verify(self, raw)

        monkeypatch.setattr(User, "check_password", enrol_meanwhile)
        new = "a rainy night in June"
        form = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}
        page = console.post("/admin/password_change/", form)

        assert b"The account was changed meanwhile" in page.content
        assert User.objects.get().check_password(PASSWORD)

    @pytest.mark.parametrize("end", ["logout-all", "deactivation", "password"])
    def test_what_ends_sessions_ends_it(
        self, boss: User, browser: Client, secret: str, end: str
    ) -> None:
        enter(browser, code_of(secret))
        boss.refresh_from_db()
        if end == "logout-all":
            boss.end_sessions(Session.Reason.LOGOUT_ALL)
        elif end == "password":
            boss.set_password("a rainy night in June")
        else:
            boss.is_active = False
        boss.save()

        assert not is_signed_in(browser)

    def test_tokens_of_the_api_open_nothing(self, boss: User, secret: str) -> None:
        pair = complete(begin_login("boss"), code_of(secret)).json()
        headers = {"HTTP_AUTHORIZATION": f"Bearer {pair['access_token']}"}
        for path in ("/admin/", "/admin/factors/", FACTOR, "/admin/login/password/"):
            assert Client().get(path, **headers).status_code == 302

    def test_a_session_of_the_api_in_progress_opens_nothing(self, secret: str) -> None:
        token = begin_login("boss")
        body = {"code": code_of(secret), "mfa_token": token}

        assert Client().post(FACTOR, body).url == LOGIN


def test_a_user_who_is_not_staff_gets_no_second_page(user: User) -> None:
    enrol(user)
    page = Client().post(LOGIN, {"username": "alice", "password": PASSWORD})

    assert (page.status_code, b"staff account" in page.content) == (200, True)
    assert not Ticket.objects.filter(purpose="mfa").exists()


def test_signing_out_is_open_to_anybody(make_user: Callable[..., User]) -> None:
    assert Client().post("/admin/logout/").status_code == 200
    assert details("signed_out") == []


@pytest.mark.django_db(transaction=True)
def test_of_16_uses_of_one_code_in_console_and_api_one_succeeds(
    boss: User, settings: Settings
) -> None:
    settings.AUTH_RATE_LIMIT = settings.LOGIN_FAILURE_LIMIT = (1_000_000, 60)
    settings.CODE_FAILURE_LIMIT = (1_000_000, 60)
    code = code_of(enrol(boss)[0])
    browsers = [enter_password(Client()) for _ in range(8)]
    tokens = [begin_login("boss") for _ in range(8)]
    calls = [partial(enter, browser, code) for browser in browsers]
    calls += [partial(complete, token, code) for token in tokens]

    responses = at_once(*[lambda _, call=call: call() for call in calls])

    succeeded = [response.status_code for response in responses[:8]].count(302)
    succeeded += [response.status_code for response in responses[8:]].count(200)
    assert succeeded == 1
    assert sum(is_signed_in(browser) for browser in browsers) + Session.objects.count() == 1
