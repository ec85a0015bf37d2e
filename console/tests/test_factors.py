"""Staff who must add a second factor, and the pages on which they keep their own."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from accounts.models import Event, OutgoingEmail, TOTPDevice, User
from conftest import PASSWORD, SignIn
from tests.rig.factors import code_of, enrol, wrong_code_of

LOGIN = "/admin/login/"
FACTORS = "/admin/factors/"
APP = f"{FACTORS}app/"
USERS = "/admin/accounts/user/"


@pytest.fixture
def required(settings: Settings) -> None:
    settings.STAFF_MFA = "required"
    settings.AUTH_RATE_LIMIT = (1000, 60)


@pytest.fixture
def browser(boss: User, required: None) -> Client:
    """A browser in which a superuser without a factor has signed in."""
    browser = Client(raise_request_exception=False)
    response = browser.post(LOGIN, {"username": "boss", "password": PASSWORD})
    assert (response.status_code, response.url) == (302, "/admin/")
    return browser


def sign_in_with(code: str) -> Client:
    browser = Client(raise_request_exception=False)
    browser.post(LOGIN, {"username": "boss", "password": PASSWORD})
    assert browser.post("/admin/login/second-factor/", {"code": code}).url == "/admin/"
    return browser


def begin(browser: Client) -> str:
    """Begin to add an authenticator app and return the secret that the page shows."""
    assert browser.post(f"{APP}begin/").url == APP
    page = browser.get(APP).content.decode()
    found = re.search(r'<code id="secret">([A-Z2-7 ]+)</code>', page)
    assert found
    return found[1].replace(" ", "")


def confirm(browser: Client, code: str) -> Any:
    return browser.post(APP, {"code": code})


def codes_in(page: Any) -> list[str]:
    return re.findall(r"<li><code>([0-9A-Z-]{29})</code>", page.content.decode())


def kinds() -> list[str]:
    return list(Event.objects.order_by("id").values_list("kind", flat=True))


class TestRequired:
    def test_staff_without_a_factor_get_the_enrolment_whatever_they_open(
        self, browser: Client, boss: User
    ) -> None:
        for path in (
            "", "accounts/", "accounts/user/", f"accounts/user/{boss.pk}/change/",
            "password_change/", "password_change/done/", "jsi18n/", "autocomplete/",
            "r/1/1/", "nothing/", "accounts/user/add/",
        ):  # fmt: skip
            for method in ("get", "post"):
                response = getattr(browser, method)(f"/admin/{path}")
                assert (response.status_code, response.url) == (302, FACTORS), path

    def test_pages_of_apps_are_guarded_too(self, browser: Client, user: User) -> None:
        for action in ("set/deactivate", "end-sessions"):
            assert browser.post(f"{USERS}{user.pk}/{action}/").url == FACTORS
        user.refresh_from_db()
        assert user.is_active

    def test_the_enrolment_offers_nothing_else(self, browser: Client) -> None:
        page = browser.get(FACTORS).content.decode()

        assert "Add a second factor to use the console" in page
        assert "Log out" in page
        assert "Change password" not in page
        assert USERS not in page
        assert browser.post("/admin/logout/").status_code == 200
        assert browser.get(FACTORS).url == f"{LOGIN}?next={FACTORS}"
        assert kinds()[-1] == "signed_out"

    def test_the_sign_in_page_stays_open_to_them(self, browser: Client) -> None:
        assert browser.get(LOGIN).status_code == 200

    def test_it_lets_in_who_has_one(self, boss: User, required: None) -> None:
        secret, _ = enrol(boss)

        assert sign_in_with(code_of(secret)).get(USERS).status_code == 200

    def test_it_is_no_matter_of_users(
        self, required: None, user: User, sign_in: SignIn, make_user: Callable[..., User]
    ) -> None:
        browser = Client()
        browser.force_login(user)
        for path in ("/admin/", FACTORS):
            assert browser.get(path).url == f"{LOGIN}?next={path}"
        assert sign_in(user).get("/api/v1/users/me").status_code == 200

    def test_an_old_session_signs_in_again_before_it_adds_a_factor(
        self, boss: User, required: None
    ) -> None:
        browser = Client()
        browser.force_login(boss)

        assert browser.get("/admin/").url == FACTORS
        assert browser.get(FACTORS).url == f"{LOGIN}?next={FACTORS}"
        assert browser.post(f"{APP}begin/").url == f"{LOGIN}?next={APP}begin/"
        assert not TOTPDevice.objects.exists()

    def test_optional_lets_staff_in_without_one(self, console: Client) -> None:
        assert console.get(USERS).status_code == 200


class TestEnrolment:
    def test_an_app_from_the_first_sign_in_to_the_console(
        self, browser: Client, boss: User
    ) -> None:
        secret = begin(browser)
        before = browser.session.session_key
        page = confirm(browser, code_of(secret))

        assert len(set(codes_in(page))) == 10
        assert page.headers["Cache-Control"] == "no-store"
        assert browser.session.session_key != before
        assert browser.get(USERS).status_code == 200
        assert kinds()[-2:] == ["signed_in", "factor_added"]
        TOTPDevice.objects.update(last_step=0)
        again = sign_in_with(code_of(secret))
        assert again.get(USERS).status_code == 200
        assert sign_in_with(codes_in(page)[0]).get(USERS).status_code == 200

    def test_the_page_draws_the_uri_without_styles_and_scripts(self, browser: Client) -> None:
        secret = begin(browser)
        page = browser.get(APP)
        content = page.content.decode()

        assert re.search(r'<svg[^>]* class="qr"', content)
        assert secret not in content.replace(f"{' '.join(re.findall('....', secret))}", "")
        assert not re.search(r"<[^>]+ style=|<style|<script(?![^>]* src=)", content)
        policy = page.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'self'")
        assert "unsafe" not in policy

    def test_a_look_changes_nothing(self, browser: Client) -> None:
        assert browser.get(APP).url == FACTORS
        assert not TOTPDevice.objects.exists()
        secret = begin(browser)
        assert f"{' '.join(re.findall('....', secret))}" in browser.get(APP).content.decode()
        for path in ("app/begin/", "app/remove/", "recovery-codes/", "passkeys/begin/"):
            assert browser.get(FACTORS + path).status_code == 405
        assert TOTPDevice.objects.count() == 1

    def test_a_wrong_code_is_counted_and_keeps_the_secret(
        self, browser: Client, boss: User, settings: Settings
    ) -> None:
        secret = begin(browser)
        settings.LOGIN_FAILURE_LIMIT = (3, 900)
        for _ in range(3):
            page = confirm(browser, wrong_code_of(secret))
            assert (page.status_code, b"This code is wrong" in page.content) == (200, True)
        assert f"{' '.join(re.findall('....', secret))}" in page.content.decode()

        assert confirm(browser, code_of(secret)).status_code == 429
        boss.refresh_from_db()
        assert not boss.has_second_factor

    def test_wrong_codes_share_the_count_of_a_day(
        self, browser: Client, settings: Settings
    ) -> None:
        settings.CODE_FAILURE_LIMIT = (1, 86400)
        secret = begin(browser)
        assert confirm(browser, wrong_code_of(secret)).status_code == 200
        assert confirm(browser, wrong_code_of(secret)).status_code == 429

    def test_the_first_factor_ends_the_other_sessions(
        self, browser: Client, boss: User, sign_in: SignIn
    ) -> None:
        device, other = sign_in(boss), Client()
        other.post(LOGIN, {"username": "boss", "password": PASSWORD})
        confirm(browser, code_of(begin(browser)))

        assert device.get("/api/v1/users/me").status_code == 401
        assert other.get(FACTORS).url == f"{LOGIN}?next={FACTORS}"
        assert browser.get(FACTORS).status_code == 200

    def test_the_pages_are_limited(self, browser: Client, settings: Settings) -> None:
        begin(browser)
        settings.AUTH_RATE_LIMIT = (1, 60)
        assert [confirm(browser, "1").status_code for _ in range(2)][-1] == 429

    def test_a_factor_added_meanwhile_stops_it(
        self, browser: Client, boss: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A session with a password alone must not replace the factor."""
        begin_totp = User.begin_totp

        def enrol_meanwhile(self: User, **options: Any) -> str:
            monkeypatch.setattr(User, "begin_totp", begin_totp)
            enrol(User.objects.get(pk=boss.pk))
            return self.begin_totp(**options)

        monkeypatch.setattr(User, "begin_totp", enrol_meanwhile)
        response = browser.post(f"{APP}begin/")

        assert response.url == f"{LOGIN}?next={APP}begin/"
        assert TOTPDevice.objects.count() == 1


class TestOwnFactors:
    @pytest.fixture
    def secret(self, boss: User, required: None) -> str:
        return enrol(boss)[0]

    @pytest.fixture
    def own(self, secret: str) -> Client:
        """A browser in which the superuser has signed in with a code."""
        return sign_in_with(code_of(secret))

    def test_they_are_shown(self, own: Client) -> None:
        page = own.get(FACTORS).content.decode()

        assert "Added" in page
        assert "10 codes left" in page
        assert f'href="{FACTORS}"' in own.get("/admin/").content.decode()

    def test_an_app_is_replaced_and_the_session_stays(self, own: Client, secret: str) -> None:
        new = begin(own)
        response = confirm(own, code_of(new))

        assert response.url == FACTORS
        assert b"The second factor was added" in own.get(FACTORS).content
        assert own.get(USERS).status_code == 200
        assert TOTPDevice.objects.count() == 1

    def test_the_last_one_is_removed_with_the_codes(self, own: Client, boss: User) -> None:
        response = own.post(f"{APP}remove/", follow=True)

        assert b"The second factor was removed" in response.content
        assert not boss.recovery_codes.exists()
        assert own.get(USERS).url == FACTORS
        assert own.post(f"{APP}remove/").url == FACTORS
        assert kinds()[-1] == "factor_removed"

    def test_new_recovery_codes_replace_the_old(self, own: Client, boss: User) -> None:
        codes = codes_in(own.post(f"{FACTORS}recovery-codes/"))

        assert len(codes) == 10
        assert sign_in_with(codes[3]).get(USERS).status_code == 200

    def test_there_are_none_without_a_factor(self, browser: Client) -> None:
        assert browser.post(f"{FACTORS}recovery-codes/").url == FACTORS

    @pytest.mark.parametrize("path", ["", "app/", "app/begin/", "app/remove/", "recovery-codes/"])
    def test_they_need_a_fresh_sign_in(
        self, own: Client, boss: User, settings: Settings, path: str
    ) -> None:
        settings.FRESH_LIFETIME = timedelta(0)
        for method in ("get", "post"):
            response = getattr(own, method)(FACTORS + path)
            assert response.url == f"{LOGIN}?next={FACTORS}{path}"
        boss.refresh_from_db()
        assert boss.has_second_factor

    @pytest.mark.parametrize("path", ["", "app/", "app/begin/", "app/remove/", "recovery-codes/"])
    def test_they_need_the_factor(self, boss: User, secret: str, path: str) -> None:
        boss.refresh_from_db()
        browser = Client()
        browser.force_login(boss)
        session = browser.session
        session["proof"] = {"methods": ["pwd"], "factor_added_at": None, "at": 9e9}
        session.save()

        assert browser.post(FACTORS + path).url == f"{LOGIN}?next={FACTORS}{path}"

    @pytest.mark.parametrize("days", [6, 8])
    def test_a_factor_older_than_the_undo_outranks_the_mailbox(
        self, secret: str, days: int
    ) -> None:
        added_at = timezone.now() - timedelta(days=days)
        TOTPDevice.objects.update(confirmed_at=added_at)
        browser = sign_in_with(code_of(secret))
        OutgoingEmail.objects.all().delete()
        confirm(browser, code_of(begin(browser)))

        email = OutgoingEmail.objects.get(kind="factor_added")
        assert (email.ticket is None) == (days > 7)

    def test_notices_are_sent(self, own: Client) -> None:
        OutgoingEmail.objects.all().delete()
        own.post(f"{FACTORS}recovery-codes/")
        own.post(f"{APP}remove/")

        kinds = set(OutgoingEmail.objects.values_list("kind", flat=True))
        assert kinds == {"recovery_codes_replaced", "factor_removed"}
