"""A passkey as the second factor of a login, and to sign in again."""

from functools import partial
from typing import Any

import pytest
from django.db.models.functions import Now
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import Event, Passkey, Session, Ticket, User
from accounts.tests.test_fresh import claims_of
from accounts.tests.test_races import statuses
from accounts.tests.test_ticket_races import race
from accounts.webauthn import LONGEST_CREDENTIAL, encode
from conftest import API, PASSWORD, SignIn
from tests.rig.authenticator import PRESENT, Authenticator
from tests.rig.factors import client_of
from tests.rig.lifecycle import delivered, errors, post, reset_by_email
from tests.rig.passkeys import (
    PATH,
    add_passkey,
    begin_login,
    begin_registration,
    begin_sign_in,
    complete_with,
    device_of,
    reauthenticate_with,
    sign_in_with,
)

WRONG = (401, "invalid_credentials")
BENT: list[dict[str, Any]] = [
    {"origin": "https://example.org"},
    {"rp_id": "example.org"},
    {"flags": PRESENT},
    {"kind": "webauthn.create"},
    {"signature": b"bent"},
    {"challenge": encode(bytes(32))},
    {"user_handle": encode(bytes(16))},
]
JUNK: list[Any] = [
    "text", 7, 1.5, True, False, [], {}, [{}], {"id": "AA"}, {"response": {}},
    {"id": "AA", "response": {"clientDataJSON": "e30"}}, {"id": "a" * LONGEST_CREDENTIAL},
]  # fmt: skip


@pytest.fixture(autouse=True)
def lifted_limits(settings: Settings) -> None:
    settings.AUTH_RATE_LIMIT = (1_000_000, 60)


@pytest.fixture
def alice(user: User) -> User:
    User.objects.filter(pk=user.pk).update(email_verified_at=Now())
    return User.objects.get(pk=user.pk)


@pytest.fixture
def passkey(alice: User, sign_in: SignIn) -> Authenticator:
    return add_passkey(sign_in(alice))


@pytest.fixture
def device(passkey: Authenticator) -> APIClient:
    return device_of(passkey)


def rejection(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


class TestLogin:
    def test_the_password_alone_offers_the_passkey(self, passkey: Authenticator) -> None:
        problem = begin_login()

        assert problem["methods"] == ["recovery_code", "passkey"]
        options = problem["passkey_options"]
        assert options["userVerification"] == "required"
        own = {"type": "public-key", "transports": ["internal"]}
        assert options["allowCredentials"] == [{**own, "id": encode(passkey.credential_id)}]
        ticket = Ticket.objects.get(data={"ceremony": "second_factor"})
        assert (ticket.user.username, ticket.token) == ("alice", options["challenge"])

    def test_the_passkey_completes_it(self, passkey: Authenticator) -> None:
        response = complete_with(passkey)

        assert response.status_code == 200, response.content
        assert response.json()["user"]["username"] == "alice"
        assert claims_of(response.json())["amr"] == ["pwd", "pop", "user", "mfa"]
        session = Session.objects.latest("created_at")
        assert session.factor_added_at == Passkey.objects.get().created_at
        add_passkey(client_of(response.json()))  # It is fresh.

    def test_a_security_key_need_not_name_its_user(self, passkey: Authenticator) -> None:
        assert complete_with(passkey, user_handle=None).status_code == 200

    def test_a_recovery_code_completes_it_instead(self, passkey: Authenticator) -> None:
        code = passkey.response["recovery_codes"][0]
        body = {"mfa_token": begin_login()["mfa_token"], "code": code}

        assert post("/auth/mfa", body).status_code == 200

    def test_a_reset_keeps_it(self, passkey: Authenticator) -> None:
        reset_by_email("alice", "alice@example.com")
        response = post("/auth/login", {"identity": "alice", "password": "a rainy night in June"})

        assert rejection(response) == (403, "mfa_required")

    def test_without_a_relying_party_it_is_not_offered(
        self, passkey: Authenticator, settings: Settings
    ) -> None:
        settings.WEBAUTHN_RP_ID = ""

        assert "passkey_options" not in begin_login()

    @pytest.mark.parametrize("bent", BENT)
    def test_a_bent_credential_is_rejected(
        self, passkey: Authenticator, bent: dict[str, Any]
    ) -> None:
        assert rejection(complete_with(passkey, **bent)) == WRONG
        assert Session.objects.count() == 1

    @pytest.mark.parametrize("junk", JUNK)
    def test_junk_is_rejected(self, passkey: Authenticator, junk: Any) -> None:
        body = {"mfa_token": begin_login()["mfa_token"], "credential": junk}

        assert rejection(post("/auth/mfa", body)) == WRONG
        assert Event.objects.filter(kind="refused", detail="wrong passkey").count() == 1

    @pytest.mark.parametrize("proofs", [{}, {"code": None, "credential": None},
                                        {"code": "000000", "credential": {}}])  # fmt: skip
    def test_one_proof_is_required(self, passkey: Authenticator, proofs: Any) -> None:
        body = {"mfa_token": begin_login()["mfa_token"], **proofs}

        assert errors(post("/auth/mfa", body)) == {None: "invalid"}

    def test_a_challenge_belongs_to_its_user(
        self, passkey: Authenticator, stranger: User, sign_in: SignIn
    ) -> None:
        User.objects.update(email_verified_at=Now())
        add_passkey(sign_in(stranger))
        challenge = begin_login("mallory")["passkey_options"]["challenge"]

        assert rejection(complete_with(passkey, challenge=challenge)) == WRONG

    def test_another_users_passkey_is_rejected(
        self, passkey: Authenticator, stranger: User, sign_in: SignIn
    ) -> None:
        User.objects.update(email_verified_at=Now())
        other = add_passkey(sign_in(stranger))

        assert rejection(complete_with(other)) == WRONG

    @pytest.mark.parametrize("ceremony", ["sign_in", "registration"])
    def test_a_challenge_of_another_ceremony_is_rejected(
        self, passkey: Authenticator, device: APIClient, ceremony: str
    ) -> None:
        begin = {"sign_in": begin_sign_in, "registration": partial(begin_registration, device)}
        challenge = begin[ceremony]()["challenge"]

        assert rejection(complete_with(passkey, challenge=challenge)) == WRONG

    def test_its_challenge_signs_nobody_in_and_adds_nothing(
        self, passkey: Authenticator, device: APIClient
    ) -> None:
        challenge = begin_login()["passkey_options"]["challenge"]
        assert rejection(sign_in_with(passkey, challenge=challenge)) == WRONG

        other = Authenticator().create(begin_registration(device), challenge=challenge)
        response = device.post(PATH, {"name": "Key", "credential": other})
        assert errors(response) == {"credential": "invalid"}

    def test_a_used_and_an_expired_challenge_are_rejected(self, passkey: Authenticator) -> None:
        first = begin_login()
        credential = passkey.get(first["passkey_options"])
        assert complete_with(passkey, first).status_code == 200
        body = {"mfa_token": begin_login()["mfa_token"], "credential": credential}
        assert rejection(post("/auth/mfa", body)) == WRONG

        problem = begin_login()
        Ticket.objects.filter(purpose="passkey").update(expires_at=Now())
        assert rejection(complete_with(passkey, problem)) == WRONG

    def test_a_used_token_is_rejected(self, passkey: Authenticator) -> None:
        problem = begin_login()
        assert complete_with(passkey, problem).status_code == 200

        assert errors(complete_with(passkey, problem)) == {"mfa_token": "ticket_not_valid"}

    def test_a_token_ends_after_five_tries(self, passkey: Authenticator) -> None:
        problem = begin_login()
        for _ in range(5):
            assert rejection(complete_with(passkey, problem, signature=b"")) == WRONG

        assert errors(complete_with(passkey, problem)) == {"mfa_token": "ticket_not_valid"}

    def test_failures_are_counted_with_those_of_the_password(
        self, passkey: Authenticator, settings: Settings
    ) -> None:
        settings.LOGIN_FAILURE_LIMIT = (3, 900)
        problem = begin_login()
        for _ in range(2):
            assert rejection(complete_with(passkey, problem, signature=b"")) == WRONG

        response = complete_with(passkey, problem)
        assert rejection(response) == (429, "rate_limited")
        assert response.headers["RateLimit-Policy"].startswith('"login-failures"')
        assert sign_in_with(passkey).status_code == 429

    def test_completing_it_clears_the_failures(
        self, passkey: Authenticator, settings: Settings
    ) -> None:
        settings.LOGIN_FAILURE_LIMIT = (3, 900)
        for _ in range(4):
            assert complete_with(passkey).status_code == 200

    def test_wrong_passkeys_are_no_wrong_codes(
        self, passkey: Authenticator, settings: Settings
    ) -> None:
        settings.CODE_FAILURE_LIMIT = (0, 86400)
        settings.LOGIN_FAILURE_LIMIT = (1_000_000, 60)
        for _ in range(3):
            assert rejection(complete_with(passkey, signature=b"")) == WRONG

        assert complete_with(passkey).status_code == 200

    def test_a_copy_is_rejected_and_reported(self, alice: User, sign_in: SignIn) -> None:
        passkey = add_passkey(sign_in(alice), counter=5)

        assert rejection(complete_with(passkey, counter=5)) == WRONG
        assert Event.objects.filter(kind="passkey_cloned").count() == 1
        assert ("passkey_cloned", "alice@example.com") in delivered()

    def test_a_password_that_must_change_is_asked_for_afterwards(
        self, passkey: Authenticator
    ) -> None:
        User.objects.update(must_change_password=True)
        response = complete_with(passkey)

        assert rejection(response) == (403, "password_change_required")
        assert len(response.json()["reset_token"]) == 43

    def test_removing_the_passkey_ends_logins_in_progress(
        self, passkey: Authenticator, device: APIClient
    ) -> None:
        problem = begin_login()
        assert device.delete(f"{PATH}/{passkey.response['id']}").status_code == 204

        assert errors(complete_with(passkey, problem)) == {"mfa_token": "ticket_not_valid"}

    @pytest.mark.django_db(transaction=True)
    def test_of_16_with_one_challenge_one_succeeds(
        self, passkey: Authenticator, settings: Settings
    ) -> None:
        settings.LOGIN_FAILURE_LIMIT = (1_000_000, 60)
        for _ in range(40):
            problem = begin_login()
            credential = passkey.get(problem["passkey_options"])
            body = {"mfa_token": problem["mfa_token"], "credential": credential}

            found = statuses(race(*[partial(post, "/auth/mfa", body)] * 16))

            assert found[200] == 1
            assert found[400] + found[401] == 15


class TestReauthentication:
    def test_a_passkey_makes_the_session_fresh(
        self, passkey: Authenticator, alice: User, device: APIClient
    ) -> None:
        alice.sessions.update(methods=["pwd"], factor_added_at=None)
        pair = post("/auth/refresh", {"refresh_token": device.tokens["refresh_token"]}).json()
        device = client_of(pair)
        stale = device.post(f"{PATH}/options")
        assert rejection(stale) == (403, "reauthentication_required")
        assert stale.json()["methods"] == ["password", "recovery_code", "passkey"]

        response = reauthenticate_with(device, passkey)

        assert response.status_code == 200, response.content
        assert claims_of(response.json())["amr"] == ["pop", "user", "mfa"]
        add_passkey(client_of(response.json()))
        assert Event.objects.filter(kind="reauthenticated").count() == 1

    @pytest.mark.parametrize("bent", BENT)
    def test_a_bent_credential_is_rejected(
        self, passkey: Authenticator, device: APIClient, bent: dict[str, Any]
    ) -> None:
        response = reauthenticate_with(device, passkey, **bent)

        assert errors(response) == {"credential": "invalid"}

    @pytest.mark.parametrize("junk", JUNK)
    def test_junk_is_rejected(self, device: APIClient, junk: Any) -> None:
        response = device.post(f"{API}/auth/reauthenticate", {"credential": junk})

        assert errors(response) == {"credential": "invalid"}

    @pytest.mark.parametrize("other", [{"password": PASSWORD}, {"code": "000000"}])
    def test_two_proofs_are_rejected(self, device: APIClient, other: Any) -> None:
        response = device.post(f"{API}/auth/reauthenticate", {"credential": {}, **other})

        assert errors(response) == {None: "invalid"}

    @pytest.mark.parametrize("body", [{}, {"credential": None}, {"code": "000000"}])
    def test_one_proof_is_required(self, device: APIClient, body: Any) -> None:
        response = device.post(f"{API}/auth/reauthenticate", body)

        assert errors(response) == {"password": "required"}

    def test_another_users_passkey_is_rejected(
        self, device: APIClient, stranger: User, sign_in: SignIn
    ) -> None:
        User.objects.update(email_verified_at=Now())
        other = add_passkey(sign_in(stranger))

        assert errors(reauthenticate_with(device, other)) == {"credential": "invalid"}

    def test_a_used_challenge_is_rejected(self, passkey: Authenticator, device: APIClient) -> None:
        credential = passkey.get(begin_sign_in())
        assert post("/auth/passkey", {"credential": credential}).status_code == 200

        response = device.post(f"{API}/auth/reauthenticate", {"credential": credential})
        assert errors(response) == {"credential": "invalid"}

    def test_failures_are_counted(
        self, passkey: Authenticator, device: APIClient, settings: Settings
    ) -> None:
        settings.LOGIN_FAILURE_LIMIT = (2, 900)
        for _ in range(2):
            assert reauthenticate_with(device, passkey, signature=b"").status_code == 400

        assert reauthenticate_with(device, passkey).status_code == 429
        assert sign_in_with(passkey).status_code == 429
        wrong = {"identity": "alice", "password": "a wrong one"}
        assert post("/auth/login", wrong).status_code == 429

    def test_a_copy_is_rejected_and_reported(self, alice: User, sign_in: SignIn) -> None:
        passkey = add_passkey(sign_in(alice), counter=5)
        device = device_of(passkey)
        response = reauthenticate_with(device, passkey, counter=1)

        assert errors(response) == {"credential": "invalid"}
        assert Event.objects.filter(kind="passkey_cloned").count() == 1
