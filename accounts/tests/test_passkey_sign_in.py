"""Signing in with a passkey alone, and every reason why it does not."""

import os
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.utils import timezone
from prometheus_client import REGISTRY
from pytest_django import DjangoAssertNumQueries, Settings
from rest_framework.test import APIClient

from accounts.models import Event, Passkey, Session, Ticket, User
from accounts.passwords import BoundedBCryptSHA256PasswordHasher
from accounts.tests.test_fresh import claims_of
from accounts.webauthn import LONGEST_CREDENTIAL, encode
from conftest import API, PASSWORD, SignIn
from tests.rig.authenticator import ELIGIBLE, PRESENT, VERIFIED, Authenticator
from tests.rig.gunicorn import database_url
from tests.rig.lifecycle import delivered, errors, forgot, inbox, post, reset_by_email
from tests.rig.machine import ROOT
from tests.rig.passkeys import (
    PATH,
    add_passkey,
    begin_registration,
    begin_sign_in,
    device_of,
    sign_in_with,
)

ADDRESS = "alice@example.com"


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


@pytest.fixture
def passkey(device: APIClient) -> Authenticator:
    return add_passkey(device)


def rejection(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def present(credential: Any) -> Any:
    return post("/auth/passkey", {"credential": credential})


WRONG = (401, "invalid_credentials")


class TestSignIn:
    def test_it_proves_two_factors(self, passkey: Authenticator, alice: User) -> None:
        response = sign_in_with(passkey)

        assert response.status_code == 200
        pair = response.json()
        assert pair["user"]["username"] == "alice"
        assert claims_of(pair)["amr"] == ["pop", "user", "mfa"]
        session = Session.objects.latest("created_at")
        row = Passkey.objects.get()
        assert session.methods == ["pop", "user", "mfa"]
        assert session.factor_added_at == row.created_at
        assert row.last_used_at is not None
        event = Event.objects.filter(kind="signed_in").latest("id")
        assert event.detail == "pop, user, mfa"

    def test_the_session_is_fresh(self, passkey: Authenticator) -> None:
        add_passkey(device_of(passkey))

    def test_the_options_name_no_passkey(self, db: None) -> None:
        options = begin_sign_in()

        assert options.keys() == {"challenge", "timeout", "rpId", "userVerification"}
        assert options["userVerification"] == "required"
        ticket = Ticket.objects.get()
        assert (ticket.user, ticket.data) == (None, {"ceremony": "sign_in"})
        assert ticket.token == options["challenge"]
        assert ticket.expires_at - ticket.created_at == timedelta(minutes=5)

    def test_the_authorization_header_is_ignored(self, passkey: Authenticator) -> None:
        header = {"HTTP_AUTHORIZATION": "Bearer nonsense"}
        options = post("/auth/passkey/options", {}, **header).json()
        response = post("/auth/passkey", {"credential": passkey.get(options)}, **header)

        assert response.status_code == 200

    def test_it_clears_the_failures(self, passkey: Authenticator, settings: Settings) -> None:
        settings.LOGIN_FAILURE_LIMIT = (3, 900)
        for _ in range(2):
            assert rejection(sign_in_with(passkey, signature=b"")) == WRONG
            assert rejection(sign_in_with(passkey, signature=b"")) == WRONG
            assert sign_in_with(passkey).status_code == 200

    def test_a_new_device_gets_a_notice(self, passkey: Authenticator, device: APIClient) -> None:
        delivered()
        credential = passkey.get(begin_sign_in())
        agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
        response = post("/auth/passkey", {"credential": credential}, HTTP_USER_AGENT=agent)

        assert response.status_code == 200
        assert ("new_device", ADDRESS) in delivered()

    def test_a_password_that_must_change_is_asked_for(
        self, passkey: Authenticator, alice: User
    ) -> None:
        User.objects.filter(pk=alice.pk).update(must_change_password=True)
        response = sign_in_with(passkey)

        assert rejection(response) == (403, "password_change_required")
        assert len(response.json()["reset_token"]) == 43

    def test_a_reset_keeps_the_passkey(self, passkey: Authenticator) -> None:
        reset_by_email("alice", ADDRESS)

        assert sign_in_with(passkey).status_code == 200

    def test_secrets_may_be_changed(self, passkey: Authenticator, settings: Settings) -> None:
        options = begin_sign_in()
        settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
        settings.SECRET_KEY = "another secret of the service, which is new"

        assert present(passkey.get(options)).status_code == 200


class TestCounter:
    @pytest.mark.parametrize("synced", [True, False])
    def test_it_grows(self, device: APIClient, synced: bool) -> None:
        passkey = add_passkey(device, counter=5, synced=synced)
        device_of(passkey)

        assert Passkey.objects.get().sign_count == 6

    @pytest.mark.parametrize(("stored", "sent"), [(5, 5), (5, 4), (5, 0), (2**32 - 1, 1)])
    def test_a_device_bound_passkey_that_does_not_count_is_a_copy(
        self, device: APIClient, stored: int, sent: int
    ) -> None:
        passkey = add_passkey(device, counter=stored)
        response = sign_in_with(passkey, counter=sent)

        assert rejection(response) == WRONG
        assert Passkey.objects.get().sign_count == stored
        event = Event.objects.get(kind="passkey_cloned")
        assert (event.username, event.detail) == ("alice", "")
        [_, message] = inbox(ADDRESS)
        assert message.subject == "A passkey was rejected"
        assert Session.objects.count() == 1

    def test_the_challenge_of_a_copy_works_once(self, device: APIClient) -> None:
        passkey = add_passkey(device, counter=5)
        options = begin_sign_in()
        credential = passkey.get(options, counter=3)

        assert [rejection(present(credential)) for _ in range(3)] == [WRONG] * 3
        assert Event.objects.filter(kind="passkey_cloned").count() == 1
        assert rejection(present(passkey.get(options))) == WRONG

    @pytest.mark.parametrize("sent", [5, 4, 0])
    def test_a_synced_passkey_need_not_count(self, device: APIClient, sent: int) -> None:
        passkey = add_passkey(device, counter=5, synced=True)

        assert sign_in_with(passkey, counter=sent).status_code == 200
        assert Passkey.objects.get().sign_count == sent
        assert not Event.objects.filter(kind="passkey_cloned").exists()

    def test_an_authenticator_without_a_counter_is_accepted(self, passkey: Authenticator) -> None:
        device_of(passkey)
        device_of(passkey)

    def test_a_copy_does_not_pretend_to_be_synced(self, device: APIClient) -> None:
        passkey = add_passkey(device, counter=5)
        response = sign_in_with(passkey, counter=5, flags=PRESENT | VERIFIED | ELIGIBLE)

        assert rejection(response) == WRONG

    def test_a_failed_sign_in_records_no_use(self, device: APIClient) -> None:
        passkey = add_passkey(device, counter=5)
        sign_in_with(passkey, signature=b"")

        row = Passkey.objects.get()
        assert (row.sign_count, row.last_used_at) == (5, None)


class TestRejected:
    @pytest.mark.parametrize(
        "bent",
        [
            {"origin": "https://example.org"},
            {"origin": "http://localhost:3001"},
            {"cross_origin": True},
            {"rp_id": "example.org"},
            {"flags": PRESENT},
            {"kind": "webauthn.create"},
            {"signature": b"bent"},
            {"challenge": encode(bytes(32))},
            {"challenge": ""},
            {"user_handle": None},
            {"user_handle": encode(bytes(16))},
        ],
    )
    def test_a_bent_credential(self, passkey: Authenticator, bent: dict[str, Any]) -> None:
        assert rejection(sign_in_with(passkey, **bent)) == WRONG
        assert Session.objects.count() == 1

    @pytest.mark.parametrize(
        "junk",
        ["text", 7, 1.5, True, False, [], {}, [{}], {"id": "AA"}, {"response": {}},
         {"id": "AA", "response": {"clientDataJSON": "e30"}}, {"id": "a" * LONGEST_CREDENTIAL}],
    )  # fmt: skip
    def test_junk(self, client: APIClient, db: None, junk: Any) -> None:
        assert rejection(present(junk)) == WRONG

    @pytest.mark.parametrize("body", [{}, {"credential": None}])
    def test_none(self, db: None, body: Any) -> None:
        assert errors(post("/auth/passkey", body)) == {"credential": "required"}

    def test_a_used_challenge(self, passkey: Authenticator) -> None:
        credential = passkey.get(begin_sign_in())

        assert present(credential).status_code == 200
        assert rejection(present(credential)) == WRONG

    def test_an_expired_challenge(self, passkey: Authenticator) -> None:
        credential = passkey.get(begin_sign_in())
        Ticket.objects.filter(purpose="passkey").update(expires_at=Now())

        assert rejection(present(credential)) == WRONG

    def test_a_challenge_of_a_registration(self, passkey: Authenticator) -> None:
        challenge = begin_registration(device_of(passkey))["challenge"]

        assert rejection(sign_in_with(passkey, challenge=challenge)) == WRONG

    def test_a_ticket_of_another_purpose(self, passkey: Authenticator) -> None:
        forgot("alice")
        ticket = Ticket.objects.issue("reset", User.objects.get(), address=ADDRESS)

        assert rejection(sign_in_with(passkey, challenge=ticket.token)) == WRONG

    def test_a_passkey_that_was_removed(self, passkey: Authenticator) -> None:
        device = device_of(passkey)
        assert device.delete(f"{PATH}/{passkey.response['id']}").status_code == 204

        assert rejection(sign_in_with(passkey)) == WRONG

    def test_a_passkey_that_was_never_added(self, passkey: Authenticator) -> None:
        other = Authenticator(user_handle=passkey.user_handle)

        assert rejection(sign_in_with(other)) == WRONG

    def test_a_passkey_of_another_user(
        self, passkey: Authenticator, stranger: User, sign_in: SignIn
    ) -> None:
        User.objects.update(email_verified_at=Now())
        other = add_passkey(sign_in(stranger))

        assert rejection(sign_in_with(other, user_handle=passkey.user_handle)) == WRONG
        assert Event.objects.filter(username="alice", detail="wrong passkey").exists()

    def test_an_inactive_user(self, passkey: Authenticator, alice: User) -> None:
        alice.is_active = False
        alice.save()

        assert rejection(sign_in_with(passkey)) == WRONG
        assert Event.objects.filter(username="alice", detail="inactive").exists()

    def test_the_responses_do_not_differ(self, passkey: Authenticator, alice: User) -> None:
        removed = Authenticator(user_handle=passkey.user_handle)
        responses = [
            present({}),
            sign_in_with(Authenticator(user_handle=encode(bytes(16)))),
            sign_in_with(removed),
            sign_in_with(passkey, signature=b""),
        ]
        alice.is_active = False
        alice.save()
        responses.append(sign_in_with(passkey))

        bodies = [{**response.json(), "request_id": ""} for response in responses]
        assert bodies == [bodies[0]] * 5


class TestMetrics:
    def test_uses_are_counted_by_their_outcome(self, device: APIClient) -> None:
        passkey = add_passkey(device, counter=5)
        before = uses()

        device_of(passkey)
        sign_in_with(passkey, signature=b"")
        sign_in_with(passkey, counter=5)

        assert {name: uses()[name] - before[name] for name in before} == {
            "accepted": 1,
            "refused": 1,
            "cloned": 1,
        }


def uses() -> dict[str, float]:
    name = "latchkey_passkeys_total"
    outcomes = ["accepted", "refused", "cloned"]
    values = [REGISTRY.get_sample_value(name, {"outcome": outcome}) for outcome in outcomes]
    return dict(zip(outcomes, values, strict=True))


class TestGuessing:
    def test_failures_count_for_the_account(
        self, passkey: Authenticator, alice: User, settings: Settings
    ) -> None:
        settings.LOGIN_FAILURE_LIMIT = (3, 900)
        wrong = {"identity": "alice", "password": "a wrong one"}
        assert post("/auth/login", wrong).status_code == 401
        for _ in range(2):
            assert rejection(sign_in_with(passkey, signature=b"")) == WRONG

        response = sign_in_with(passkey)
        assert rejection(response) == (429, "rate_limited")
        assert response.headers["RateLimit-Policy"].startswith('"login-failures"')
        assert post("/auth/login", wrong).status_code == 429

    def test_unknown_handles_are_counted_by_themselves(self, db: None, settings: Settings) -> None:
        settings.LOGIN_FAILURE_LIMIT = (1, 900)
        unknown = Authenticator(user_handle=encode(bytes(16)))

        assert rejection(sign_in_with(unknown)) == WRONG
        assert sign_in_with(unknown).status_code == 429
        assert rejection(sign_in_with(Authenticator(user_handle=encode(bytes(15) + b"1")))) == WRONG

    def test_requests_are_limited(self, db: None, settings: Settings) -> None:
        settings.AUTH_RATE_LIMIT = (5, 60)

        for path in ("/auth/passkey", "/auth/passkey/options"):
            found = [post(path, {}).status_code for _ in range(6)]
            assert found[5] == 429
            assert 429 not in found[:5]


class TestCost:
    def test_the_challenge_costs_one_row(
        self, db: None, client: APIClient, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        with django_assert_num_queries(4):  # begin, write, read and commit
            client.post(f"{API}/auth/passkey/options", {})

    def test_junk_costs_no_statement(
        self, db: None, client: APIClient, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        with django_assert_num_queries(0):
            client.post(f"{API}/auth/passkey", {"credential": {}})

    @pytest.mark.django_db(transaction=True)
    def test_a_worker_that_verifies_none_does_not_import_the_library(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch, make_user: Any, sign_in: SignIn
    ) -> None:
        settings.PASSWORD_HASHERS = ["accounts.passwords.BoundedBCryptSHA256PasswordHasher"]
        monkeypatch.setattr(BoundedBCryptSHA256PasswordHasher, "rounds", 4)
        user = make_user("alice", email_verified_at=timezone.now())
        make_user("bob")
        add_passkey(sign_in(user))

        output = subprocess.check_output(
            [sys.executable, "-c", LOGINS],
            cwd=ROOT,
            env=os.environ
            | {"DJANGO_SETTINGS_MODULE": "tests.rig.settings", "BCRYPT_ROUNDS": "4"}
            | {"DATABASE_URL": database_url()},
            text=True,
        )

        assert output == "200 403 200 401 False False\n"


LOGINS = f"""if True:
    import logging, sys
    from config.wsgi import application
    from django.test import Client
    logging.disable()
    client, found = Client(), []
    for path, body in [
        ("login", {{"identity": "bob", "password": "{PASSWORD}"}}),
        ("login", {{"identity": "alice", "password": "{PASSWORD}"}}),
        ("passkey/options", {{}}),
        ("passkey", {{"credential": {{}}}}),
    ]:
        url = f"{API}/auth/{{path}}"
        response = client.post(url, body, "application/json", headers={{"Host": "localhost"}})
        found.append(response.status_code)
    print(*found, "webauthn" in sys.modules, "cbor2" in sys.modules)
"""
