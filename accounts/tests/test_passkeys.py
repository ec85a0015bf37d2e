"""Passkeys: how they are added, listed and removed, and whom that tells."""

from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import Event, Passkey, RecoveryCode, Session, StaleLoginError, Ticket, User
from accounts.models.passkeys import MAXIMUM
from accounts.webauthn import LONGEST_CREDENTIAL, encode
from conftest import API, SignIn
from tests.rig.authenticator import EDDSA, ES384, PRESENT, RS256, Authenticator
from tests.rig.lifecycle import delivered, errors, inbox, post
from tests.rig.passkeys import (
    PATH,
    add_passkey,
    begin_registration,
    begin_sign_in,
    device_of,
    register,
)

INVALID = {"credential": "invalid"}


@pytest.fixture(autouse=True)
def lifted_limits(settings: Settings) -> None:
    settings.AUTH_RATE_LIMIT = (1_000_000, 60)


@pytest.fixture
def alice(user: User) -> User:
    User.objects.filter(pk=user.pk).update(email_verified_at=Now())
    return User.objects.get(pk=user.pk)


@pytest.fixture
def device(alice: User, sign_in: SignIn) -> APIClient:
    return sign_in(alice)


def rejection(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


class TestRegistration:
    @pytest.mark.parametrize("synced", [True, False])
    def test_a_passkey_is_added(self, device: APIClient, alice: User, synced: bool) -> None:
        passkey = add_passkey(device, synced=synced)

        row = Passkey.objects.get()
        assert bytes(row.credential_id) == passkey.credential_id
        assert str(row) == "Laptop of alice"
        expected = {"id": str(row.pk), "name": "Laptop", "synced": synced, "last_used_at": None}
        assert passkey.response.items() >= expected.items()
        assert len(passkey.response["recovery_codes"]) == 10
        user = User.objects.get(pk=alice.pk)
        assert user.has_second_factor
        assert user.factor_methods() == ["recovery_code", "passkey"]

    @pytest.mark.parametrize("algorithm", [EDDSA, RS256])
    def test_other_algorithms_are_accepted(self, device: APIClient, algorithm: int) -> None:
        device_of(add_passkey(device, algorithm=algorithm))

    def test_the_options_name_the_user_by_a_handle(self, device: APIClient, alice: User) -> None:
        options = begin_registration(device)

        alice.refresh_from_db()
        assert options["user"]["id"] == encode(alice.passkey_handle.bytes)
        assert (options["user"]["name"], options["user"]["displayName"]) == ("alice", "alice")
        assert options["rp"] == {"id": "localhost", "name": "Latchkey"}
        assert options["excludeCredentials"] == []
        assert begin_registration(device)["user"] == options["user"]
        assert not Event.objects.filter(kind="account_changed").exists()

    def test_the_options_exclude_the_users_passkeys(self, device: APIClient) -> None:
        passkey = add_passkey(device)
        options = begin_registration(device_of(passkey))

        own = {"type": "public-key", "transports": ["internal"]}
        assert options["excludeCredentials"] == [{**own, "id": encode(passkey.credential_id)}]

    def test_recovery_codes_come_with_the_first_factor_only(self, device: APIClient) -> None:
        device = device_of(add_passkey(device))

        assert add_passkey(device).response["recovery_codes"] is None
        assert RecoveryCode.objects.count() == 10

    def test_it_ends_the_other_sessions_without_a_factor(
        self, device: APIClient, alice: User, sign_in: SignIn
    ) -> None:
        other = sign_in(alice)
        add_passkey(device)

        assert device.get(f"{API}/users/me").status_code == 200
        assert other.get(f"{API}/users/me").status_code == 401
        assert Session.objects.get(end_reason="factor_changed").methods == ["pwd"]

    def test_it_sends_a_notice_with_an_undo(self, device: APIClient) -> None:
        add_passkey(device, credential_id=b"the name of a key")

        [message] = inbox("alice@example.com")
        assert message.subject == "A second factor was added"
        assert "/reset-password#token=" in str(message.body)
        event = Event.objects.get(kind="factor_added")
        assert event.detail == "passkey"

    def test_a_factor_that_outranks_the_mailbox_sends_no_undo(self, device: APIClient) -> None:
        passkey = add_passkey(device)
        Passkey.objects.update(created_at=Now() - timedelta(days=8))
        add_passkey(device_of(passkey))

        assert Ticket.objects.filter(purpose="undo").count() == 1

    @pytest.mark.parametrize(
        ("name", "code"),
        [(None, "null"), ("", "blank"), ("a" * 51, "max_length"), (7, "invalid"),
         ("a\u202eb", "invalid"), (["a"], "invalid")],
    )  # fmt: skip
    def test_a_name_is_a_line_of_text(self, device: APIClient, name: Any, code: str) -> None:
        credential = Authenticator().create(begin_registration(device))
        response = device.post(PATH, {"name": name, "credential": credential})

        assert errors(response) == {"name": code}
        assert device.post(PATH, {"name": " a ", "credential": credential}).json()["name"] == "a"

    def test_an_unverified_user_adds_none(
        self, device: APIClient, alice: User, sign_in: SignIn
    ) -> None:
        credential = Authenticator().create(begin_registration(device))
        User.objects.update(email_verified_at=None)

        assert rejection(device.post(f"{PATH}/options")) == (403, "email_not_verified")
        body = {"name": "Laptop", "credential": credential}
        assert rejection(device.post(PATH, body)) == (403, "email_not_verified")
        assert not Passkey.objects.exists()

    def test_a_stale_session_adds_and_removes_none(self, device: APIClient, alice: User) -> None:
        passkey = add_passkey(device)
        device = device_of(passkey)
        alice.sessions.update(authenticated_at=Now() - timedelta(minutes=11))
        refreshed = post("/auth/refresh", {"refresh_token": device.tokens["refresh_token"]}).json()
        device.credentials(HTTP_AUTHORIZATION=f"Bearer {refreshed['access_token']}")

        path = f"{PATH}/{passkey.response['id']}"
        for response in (device.post(f"{PATH}/options"), device.post(PATH), device.delete(path)):
            assert rejection(response) == (403, "reauthentication_required")
        assert device.get(PATH).json()["count"] == 1

    def test_a_user_has_at_most_20(self, device: APIClient, alice: User) -> None:
        credential = Authenticator().create(begin_registration(device))
        fill(alice, MAXIMUM)

        body = {"name": "Laptop", "credential": credential}
        for response in (device.post(PATH, body), device.post(f"{PATH}/options")):
            assert rejection(response) == (409, "limit_reached")
        assert Passkey.objects.count() == MAXIMUM
        Passkey.objects.first().delete()
        assert device.post(PATH, body).status_code == 201

    def test_a_session_that_ended_meanwhile_adds_none(self, alice: User, sign_in: SignIn) -> None:
        sign_in(alice)
        session = alice.sessions.get()
        options = Passkey.objects.begin_registration(alice)
        alice.end_sessions("staff")

        with pytest.raises(StaleLoginError):
            Passkey.objects.register(
                alice, Authenticator().create(options), "Laptop", session=session
            )

    def test_there_are_none_without_a_relying_party(
        self, device: APIClient, settings: Settings
    ) -> None:
        settings.WEBAUTHN_RP_ID, settings.WEBAUTHN_ORIGINS = "", []

        for response in (
            device.post(f"{PATH}/options"),
            device.post(PATH, {}),
            post("/auth/passkey/options", {}),
            post("/auth/passkey", {}),
        ):
            assert response.status_code == 404
        assert device.get(PATH).json()["count"] == 0


def fill(user: User, number: int) -> None:
    """Give a user so many passkeys."""
    values = {"user": user, "name": "Key", "public_key": b"", "sign_count": 0, "synced": False}
    Passkey.objects.bulk_create([Passkey(credential_id=b"%d" % n, **values) for n in range(number)])


class TestRejectedRegistration:
    @pytest.mark.parametrize(
        "bent",
        [
            {"origin": "https://example.org"},
            {"origin": "http://localhost:3001"},
            {"rp_id": "example.org"},
            {"flags": PRESENT},
            {"kind": "webauthn.get"},
            {"key": b"\x00"},
            {"challenge": encode(bytes(32))},
        ],
    )
    def test_a_bent_credential(self, device: APIClient, bent: dict[str, Any]) -> None:
        assert errors(register(device, Authenticator(), **bent)) == INVALID
        assert not Passkey.objects.exists()
        assert not User.objects.filter(has_second_factor=True).exists()

    def test_an_algorithm_that_was_not_offered(self, device: APIClient) -> None:
        assert errors(register(device, Authenticator(algorithm=ES384))) == INVALID

    @pytest.mark.parametrize(
        "junk",
        ["text", 7, 1.5, True, False, [], {}, [{}], {"id": "AA"}, {"response": {}},
         {"id": "AA", "response": {"clientDataJSON": "e30"}}, {"id": "a" * LONGEST_CREDENTIAL}],
    )  # fmt: skip
    def test_junk(self, device: APIClient, junk: Any) -> None:
        response = device.post(PATH, {"name": "Laptop", "credential": junk})

        assert errors(response) == INVALID

    @pytest.mark.parametrize("body", [{"name": "Laptop"}, {"name": "Laptop", "credential": None}])
    def test_none(self, device: APIClient, body: Any) -> None:
        assert errors(device.post(PATH, body)) == {"credential": "required"}

    def test_a_used_challenge(self, device: APIClient) -> None:
        credential = Authenticator().create(begin_registration(device))
        body = {"name": "Laptop", "credential": credential}
        assert device.post(PATH, body).status_code == 201
        Passkey.objects.all().delete()
        User.objects.update(has_second_factor=False)

        assert errors(device.post(PATH, body)) == INVALID

    def test_an_expired_challenge(self, device: APIClient) -> None:
        credential = Authenticator().create(begin_registration(device))
        Ticket.objects.update(expires_at=Now())

        assert errors(device.post(PATH, {"name": "Laptop", "credential": credential})) == INVALID

    def test_a_challenge_of_a_sign_in(self, device: APIClient) -> None:
        challenge = begin_sign_in()["challenge"]

        assert errors(register(device, Authenticator(), challenge=challenge)) == INVALID

    def test_a_challenge_of_another_user(
        self, device: APIClient, stranger: User, sign_in: SignIn
    ) -> None:
        User.objects.update(email_verified_at=Now())
        challenge = begin_registration(sign_in(stranger))["challenge"]

        assert errors(register(device, Authenticator(), challenge=challenge)) == INVALID

    def test_a_passkey_of_another_user(
        self, device: APIClient, stranger: User, sign_in: SignIn
    ) -> None:
        passkey = add_passkey(device)
        User.objects.update(email_verified_at=Now())
        response = register(sign_in(stranger), Authenticator(credential_id=passkey.credential_id))

        assert errors(response) == INVALID
        assert Passkey.objects.count() == 1
        assert not User.objects.get(pk=stranger.pk).has_second_factor


class TestList:
    def test_it_has_the_users_own_in_pages(
        self, device: APIClient, stranger: User, sign_in: SignIn
    ) -> None:
        passkey = add_passkey(device)
        device = device_of(passkey)
        add_passkey(device, synced=True)

        page = device.get(f"{PATH}?limit=1").json()
        assert (page["count"], len(page["results"])) == (2, 1)
        [row] = page["results"]
        assert row.keys() == {"id", "name", "created_at", "last_used_at", "synced"}
        assert row["id"] == passkey.response["id"]
        assert row["last_used_at"] is not None
        assert sign_in(stranger).get(PATH).json()["count"] == 0
        security = device.get(f"{API}/users/me/security").json()
        assert (security["passkeys"], security["recovery_codes_left"]) == (2, 10)

    def test_it_needs_a_token(self, client: APIClient, db: None) -> None:
        assert client.get(PATH).status_code == 401


class TestRemoval:
    def test_the_last_factor_takes_the_recovery_codes(self, device: APIClient, alice: User) -> None:
        passkey = add_passkey(device)
        device = device_of(passkey)
        response = device.delete(f"{PATH}/{passkey.response['id']}")

        assert (response.status_code, response.content) == (204, b"")
        assert not Passkey.objects.exists()
        assert not RecoveryCode.objects.exists()
        assert not User.objects.get(pk=alice.pk).has_second_factor
        assert Event.objects.get(kind="factor_removed").detail == "passkey"
        assert ("factor_removed", "alice@example.com") in delivered()

    def test_another_one_keeps_the_recovery_codes(self, device: APIClient, alice: User) -> None:
        passkey = add_passkey(device)
        device = device_of(passkey)
        other = add_passkey(device)
        assert device.delete(f"{PATH}/{other.response['id']}").status_code == 204

        assert RecoveryCode.objects.count() == 10
        assert User.objects.get(pk=alice.pk).has_second_factor
        assert device_of(passkey).get(PATH).json()["count"] == 1

    def test_another_users_does_not_exist(
        self, device: APIClient, stranger: User, sign_in: SignIn
    ) -> None:
        passkey = add_passkey(device)
        path = f"{PATH}/{passkey.response['id']}"

        assert sign_in(stranger).delete(path).status_code == 404
        assert Passkey.objects.count() == 1

    def test_a_session_that_ended_meanwhile_removes_none(self, device: APIClient) -> None:
        passkey = add_passkey(device)
        user = User.objects.get()
        session = user.sessions.first()
        user.end_sessions("staff")

        with pytest.raises(StaleLoginError):
            Passkey.objects.remove(user, passkey.response["id"], session=session)

    def test_deletion_of_the_account_removes_them(self, device: APIClient, alice: User) -> None:
        device = device_of(add_passkey(device))
        assert device.delete(f"{API}/users/{alice.pk}").status_code == 204

        assert not Passkey.objects.exists()
