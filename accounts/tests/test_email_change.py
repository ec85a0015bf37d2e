"""The address of an account: verified, and changed in three steps."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db.models.functions import Now
from pytest_django import DjangoAssertNumQueries, Settings

from accounts.models import Event, OutgoingEmail, Session, Ticket, User
from conftest import API, PASSWORD, SignIn
from tests.rig.lifecycle import (
    NEW_PASSWORD,
    change_address,
    delivered,
    errors,
    inbox,
    make_stale,
    post,
    request_change,
    reset,
    reset_by_email,
    stored,
    token_sent_to,
    verify,
)

pytestmark = pytest.mark.usefixtures("lifted_limits")
FORMER, ADDRESS = "alice@example.com", "new@example.com"


def ask(device: Any, email: Any) -> Any:
    return device.post(f"{API}/users/me/email", {"email": email})


class TestVerification:
    def test_a_link_goes_to_the_callers_address(self, user: User, sign_in: SignIn) -> None:
        device = sign_in(user)
        response = device.post(f"{API}/users/me/email/verification")

        assert (response.status_code, response.content) == (202, b"{}")
        verified = verify(device, token_sent_to(FORMER))
        assert (verified.status_code, verified.json()["email_verified"]) == (200, True)
        assert device.get(f"{API}/users/me").json() == verified.json()
        kinds = Event.objects.filter(user_id=user.pk).order_by("id").values_list("kind", flat=True)
        assert list(kinds) == ["account_created", "signed_in", "email_verified"]

    def test_nothing_is_sent_to_a_verified_address(self, user: User, sign_in: SignIn) -> None:
        User.objects.update(email_verified_at=Now())

        response = sign_in(user).post(f"{API}/users/me/email/verification")

        assert (response.status_code, response.content) == (202, b"{}")
        assert delivered() == []

    def test_sessions_stay(self, user: User, sign_in: SignIn) -> None:
        device, other = sign_in(user), sign_in(user)
        device.post(f"{API}/users/me/email/verification")
        verify(device, token_sent_to(FORMER))

        assert other.get(f"{API}/users/me").status_code == 200

    def test_another_users_session_verifies_nothing(
        self, user: User, stranger: User, sign_in: SignIn
    ) -> None:
        device = sign_in(user)
        device.post(f"{API}/users/me/email/verification")
        token = token_sent_to(FORMER)

        assert errors(verify(sign_in(stranger), token)) == {"token": "ticket_not_valid"}
        assert not User.objects.exclude(email_verified_at=None).exists()
        assert verify(device, token).status_code == 200

    def test_the_email_without_a_session_verifies_nothing(
        self, user: User, sign_in: SignIn
    ) -> None:
        sign_in(user).post(f"{API}/users/me/email/verification")

        response = post("/users/me/email/verify", {"token": token_sent_to(FORMER)})

        assert response.status_code == 401
        assert not stored(user).email_verified

    def test_a_change_of_address_ends_the_link(self, user: User, sign_in: SignIn) -> None:
        device = sign_in(user)
        device.post(f"{API}/users/me/email/verification")
        token = token_sent_to(FORMER)
        user = stored(user)
        user.email = ADDRESS
        user.save()

        assert errors(verify(sign_in(user), token)) == {"token": "ticket_not_valid"}
        assert not stored(user).email_verified

    def test_a_link_of_a_former_address_verifies_nothing(self, user: User, sign_in: SignIn) -> None:
        # As it is issued for a row that was read just before the change.
        ticket = Ticket.objects.issue("verify", user, address="former@example.com")

        assert errors(verify(sign_in(user), ticket.token)) == {"token": "ticket_not_valid"}
        assert not stored(user).email_verified

    def test_the_recipients_limit_holds(
        self, user: User, sign_in: SignIn, settings: Settings
    ) -> None:
        settings.EMAIL_LIMIT = (3, 3600)
        device = sign_in(user)
        responses = [device.post(f"{API}/users/me/email/verification") for _ in range(5)]

        assert {response.status_code for response in responses} == {202}
        assert len(inbox(FORMER)) == 3


class TestRequest:
    def test_nothing_changes_yet(self, user: User, sign_in: SignIn) -> None:
        device = sign_in(user)
        response = ask(device, ADDRESS)

        assert (response.status_code, response.content) == (202, b"{}")
        assert device.get(f"{API}/users/me").json()["email"] == FORMER
        assert device.get(f"{API}/users/me/security").json()["pending_email"] == ADDRESS
        assert delivered() == [("confirm_email", ADDRESS), ("email_change_asked", FORMER)]
        assert Event.objects.filter(kind="email_change_asked", user_id=user.pk).count() == 1

    def test_it_needs_a_fresh_token(self, user: User, sign_in: SignIn) -> None:
        device = sign_in(user)
        make_stale(user)
        pair = post("/auth/refresh", {"refresh_token": device.tokens["refresh_token"]}).json()
        device.credentials(HTTP_AUTHORIZATION=f"Bearer {pair['access_token']}")

        response = ask(device, ADDRESS)

        assert (response.status_code, response.json()["code"]) == (403, "reauthentication_required")
        assert response.json()["methods"] == ["password"]
        assert not OutgoingEmail.objects.exists()

    @pytest.mark.parametrize("email", [FORMER, "ALICE@Example.com", f" {FORMER} "])
    def test_the_own_address_is_unchanged(self, user: User, sign_in: SignIn, email: str) -> None:
        assert errors(ask(sign_in(user), email)) == {"email": "unchanged"}
        assert not OutgoingEmail.objects.exists()

    def test_a_taken_address_gets_the_same_response_and_its_owner_a_notice(
        self, user: User, stranger: User, sign_in: SignIn
    ) -> None:
        device = sign_in(user)
        free, taken = ask(device, ADDRESS), ask(device, "MALLORY@example.com")

        assert (free.status_code, free.content) == (taken.status_code, taken.content)
        assert ("already_registered", stranger.email) in delivered()
        assert not OutgoingEmail.objects.filter(kind="confirm_email", address=stranger.email)

    @pytest.mark.parametrize("address", ["mallory@example.com", "free@example.com"])
    def test_the_pending_address_does_not_tell_whether_it_has_an_account(
        self, user: User, stranger: User, sign_in: SignIn, address: str
    ) -> None:
        device = sign_in(user)
        for asked in (ADDRESS, address):
            ask(device, asked)

        assert device.get(f"{API}/users/me/security").json()["pending_email"] == address
        assert Ticket.objects.open().filter(purpose="change").count() == 1

    def test_a_reserved_address_gets_the_same_response_and_no_email(
        self, user: User, stranger: User, sign_in: SignIn
    ) -> None:
        change_address(sign_in(stranger), ADDRESS)
        response = ask(sign_in(user), "mallory@example.com")

        assert (response.status_code, response.content) == (202, b"{}")
        assert ("already_registered", "mallory@example.com") in delivered()
        assert not OutgoingEmail.objects.filter(kind="confirm_email", user=user).exists()

    def test_a_newer_request_ends_the_older(self, user: User, sign_in: SignIn) -> None:
        device = sign_in(user)
        older, newer = request_change(device, ADDRESS), request_change(device, "b@example.com")

        assert device.get(f"{API}/users/me/security").json()["pending_email"] == "b@example.com"
        assert errors(verify(device, older)) == {"token": "ticket_not_valid"}
        assert verify(device, newer).json()["email"] == "b@example.com"

    def test_a_user_deactivated_since_the_token_was_read_is_a_401(
        self, user: User, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        request = User.request_email_change

        def deactivate_before(self: User, address: str, session: Session) -> None:
            User.objects.filter(pk=self.pk).update(is_active=False)
            request(self, address, session=session)

        monkeypatch.setattr(User, "request_email_change", deactivate_before)

        response = ask(sign_in(user), ADDRESS)

        assert (response.status_code, response.json()["code"]) == (401, "token_not_valid")
        assert not OutgoingEmail.objects.exists()
        assert not Event.objects.filter(kind="email_change_asked").exists()

    @pytest.mark.parametrize(
        ("email", "code"),
        [
            (None, "null"), ("", "blank"), (7, "invalid"), ([ADDRESS], "invalid"), ({}, "invalid"),
            (False, "invalid"), ("new", "invalid"), ("n\u00e9w@example.com", "invalid"),
            ("new@exa mple.com", "invalid"), ("new@\u200bexample.com", "invalid"),
            ("x" * 250 + "@a.de", "max_length"), ("x" * 500_000, "max_length"),
        ],
    )  # fmt: skip
    def test_a_bad_address_writes_nothing(
        self, user: User, sign_in: SignIn, email: Any, code: str
    ) -> None:
        assert errors(ask(sign_in(user), email)) == {"email": code}
        assert not OutgoingEmail.objects.exists()

    def test_a_missing_address_is_required(self, user: User, sign_in: SignIn) -> None:
        response = sign_in(user).post(f"{API}/users/me/email", {})

        assert errors(response) == {"email": "required"}


class TestConfirmation:
    def test_the_address_changes_and_is_verified(self, user: User, sign_in: SignIn) -> None:
        device = sign_in(user)
        response = verify(device, request_change(device, ADDRESS))

        assert response.status_code == 200
        assert (response.json()["email"], response.json()["email_verified"]) == (ADDRESS, True)
        assert device.get(f"{API}/users/me").json() == response.json()
        assert device.get(f"{API}/users/me/security").json()["pending_email"] is None
        body = {"identity": ADDRESS, "password": PASSWORD}
        assert post("/auth/login", body).status_code == 200
        assert post("/auth/login", body | {"identity": FORMER}).status_code == 401

    def test_the_other_sessions_end(self, user: User, sign_in: SignIn) -> None:
        device, other = sign_in(user), sign_in(user)
        change_address(device, ADDRESS)

        assert device.get(f"{API}/users/me").status_code == 200
        assert other.get(f"{API}/users/me").status_code == 401
        ended = user.sessions.exclude(ended_at=None)
        assert [session.end_reason for session in ended] == ["email_changed"]

    def test_both_addresses_get_a_notice_and_the_former_an_undo(
        self, user: User, sign_in: SignIn
    ) -> None:
        change_address(sign_in(user), ADDRESS)

        assert delivered() == [
            ("confirm_email", ADDRESS), ("email_change_asked", FORMER),
            ("email_changed", FORMER), ("email_changed", ADDRESS),
        ]  # fmt: skip
        assert "#token=" in str(inbox(FORMER)[-1].body)
        assert "#token=" not in str(inbox(ADDRESS)[-1].body)
        undo = Ticket.objects.get(purpose="undo")
        change = Ticket.objects.get(purpose="change")
        assert undo.data == {"since": change.created_at.isoformat()}

    def test_open_tickets_end_but_not_an_undo(self, user: User, sign_in: SignIn) -> None:
        for purpose in ("verify", "reset", "undo", "force", "mfa"):
            Ticket.objects.issue(purpose, user, address=FORMER)
        change_address(sign_in(user), ADDRESS)

        assert {ticket.purpose for ticket in Ticket.objects.open()} == {"undo"}

    def test_another_users_session_changes_nothing(
        self, user: User, stranger: User, sign_in: SignIn
    ) -> None:
        token = request_change(sign_in(user), ADDRESS)

        assert errors(verify(sign_in(stranger), token)) == {"token": "ticket_not_valid"}
        assert (stored(user).email, stored(stranger).email) == (FORMER, "mallory@example.com")

    def test_a_token_works_once(self, user: User, sign_in: SignIn) -> None:
        device = sign_in(user)
        token = request_change(device, ADDRESS)
        assert verify(device, token).status_code == 200

        assert errors(verify(device, token)) == {"token": "ticket_not_valid"}

    def test_an_address_that_was_taken_meanwhile_is_unique(
        self, user: User, make_user: Callable[..., User], sign_in: SignIn
    ) -> None:
        device = sign_in(user)
        token = request_change(device, ADDRESS)
        bob = make_user("bob", email="NEW@example.com")

        assert errors(verify(device, token)) == {"token": "unique"}
        assert stored(user).email == FORMER
        User.objects.filter(pk=bob.pk).delete()
        assert verify(device, token).status_code == 200

    def test_a_session_that_ended_meanwhile_changes_nothing(
        self, user: User, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        device = sign_in(user)
        token = request_change(device, ADDRESS)
        confirm = User.confirm_email

        def end_before(self: User, *args: Any, **kwargs: Any) -> None:
            self.sessions.end("logout")
            confirm(self, *args, **kwargs)

        monkeypatch.setattr(User, "confirm_email", end_before)

        response = verify(device, token)

        assert (response.status_code, response.json()["code"]) == (401, "token_not_valid")
        assert stored(user).email == FORMER

    def test_events_name_no_address(self, user: User, sign_in: SignIn) -> None:
        change_address(sign_in(user), ADDRESS)
        reset(token_sent_to(FORMER))

        kinds = Event.objects.order_by("id").values_list("kind", flat=True)
        assert list(kinds) == [
            "account_created", "signed_in", "email_change_asked", "email_changed",
            "email_restored", "password_reset", "session_ended",
        ]  # fmt: skip
        assert "@" not in repr(list(Event.objects.values()))


class TestRoutes:
    PATHS = ("email", "email/verification", "email/verify")

    @pytest.mark.parametrize("path", PATHS)
    def test_each_needs_a_session(self, db: None, path: str) -> None:
        response = post(f"/users/me/{path}", {})

        assert (response.status_code, response.json()["code"]) == (401, "not_authenticated")

    @pytest.mark.parametrize("path", PATHS)
    def test_a_get_changes_nothing(self, user: User, sign_in: SignIn, path: str) -> None:
        response = sign_in(user).get(f"{API}/users/me/{path}")

        assert response.status_code == 405
        assert not OutgoingEmail.objects.exists()

    @pytest.mark.parametrize("path", PATHS)
    def test_each_is_limited(
        self, user: User, sign_in: SignIn, settings: Settings, path: str
    ) -> None:
        device = sign_in(user)
        settings.AUTH_RATE_LIMIT = (5, 60)
        responses = [device.post(f"{API}/users/me/{path}", {}) for _ in range(6)]

        assert all(response.status_code < 429 for response in responses[:5])
        assert responses[5].status_code == 429
        assert responses[5].headers["RateLimit-Policy"] == '"auth";q=5;w=60'

    def test_without_email_those_that_only_send_do_not_exist(
        self, user: User, sign_in: SignIn, settings: Settings
    ) -> None:
        device = sign_in(user)
        ticket = Ticket.objects.issue("verify", user, address=FORMER)
        settings.EMAIL_ENABLED = False

        assert device.post(f"{API}/users/me/email/verification").status_code == 404
        assert ask(device, ADDRESS).status_code == 404
        assert verify(device, ticket.token).status_code == 200
        assert device.delete(f"{API}/users/{user.pk}").status_code == 204
        assert not OutgoingEmail.objects.exists()


def test_security_says_how_the_account_is_protected(
    user: User, sign_in: SignIn, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    device = sign_in(user)
    with django_assert_num_queries(3):
        response = device.get(f"{API}/users/me/security")

    changed_at = response.json().pop("password_changed_at")
    assert response.json() | {"password_changed_at": None} == {
        "email_verified": False, "pending_email": None, "password_changed_at": None,
        "totp": False, "passkeys": 0, "recovery_codes_left": 0, "tokens": 0,
    }  # fmt: skip
    assert changed_at[:19] == f"{user.password_changed_at:%Y-%m-%dT%H:%M:%S}"
    assert response.headers["Cache-Control"] == "no-store"

    reset_by_email("alice", FORMER)
    again = sign_in(user, NEW_PASSWORD).get(f"{API}/users/me/security").json()
    assert again["email_verified"] is True
    assert again["password_changed_at"] > changed_at
    assert post("/users/me/security", {}).status_code in {401, 405}
