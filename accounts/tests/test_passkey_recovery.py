"""How passkeys are undone and reset, and how they and the other ways into an account interplay."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import Event, Passkey, RecoveryCode, Session, User
from accounts.tests.test_fresh import claims_of, use_claims
from conftest import API, PASSWORD, SignIn
from tests.rig.api_tokens import issue_token, using
from tests.rig.authenticator import Authenticator
from tests.rig.cookies import Browser, assert_is_in_the_cookie
from tests.rig.factors import code_of, enrol
from tests.rig.lifecycle import (
    TOKEN,
    change_address,
    delivered,
    inbox,
    post,
    reset,
    token_sent_to,
)
from tests.rig.passkeys import (
    PATH,
    add_passkey,
    begin_login,
    begin_sign_in,
    device_of,
    register,
    sign_in_with,
)

ADDRESS = "alice@example.com"


@pytest.fixture(autouse=True)
def lifted_limits(settings: Settings) -> None:
    settings.AUTH_RATE_LIMIT = settings.EMAIL_LIMIT = (1_000_000, 60)


@pytest.fixture
def alice(user: User) -> User:
    User.objects.filter(pk=user.pk).update(email_verified_at=Now())
    return User.objects.get(pk=user.pk)


@pytest.fixture
def device(alice: User, sign_in: SignIn) -> APIClient:
    return sign_in(alice)


def age(days: int = 8) -> None:
    Passkey.objects.update(created_at=Now() - timedelta(days=days))


class TestUndo:
    def test_the_notice_of_a_passkey_removes_it_and_later_ones(self, device: APIClient) -> None:
        thief = device_of(add_passkey(device))
        undo = token_sent_to(ADDRESS)
        add_passkey(thief)

        assert reset(undo).status_code == 204

        assert not Passkey.objects.exists()
        assert not RecoveryCode.objects.exists()
        assert not User.objects.get().has_second_factor
        assert thief.get(f"{API}/users/me").status_code == 401
        assert [kind for kind, _ in delivered()].count("factor_removed") == 1

    def test_the_notice_of_a_second_one_keeps_the_first(self, device: APIClient) -> None:
        first = add_passkey(device)
        second = add_passkey(device_of(first))
        [_, notice] = inbox(ADDRESS)
        match = TOKEN.search(str(notice.body))

        assert match
        assert reset(match[1]).status_code == 204
        assert sign_in_with(second).status_code == 401
        assert sign_in_with(first).status_code == 200

    def test_an_undo_of_a_change_of_address_removes_passkeys_added_since(
        self, device: APIClient
    ) -> None:
        kept = add_passkey(device)
        device = device_of(kept)
        change_address(device, "new@example.com")
        added = add_passkey(device)
        [undo] = [
            match[1]
            for message in inbox(ADDRESS)
            if "address was changed" in message.subject and (match := TOKEN.search(message.body))
        ]

        assert reset(undo).status_code == 204
        assert sign_in_with(added).status_code == 401
        assert sign_in_with(kept).status_code == 200

    def test_an_old_passkey_outranks_the_mailbox(self, device: APIClient) -> None:
        passkey = add_passkey(device)
        age()
        device = device_of(passkey)
        delivered()
        change_address(device, "new@example.com")

        [*_, notice] = inbox(ADDRESS)
        assert "address was changed" in notice.subject
        assert not TOKEN.search(str(notice.body))


class TestReset:
    def test_a_due_reset_removes_the_passkeys(self, device: APIClient, alice: User) -> None:
        add_passkey(device)
        alice.refresh_from_db()
        alice.begin_factor_reset()
        User.objects.update(factor_reset_at=Now())

        body = {"identity": "alice", "password": PASSWORD}
        assert post("/auth/login", body).status_code == 200
        assert not Passkey.objects.exists()

    def test_a_sign_in_by_passkey_cancels_it(self, device: APIClient, alice: User) -> None:
        passkey = add_passkey(device)
        alice.refresh_from_db()
        alice.begin_factor_reset()
        device_of(passkey)

        assert User.objects.get().factor_reset_at is None
        begin_login()


class TestOtherFactors:
    def test_an_app_and_a_passkey_are_independent(self, alice: User, sign_in: SignIn) -> None:
        secret, _ = enrol(alice)
        problem = post("/auth/login", {"identity": "alice", "password": PASSWORD}).json()
        assert problem["methods"] == ["totp", "recovery_code"]
        assert "passkey_options" not in problem
        body = {"mfa_token": problem["mfa_token"], "code": code_of(secret)}
        pair = post("/auth/mfa", body).json()
        device = APIClient()
        device.credentials(HTTP_AUTHORIZATION=f"Bearer {pair['access_token']}")
        passkey = add_passkey(device)

        assert passkey.response["recovery_codes"] is None
        assert begin_login()["methods"] == ["totp", "recovery_code", "passkey"]
        device = device_of(passkey)
        assert device.delete(f"{API}/users/me/totp").status_code == 204
        assert begin_login()["methods"] == ["recovery_code", "passkey"]
        assert device.delete(f"{PATH}/{passkey.response['id']}").status_code == 204
        assert post("/auth/login", {"identity": "alice", "password": PASSWORD}).status_code == 200

    def test_a_new_password_ends_sessions_and_keeps_the_passkey(self, device: APIClient) -> None:
        passkey = add_passkey(device)
        device, other = device_of(passkey), device_of(passkey)
        body = {"current_password": PASSWORD, "new_password": "a rainy night in June"}
        assert device.post(f"{API}/auth/password", body).status_code == 204

        assert other.get(f"{API}/users/me").status_code == 401
        assert sign_in_with(passkey).status_code == 200

    def test_a_deactivated_user_who_is_activated_again_keeps_them(
        self, device: APIClient, alice: User
    ) -> None:
        passkey = add_passkey(device)
        for is_active in (False, True):
            user = User.objects.get()
            user.is_active = is_active
            user.save()

        assert sign_in_with(passkey).status_code == 200

    def test_a_recovery_code_replaces_a_lost_passkey(self, device: APIClient) -> None:
        lost = add_passkey(device)
        token = begin_login()["mfa_token"]
        body = {"mfa_token": token, "code": lost.response["recovery_codes"][0]}
        pair = post("/auth/mfa", body).json()
        device.credentials(HTTP_AUTHORIZATION=f"Bearer {pair['access_token']}")
        new = add_passkey(device)
        assert device.delete(f"{PATH}/{lost.response['id']}").status_code == 204

        assert sign_in_with(lost).status_code == 401
        assert sign_in_with(new).status_code == 200
        assert Session.objects.latest("created_at").methods == ["pop", "user", "mfa"]

    def test_an_old_token_without_auth_time_adds_none(self, device: APIClient) -> None:
        claims = claims_of(device.tokens)
        del claims["auth_time"]
        del claims["amr"]
        response = use_claims(device, claims).post(f"{PATH}/options")

        assert (response.status_code, response.json()["code"]) == (403, "reauthentication_required")


def test_events_and_emails_have_no_name_of_a_key(device: APIClient) -> None:
    response = register(device, Authenticator(), "My secret key")
    assert response.status_code == 201

    assert not Event.objects.filter(detail__contains="secret").exists()
    assert not [m for m in inbox(ADDRESS) if "secret" in str(m.body)]


@pytest.mark.parametrize("method", ["get", "post"])
def test_an_api_token_reaches_no_passkeys(alice: User, method: str) -> None:
    token = using(issue_token(alice))

    for path in (PATH, f"{PATH}/options"):
        response = getattr(token, method)(path)
        assert response.status_code in {403, 405}


class TestCookie:
    """The refresh token is in a cookie where the client asks for that."""

    @pytest.fixture(autouse=True)
    def enabled(self, settings: Settings) -> None:
        settings.REFRESH_COOKIE = True

    def test_of_a_sign_in(self, device: APIClient) -> None:
        credential = add_passkey(device).get(begin_sign_in())
        body = {"credential": credential, "cookie": True}

        assert_is_in_the_cookie(Browser().send("passkey", body))

    def test_of_a_second_factor(self, device: APIClient) -> None:
        passkey = add_passkey(device)
        problem = begin_login()
        credential = passkey.get(problem["passkey_options"])
        body = {"mfa_token": problem["mfa_token"], "credential": credential, "cookie": True}

        assert_is_in_the_cookie(Browser().send("mfa", body))

    def test_of_a_reauthentication(self, device: APIClient) -> None:
        passkey = add_passkey(device)
        browser = Browser()
        browser.take(browser.send("passkey", {"credential": passkey.get(begin_sign_in())}))
        body = {"credential": passkey.get(begin_sign_in()), "cookie": True}

        assert_is_in_the_cookie(browser.send("reauthenticate", body))
