"""A forgotten password: who gets an email, and what the new password ends, clears and proves."""

from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client
from pytest_django import DjangoAssertNumQueries, Settings
from rest_framework.test import APIClient

from accounts import passwords
from accounts.models import (
    Event,
    OutgoingEmail,
    Session,
    SessionQuerySet,
    Ticket,
    User,
    credentials,
)
from conftest import API, PASSWORD, SignIn
from tests.rig.lifecycle import (
    NEW_PASSWORD,
    change_address,
    delivered,
    errors,
    forgot,
    inbox,
    post,
    reset,
    reset_by_email,
    token_sent_to,
)

ADDRESS = "alice@example.com"


@pytest.fixture(autouse=True)
def lifted_limits(settings: Settings) -> None:
    settings.AUTH_RATE_LIMIT = (1_000_000, 60)


def login(password: str, identity: str = "alice", **extra: str) -> Any:
    return post("/auth/login", {"identity": identity, "password": password}, **extra)


def forced_token(user: User) -> str:
    """Return the token that a login of a user who must change the password responds."""
    User.objects.filter(pk=user.pk).update(must_change_password=True)
    response = login(PASSWORD)
    assert (response.status_code, response.json()["code"]) == (403, "password_change_required")
    return str(response.json()["reset_token"])


class TestForgot:
    @pytest.mark.parametrize("identity", ["alice", "ALICE", "Alice@Example.COM", " alice "])
    def test_the_accounts_address_gets_a_link(self, user: User, identity: str) -> None:
        forgot(identity)

        assert delivered() == [("reset_password", ADDRESS)]
        assert reset(token_sent_to(ADDRESS)).status_code == 204
        assert login(NEW_PASSWORD).status_code == 200

    @pytest.mark.parametrize(
        "identity",
        ["nobody", "nobody@example.com", "not a username!", "@", "b@d@x", "\u212a", "\ufdfa" * 254],
    )
    def test_an_unknown_identity_gets_the_same_response_and_no_email(
        self, user: User, identity: str
    ) -> None:
        known = post("/auth/password/forgot", {"identity": "alice"})
        unknown = post("/auth/password/forgot", {"identity": identity})

        assert (known.status_code, known.content) == (202, b"{}")
        assert (unknown.status_code, unknown.content) == (202, b"{}")
        differing = {"X-Request-ID", "RateLimit"}
        headers = [
            {name: value for name, value in response.headers.items() if name not in differing}
            for response in (known, unknown)
        ]
        assert headers[0] == headers[1]
        assert delivered() == [("reset_password", ADDRESS)]

    def test_the_link_does_not_depend_on_the_host_of_the_request(
        self, user: User, settings: Settings
    ) -> None:
        settings.ALLOWED_HOSTS, settings.PUBLIC_URL = ["*"], "https://api.example.com"
        extra = {"HTTP_HOST": "evil.example", "HTTP_X_FORWARDED_HOST": "evil.example"}
        assert post("/auth/password/forgot", {"identity": "alice"}, **extra).status_code == 202

        [message] = inbox(ADDRESS)
        assert "https://api.example.com/account/reset-password#token=" in str(message.body)
        assert "evil" not in message.message().as_string()

    def test_an_inactive_user_gets_no_email(self, user: User) -> None:
        User.objects.filter(pk=user.pk).update(is_active=False)
        forgot("alice")

        assert delivered() == []

    def test_above_the_limit_no_more_is_sent_and_sent_links_work(
        self, user: User, settings: Settings
    ) -> None:
        settings.EMAIL_LIMIT = (2, 3600)
        forgot("alice")
        first = token_sent_to(ADDRESS)
        for _ in range(5):
            forgot("alice")

        assert len(inbox(ADDRESS)) == 2
        assert reset(first).status_code == 204

    def test_a_network_that_entered_too_much_gets_the_same_response(self, user: User) -> None:
        responses = [post("/auth/password/forgot", {"identity": f"no-{n}"}) for n in range(25)]

        assert {(r.status_code, r.content) for r in responses} == {(202, b"{}")}
        assert OutgoingEmail.objects.count() == 20

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ({}, "required"), ({"identity": None}, "null"), ({"identity": 7}, "invalid"),
            ({"identity": ["alice"]}, "invalid"), ({"identity": {}}, "invalid"),
            ({"identity": True}, "invalid"), ({"identity": ""}, "blank"),
            ({"identity": "  "}, "blank"), ({"identity": "x" * 255}, "max_length"),
            ({"identity": "x" * 500_000}, "max_length"),
        ],
    )  # fmt: skip
    def test_a_bad_identity_costs_no_query(
        self, db: None, django_assert_num_queries: DjangoAssertNumQueries, body: Any, code: str
    ) -> None:
        with django_assert_num_queries(0):
            response = post("/auth/password/forgot", body)

        assert errors(response) == {"identity": code}

    @pytest.mark.parametrize("text", ['"al\\u0000ice"', '"al\\ud800ice"'])
    def test_no_part_of_text_that_cannot_be_stored_is_accepted(self, db: None, text: str) -> None:
        client = APIClient(raise_request_exception=False)
        body = f'{{"identity": {text}}}'

        response = client.generic("POST", f"{API}/auth/password/forgot", body, "application/json")

        assert response.status_code == 400
        assert not OutgoingEmail.objects.exists()

    def test_what_was_entered_is_in_no_event(self, user: User) -> None:
        forgot("a password as identity")
        forgot("alice")
        delivered()

        assert Event.objects.filter(kind="password_reset_asked").count() == 1
        written = repr(list(Event.objects.values()))
        assert "a password as identity" not in written
        assert ADDRESS not in written


class TestReset:
    def test_the_new_password_signs_in_and_the_old_one_does_not(self, user: User) -> None:
        reset_by_email("alice", ADDRESS)

        assert login(PASSWORD).status_code == 401
        assert login(NEW_PASSWORD).status_code == 200

    def test_it_signs_nobody_in(self, user: User) -> None:
        forgot("alice")
        response = reset(token_sent_to(ADDRESS))

        assert (response.status_code, response.content) == (204, b"")
        assert not response.cookies
        assert not Session.objects.exists()

    def test_every_session_ends(self, user: User, make_user: Any, sign_in: SignIn) -> None:
        User.objects.filter(pk=user.pk).update(is_staff=True)
        devices = [sign_in(user) for _ in range(3)]
        browser = Client()
        browser.post("/admin/login/", {"username": "alice", "password": PASSWORD})
        assert browser.get("/admin/").status_code == 200

        reset_by_email("alice", ADDRESS)

        assert {device.get(f"{API}/users/me").status_code for device in devices} == {401}
        refreshed = post("/auth/refresh", {"refresh_token": devices[0].tokens["refresh_token"]})
        assert refreshed.status_code == 401
        assert set(user.sessions.values_list("end_reason", flat=True)) == {"password_reset"}
        assert browser.get("/admin/").status_code == 302

    def test_the_address_is_verified_then(self, user: User) -> None:
        reset_by_email("alice", ADDRESS)

        user.refresh_from_db()
        assert user.email_verified
        assert Event.objects.filter(kind="email_verified", user_id=user.pk).count() == 1

    def test_an_address_that_is_verified_stays_so(self, user: User) -> None:
        since = user.date_joined
        User.objects.filter(pk=user.pk).update(email_verified_at=since)
        reset_by_email("alice", ADDRESS)

        user.refresh_from_db()
        assert user.email_verified_at == since
        assert not Event.objects.filter(kind="email_verified").exists()

    def test_a_demand_for_another_password_is_met(self, user: User) -> None:
        User.objects.filter(pk=user.pk).update(must_change_password=True)
        reset_by_email("alice", ADDRESS)

        assert login(NEW_PASSWORD).status_code == 200

    def test_a_lockout_ends_at_every_address(
        self, user: User, sign_in: SignIn, settings: Settings
    ) -> None:
        settings.LOGIN_FAILURE_LIMIT = (3, 900)
        addresses = [{"REMOTE_ADDR": a} for a in ("192.0.2.1", "2001:db8::7", "198.51.100.9")]
        for known in addresses[:2]:
            sign_in(user, **known)
        for address in addresses:
            for _ in range(4):
                login("wrong", **address)
            assert login(PASSWORD, **address).status_code == 429

        reset_by_email("alice", ADDRESS)

        assert [login(NEW_PASSWORD, **address).status_code for address in addresses] == [200] * 3

    def test_other_tickets_end_but_not_an_undo(self, user: User) -> None:
        for purpose in ("verify", "change", "reset", "undo", "force", "mfa"):
            Ticket.objects.issue(purpose, user, address="former@example.com")
        reset_by_email("alice", ADDRESS)

        assert [ticket.purpose for ticket in Ticket.objects.open()] == ["undo"]

    def test_a_notice_goes_to_the_address(self, user: User) -> None:
        reset_by_email("alice", ADDRESS)

        assert ("password_reset", ADDRESS) in delivered()
        assert Event.objects.filter(kind="password_reset", user_id=user.pk).count() == 1
        assert not Event.objects.filter(kind="password_changed").exists()

    @pytest.mark.parametrize(
        ("password", "code"),
        [
            ("short", "password_too_short"), ("password", "password_too_common"),
            ("alice alice", "password_too_similar"), ("x" * 129, "password_too_long"),
            (" " * 9, "password_blank"), ("", "blank"), (None, "null"), (7, "invalid"),
            (["a good long one"], "invalid"),
        ],
    )  # fmt: skip
    def test_a_bad_password_leaves_the_ticket(self, user: User, password: Any, code: str) -> None:
        forgot("alice")
        token = token_sent_to(ADDRESS)

        response = reset(token, password)

        assert set(errors(response)) == {"new_password"}
        assert code in {error["code"] for error in response.json()["errors"]}
        assert reset(token).status_code == 204

    def test_a_missing_password_leaves_the_ticket(self, user: User) -> None:
        forgot("alice")
        token = token_sent_to(ADDRESS)

        assert errors(post("/auth/password/reset", {"token": token})) == {
            "new_password": "required"
        }
        assert reset(token).status_code == 204

    def test_a_busy_hasher_leaves_the_ticket(
        self, user: User, monkeypatch: pytest.MonkeyPatch, settings: Settings
    ) -> None:
        settings.PASSWORD_HASHERS = ["accounts.passwords.BoundedBCryptSHA256PasswordHasher"]
        forgot("alice")
        token = token_sent_to(ADDRESS)
        turns, _ = passwords.hashing_places()
        taken = 0
        while turns.acquire(blocking=False):
            taken += 1

        response = reset(token)
        turns.release(taken)

        assert (response.status_code, response.json()["code"]) == (503, "service_unavailable")
        assert int(response.headers["Retry-After"]) >= 1
        assert User.objects.get().password == user.password
        monkeypatch.setattr(passwords.BoundedBCryptSHA256PasswordHasher, "rounds", 4)
        assert reset(token).status_code == 204

    def test_an_ended_ticket_is_rejected_before_a_password_is_hashed(
        self, user: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        forgot("alice")
        token = token_sent_to(ADDRESS)
        Ticket.objects.end_all_of(user)
        hashed: list[str] = []
        monkeypatch.setattr(credentials, "make_password", hashed.append)

        assert errors(reset(token)) == {"token": "ticket_not_valid"}
        assert hashed == []

    def test_a_link_for_a_former_address_does_not_restore_it(
        self, user: User, sign_in: SignIn
    ) -> None:
        change_address(sign_in(user), "new@example.com")
        # As a worker issues it that read the address just before the change.
        ticket = Ticket.objects.issue("reset", user, address=ADDRESS)

        assert errors(reset(ticket.token)) == {"token": "ticket_not_valid"}
        user.refresh_from_db()
        assert user.email == "new@example.com"
        assert user.check_password(PASSWORD)

    def test_a_change_of_password_ends_the_link(self, user: User, sign_in: SignIn) -> None:
        forgot("alice")
        token = token_sent_to(ADDRESS)
        body = {"current_password": PASSWORD, "new_password": "another sunny day"}
        assert sign_in(user).post(f"{API}/auth/password", body).status_code == 204

        assert errors(reset(token)) == {"token": "ticket_not_valid"}

    def test_a_deactivation_ends_the_link(self, user: User) -> None:
        forgot("alice")
        token = token_sent_to(ADDRESS)
        user = User.objects.get(pk=user.pk)
        for user.is_active in (False, True):
            user.save()

        assert errors(reset(token)) == {"token": "ticket_not_valid"}

    def test_every_link_that_was_sent_works_until_one_is_used(self, user: User) -> None:
        tokens = []
        for _ in range(3):
            forgot("alice")
            tokens.append(token_sent_to(ADDRESS))

        assert len(set(tokens)) == 3
        assert [reset(token).status_code for token in tokens] == [204, 400, 400]

    def test_it_expires_after_its_minutes(self, user: User, settings: Settings) -> None:
        settings.RESET_LIFETIME = timedelta(minutes=7)
        forgot("alice")
        token = token_sent_to(ADDRESS)
        ticket = Ticket.objects.get()
        assert ticket.lifetime == timedelta(minutes=7)

        Ticket.objects.update(expires_at=Now() - timedelta(seconds=1))
        assert errors(reset(token)) == {"token": "ticket_not_valid"}


class TestForced:
    def test_a_rejected_login_hands_out_a_token_that_sets_the_password(self, user: User) -> None:
        assert reset(forced_token(user)).status_code == 204

        assert login(NEW_PASSWORD).status_code == 200
        assert Event.objects.filter(kind="password_reset", user_id=user.pk).count() == 1

    def test_it_proves_no_mailbox(self, user: User) -> None:
        reset(forced_token(user))

        user.refresh_from_db()
        assert not user.email_verified
        assert delivered() == []

    def test_a_notice_goes_to_a_verified_address(self, user: User) -> None:
        User.objects.filter(pk=user.pk).update(email_verified_at=Now())
        reset(forced_token(user))

        assert delivered() == [("password_reset", ADDRESS)]

    def test_the_same_password_is_rejected_and_leaves_the_ticket(self, user: User) -> None:
        token = forced_token(user)

        assert errors(reset(token, PASSWORD)) == {"new_password": "password_unchanged"}
        assert reset(token).status_code == 204

    @pytest.mark.parametrize("is_forced", [False, True])
    def test_an_emailed_ticket_accepts_the_same_password(self, user: User, is_forced: bool) -> None:
        User.objects.filter(pk=user.pk).update(must_change_password=is_forced)
        forgot("alice")

        assert reset(token_sent_to(ADDRESS), PASSWORD).status_code == 204

    def test_a_wrong_password_gets_no_token(self, user: User) -> None:
        User.objects.filter(pk=user.pk).update(must_change_password=True)

        response = login("wrong")

        assert response.status_code == 401
        assert "reset_token" not in response.json()
        assert not Ticket.objects.exists()

    def test_a_user_deactivated_meanwhile_gets_no_token(
        self, user: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        start = SessionQuerySet.start

        def start_and_deactivate(self: SessionQuerySet, user: User, **kwargs: Any) -> Session:
            try:
                return start(self, user, **kwargs)
            finally:
                User.objects.filter(pk=user.pk).update(is_active=False)

        User.objects.filter(pk=user.pk).update(must_change_password=True)
        monkeypatch.setattr(SessionQuerySet, "start", start_and_deactivate)

        response = login(PASSWORD)

        assert (response.status_code, response.json()["code"]) == (401, "invalid_credentials")
        assert not Ticket.objects.exists()

    def test_every_reset_ends_the_sessions(self, user: User, sign_in: SignIn) -> None:
        device = sign_in(user)
        assert reset(forced_token(user)).status_code == 204

        assert device.get(f"{API}/users/me").status_code == 401


def test_the_authorization_header_is_ignored(user: User, sign_in: SignIn) -> None:
    ended = sign_in(user)
    user.sessions.all().delete()
    for header in ("Bearer x", f"Bearer {ended.tokens['access_token']}", "Basic eDp5", "\0"):
        sent = {"HTTP_AUTHORIZATION": header}
        assert post("/auth/password/forgot", {"identity": "alice"}, **sent).status_code == 202
        body = {"token": "x", "new_password": NEW_PASSWORD}
        response = post("/auth/password/reset", body, **sent)
        assert errors(response) == {"token": "ticket_not_valid"}
        assert "WWW-Authenticate" not in response.headers


def test_without_email_forgot_does_not_exist_and_reset_works(
    user: User, settings: Settings
) -> None:
    settings.EMAIL_ENABLED = False

    assert post("/auth/password/forgot", {"identity": "alice"}).status_code == 404
    assert reset(forced_token(user)).status_code == 204
    assert not OutgoingEmail.objects.exists()


@pytest.mark.parametrize("path", ["/auth/password/forgot", "/auth/password/reset"])
def test_both_routes_are_limited(db: None, settings: Settings, path: str) -> None:
    settings.AUTH_RATE_LIMIT = (5, 60)
    responses = [post(path, {}) for _ in range(6)]

    assert [response.status_code for response in responses] == [400] * 5 + [429]
    assert responses[5].headers["RateLimit-Policy"] == '"auth";q=5;w=60'
