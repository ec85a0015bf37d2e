"""Passkeys in the console: the second factor of its sign-in, and those of staff themselves."""

import json
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from accounts.models import Event, Passkey, Ticket, User
from accounts.models.passkeys import MAXIMUM
from conftest import PASSWORD
from tests.rig.authenticator import Authenticator
from tests.rig.factors import code_of, enrol

LOGIN = "/admin/login/"
FACTOR = "/admin/login/second-factor/"
OPTIONS = f"{FACTOR}passkey/"
FACTORS = "/admin/factors/"
PASSKEYS = f"{FACTORS}passkeys/"
USERS = "/admin/accounts/user/"


@pytest.fixture(autouse=True)
def limits(settings: Settings) -> None:
    settings.AUTH_RATE_LIMIT = (1000, 60)
    settings.STAFF_MFA = "required"


@pytest.fixture
def browser(boss: User) -> Client:
    """A browser in which a superuser without a factor has signed in."""
    return enter_password()


@pytest.fixture
def passkey(browser: Client) -> Authenticator:
    """The superuser's only factor, which does not count its uses."""
    return add(browser, Authenticator())


def enter_password() -> Client:
    browser = Client(raise_request_exception=False)
    browser.post(LOGIN, {"username": "boss", "password": PASSWORD})
    return browser


def register(browser: Client, passkey: Authenticator, name: str = "Key", **bent: Any) -> Any:
    options = browser.post(f"{PASSKEYS}begin/").json()
    credential = json.dumps(passkey.create(options, **bent))
    return browser.post(PASSKEYS, {"name": name, "credential": credential})


def add(browser: Client, passkey: Authenticator) -> Authenticator:
    passkey.response = register(browser, passkey)
    assert Passkey.objects.filter(credential_id=passkey.credential_id).exists()
    return passkey


def present(browser: Client, passkey: Authenticator, **bent: Any) -> Any:
    """Complete a sign-in with a passkey, bent in some way, and return the response."""
    credential = passkey.get(browser.post(OPTIONS).json(), **bent)
    return browser.post(FACTOR, {"credential": json.dumps(credential)})


def details(kind: str) -> list[str]:
    return list(Event.objects.filter(kind=kind).order_by("id").values_list("detail", flat=True))


class TestSignIn:
    def test_a_passkey_completes_it(self, passkey: Authenticator) -> None:
        browser = enter_password()
        page = browser.get(FACTOR).content.decode()
        assert "Use a passkey" in page
        assert f'data-options="{OPTIONS}"' in page

        assert present(browser, passkey).url == "/admin/"
        assert browser.get(USERS).status_code == 200
        assert details("signed_in")[-1] == "console, pwd, pop, user, mfa"
        assert Passkey.objects.get().last_used_at is not None

    @pytest.mark.parametrize(
        "bent",
        [
            {"origin": "https://example.com"},
            {"rp_id": "example.com"},
            {"flags": 1},
            {"signature": b"x"},
        ],
        ids=str,
    )
    def test_one_that_proves_nothing_is_rejected(
        self, passkey: Authenticator, bent: dict[str, Any]
    ) -> None:
        browser = enter_password()
        page = present(browser, passkey, **bent)

        assert (page.status_code, b"could not be verified" in page.content) == (200, True)
        assert "_auth_user_id" not in browser.session
        assert details("refused")[-1] == "wrong passkey"
        assert present(browser, passkey).url == "/admin/"

    def test_a_challenge_works_once(self, passkey: Authenticator) -> None:
        browser, other = enter_password(), enter_password()
        credential = json.dumps(passkey.get(browser.post(OPTIONS).json()))
        assert browser.post(FACTOR, {"credential": credential}).status_code == 302

        assert other.post(FACTOR, {"credential": credential}).status_code == 200
        assert "_auth_user_id" not in other.session

    @pytest.mark.parametrize("junk", ["[]", "{}", "no JSON", "[" * 4000, '"x"', "1", "null"])
    def test_junk_is_a_wrong_passkey(self, passkey: Authenticator, junk: str) -> None:
        browser = enter_password()

        assert browser.post(FACTOR, {"credential": junk}).status_code == 200
        assert "_auth_user_id" not in browser.session

    def test_an_overlong_one_is_not_read(self, passkey: Authenticator) -> None:
        browser = enter_password()
        response = browser.post(FACTOR, {"credential": "x" * 8193})

        assert response.status_code == 200
        assert Ticket.objects.get(purpose="mfa").tries == 0

    def test_a_code_and_a_passkey_at_once_are_rejected(self, passkey: Authenticator) -> None:
        browser = enter_password()
        response = browser.post(FACTOR, {"credential": "{}", "code": "123456"})

        assert (response.status_code, b"Enter a code" in response.content) == (200, True)

    def test_wrong_ones_are_counted_like_codes(
        self, passkey: Authenticator, settings: Settings
    ) -> None:
        settings.LOGIN_FAILURE_LIMIT = (3, 900)
        browser = enter_password()
        statuses = [present(browser, passkey, signature=b"x").status_code for _ in range(3)]

        assert statuses == [200, 200, 429]

    def test_options_need_the_password(self, passkey: Authenticator) -> None:
        assert Client().post(OPTIONS).url == LOGIN
        assert enter_password().get(OPTIONS).status_code == 405

    def test_it_is_offered_to_who_has_one(self, boss: User, settings: Settings) -> None:
        enrol(boss)
        assert "Use a passkey" not in enter_password().get(FACTOR).content.decode()
        Passkey.objects.create(
            user=boss, name="Key", credential_id=b"1", public_key=b"", sign_count=0, synced=False
        )
        assert "Use a passkey" in enter_password().get(FACTOR).content.decode()
        settings.WEBAUTHN_RP_ID = ""
        assert "Use a passkey" not in enter_password().get(FACTOR).content.decode()


class TestOwn:
    def test_the_first_one_opens_the_console(self, browser: Client) -> None:
        page = register(browser, Authenticator(synced=True), "My phone")

        assert page.content.count(b"<li><code>") == 10
        assert browser.get(USERS).status_code == 200
        listed = browser.get(FACTORS).content.decode()
        assert "My phone" in listed
        assert "synced" in listed

    def test_another_one_beside_an_app(self, boss: User) -> None:
        secret, _ = enrol(boss)
        browser = enter_password()
        browser.post(FACTOR, {"code": code_of(secret)})
        response = register(browser, Authenticator())

        assert response.url == FACTORS
        assert b"The second factor was added" in browser.get(FACTORS).content

    @pytest.mark.parametrize("bent", [{"origin": "https://example.com"}, {"flags": 1}], ids=str)
    def test_one_that_proves_nothing_is_not_added(
        self, browser: Client, bent: dict[str, Any]
    ) -> None:
        response = register(browser, Authenticator(), **bent)

        assert response.url == FACTORS
        assert b"The passkey was not added" in browser.get(FACTORS).content
        assert not Passkey.objects.exists()

    @pytest.mark.parametrize("name", ["", " ", "x" * 51, "a\x00b"])
    def test_it_has_a_name(self, browser: Client, name: str) -> None:
        assert register(browser, Authenticator(), name).url == FACTORS
        assert not Passkey.objects.exists()

    def test_it_is_removed(self, browser: Client, passkey: Authenticator) -> None:
        path = f"{PASSKEYS}{Passkey.objects.get().pk}/remove/"
        assert browser.get(path).status_code == 405
        response = browser.post(path, follow=True)

        assert b"The second factor was removed" in response.content
        assert browser.post(path).url == FACTORS
        assert browser.get(USERS).url == FACTORS

    def test_that_of_another_user_is_not(self, boss: User, browser: Client, user: User) -> None:
        add(browser, Authenticator())
        other = Passkey.objects.create(
            user=user, name="Key", credential_id=b"1", public_key=b"", sign_count=0, synced=False
        )
        browser.post(f"{PASSKEYS}{other.pk}/remove/")

        assert Passkey.objects.filter(pk=other.pk).exists()

    def test_there_is_a_limit(self, boss: User, browser: Client) -> None:
        for n in range(MAXIMUM):
            Passkey.objects.create(
                user=boss,
                name="Key",
                credential_id=b"%d" % n,
                public_key=b"",
                sign_count=0,
                synced=False,
            )
        response = browser.post(f"{PASSKEYS}begin/")

        assert response.status_code == 409
        assert "Add a passkey" not in browser.get(FACTORS).content.decode()

    def test_a_deactivation_meanwhile_stops_it(
        self, browser: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begin = type(Passkey.objects.all()).begin_registration

        def deactivate_meanwhile(self: Any, user: User) -> Any:
            User.objects.update(is_active=False)
            return begin(self, user)

        manager = type(Passkey.objects)
        monkeypatch.setattr(manager, "begin_registration", deactivate_meanwhile)

        assert browser.post(f"{PASSKEYS}begin/").url == f"{LOGIN}?next={PASSKEYS}begin/"

    def test_none_are_offered_without_a_relying_party(
        self, browser: Client, settings: Settings
    ) -> None:
        assert "Add a passkey" in browser.get(FACTORS).content.decode()
        settings.WEBAUTHN_RP_ID = ""
        assert "Add a passkey" not in browser.get(FACTORS).content.decode()


def test_a_user_with_factors_can_be_deleted(passkey: Authenticator, user: User) -> None:
    enrol(user)
    browser = enter_password()
    present(browser, passkey)

    assert browser.post(f"{USERS}{user.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not User.objects.filter(pk=user.pk).exists()
