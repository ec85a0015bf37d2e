"""Notices: each kind, when it is sent, and to whom."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.db.models import F
from django.db.models.functions import Now
from django.test import Client
from pytest_django import Settings

from accounts.models import Event, OutgoingEmail, User
from conftest import API, PASSWORD, SignIn
from tests.rig.lifecycle import (
    NEW_PASSWORD,
    change_address,
    delivered,
    forgot,
    inbox,
    post,
    request_change,
    reset_by_email,
)

ADDRESS = "alice@example.com"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
CURL = "curl/8.0"
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@pytest.fixture(autouse=True)
def limits(settings: Settings) -> None:
    settings.AUTH_RATE_LIMIT = (1_000_000, 60)
    settings.LOGIN_FAILURE_LIMIT = (3, 900)


@pytest.fixture(params=[True, False], ids=["verified", "unverified"])
def is_verified(request: pytest.FixtureRequest, user: User) -> bool:
    if request.param:
        verify(user)
    return bool(request.param)


def verify(user: User) -> None:
    User.objects.filter(pk=user.pk).update(email_verified_at=Now())
    user.refresh_from_db()


def notices(kind: str) -> list[str]:
    """Deliver all emails and return the addresses that notices of this kind went to."""
    return [address for sent, address in delivered() if sent == kind]


def guess(identity: str, count: int = 4, **extra: str) -> None:
    for _ in range(count):
        post("/auth/login", {"identity": identity, "password": "wrong"}, **extra)


class TestPassword:
    def test_a_change_by_the_user(self, user: User, sign_in: SignIn, is_verified: bool) -> None:
        body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
        assert sign_in(user).post(f"{API}/auth/password", body).status_code == 204

        assert notices("password_changed") == [ADDRESS] * is_verified

    def test_a_reset_verifies_the_address_that_its_notice_goes_to(
        self, user: User, is_verified: bool
    ) -> None:
        reset_by_email("alice", ADDRESS)

        assert notices("password_reset") == [ADDRESS]
        assert notices("password_changed") == []

    def test_a_rejected_change_sends_nothing(self, user: User, sign_in: SignIn) -> None:
        verify(user)
        body = {"current_password": "wrong", "new_password": NEW_PASSWORD}
        assert sign_in(user).post(f"{API}/auth/password", body).status_code == 400

        assert delivered() == []


class TestNewDevice:
    def test_the_first_session_of_all_sends_nothing(self, user: User, sign_in: SignIn) -> None:
        verify(user)
        sign_in(user, HTTP_USER_AGENT=FIREFOX)

        assert delivered() == []

    def test_another_device_sends_one(self, user: User, sign_in: SignIn, is_verified: bool) -> None:
        sign_in(user, HTTP_USER_AGENT=FIREFOX)
        for agent in (FIREFOX, CURL, CURL):
            sign_in(user, HTTP_USER_AGENT=agent, REMOTE_ADDR="192.0.2.7")

        assert notices("new_device") == [ADDRESS] * is_verified
        if is_verified:
            text = str(inbox(ADDRESS)[0].body)
            assert "Device: Unknown device" in text  # A User-Agent may be any text.
            assert "192.0.2.7" in text

    def test_a_user_whose_sessions_were_pruned_is_not_new(
        self, user: User, sign_in: SignIn
    ) -> None:
        verify(user)
        sign_in(user, HTTP_USER_AGENT=FIREFOX)
        user.sessions.all().delete()
        sign_in(user, HTTP_USER_AGENT=CURL)

        assert notices("new_device") == [ADDRESS]


class TestTokenReuse:
    def test_a_replay_sends_one(
        self, user: User, sign_in: SignIn, settings: Settings, is_verified: bool
    ) -> None:
        settings.REFRESH_GRACE = user.date_joined - user.date_joined
        spent = {"refresh_token": sign_in(user).tokens["refresh_token"]}
        assert post("/auth/refresh", spent).status_code == 200
        for _ in range(3):
            assert post("/auth/refresh", spent).status_code == 401

        assert notices("token_reuse") == [ADDRESS] * is_verified
        assert Event.objects.filter(kind="replayed").count() == 1

    def test_a_refresh_sends_nothing(self, user: User, sign_in: SignIn) -> None:
        verify(user)
        token = sign_in(user).tokens["refresh_token"]
        assert post("/auth/refresh", {"refresh_token": token}).status_code == 200

        assert delivered() == []


class TestLoginFailures:
    def test_a_lockout_sends_one(self, user: User, is_verified: bool) -> None:
        guess("ALICE@example.com", REMOTE_ADDR="192.0.2.66")

        assert notices("login_failures") == [ADDRESS] * is_verified
        assert OutgoingEmail.objects.count() == is_verified
        if is_verified:
            assert "192.0.2.66" in str(inbox(ADDRESS)[0].body)

    def test_failures_below_the_limit_send_nothing(self, user: User) -> None:
        verify(user)
        guess("alice", 3)

        assert delivered() == []

    def test_a_day_has_one_at_most(self, user: User) -> None:
        verify(user)
        for _ in range(3):
            guess("alice")
            cache.clear()  # The window of failures has ended.
        assert notices("login_failures") == [ADDRESS]
        assert Event.objects.filter(kind="limit_reached").count() == 3

        OutgoingEmail.objects.update(created_at=F("created_at") - 25 * HOUR)
        guess("alice")
        assert notices("login_failures") == [ADDRESS] * 2

    def test_an_unknown_identity_sends_nothing_and_leaves_no_row(self, user: User) -> None:
        guess("nobody@example.com")
        assert OutgoingEmail.objects.count() == 1

        assert delivered() == []
        assert not OutgoingEmail.objects.exists()

    def test_an_inactive_user_gets_none(self, user: User) -> None:
        verify(user)
        User.objects.update(is_active=False)
        guess("alice")

        assert delivered() == []


class TestAddress:
    def test_a_requested_change_is_announced_to_an_unverified_address_too(
        self, user: User, sign_in: SignIn, is_verified: bool
    ) -> None:
        request_change(sign_in(user), "new@example.com")

        assert notices("email_change_asked") == [ADDRESS]

    def test_a_change_is_announced_to_both(
        self, user: User, sign_in: SignIn, is_verified: bool
    ) -> None:
        change_address(sign_in(user), "new@example.com")

        assert sorted(notices("email_changed")) == [ADDRESS, "new@example.com"]

    def test_requests_of_an_unverified_account_are_limited(
        self, user: User, sign_in: SignIn, is_verified: bool
    ) -> None:
        device = sign_in(user)
        for number in range(5):
            device.post(f"{API}/users/me/email", {"email": f"new{number}@example.com"})

        assert len(notices("email_change_asked")) == (5 if is_verified else 3)


class TestDeletion:
    def test_the_notice_outlives_the_user(
        self, user: User, sign_in: SignIn, is_verified: bool
    ) -> None:
        assert sign_in(user).delete(f"{API}/users/{user.pk}").status_code == 204

        assert notices("account_deleted") == [ADDRESS] * is_verified
        if is_verified:
            assert "alice" in str(inbox(ADDRESS)[0].body)

    def test_a_deletion_by_staff_sends_one(self, console: Client, user: User) -> None:
        verify(user)
        console.post(f"/admin/accounts/user/{user.pk}/delete/", {"post": "yes"})

        assert notices("account_deleted") == [ADDRESS]

    def test_a_stale_token_deletes_nothing_and_sends_nothing(
        self, user: User, sign_in: SignIn
    ) -> None:
        verify(user)
        device = sign_in(user)
        user.sessions.update(authenticated_at=F("authenticated_at") - 11 * MINUTE)
        pair = post("/auth/refresh", {"refresh_token": device.tokens["refresh_token"]}).json()
        device.credentials(HTTP_AUTHORIZATION=f"Bearer {pair['access_token']}")

        assert device.delete(f"{API}/users/{user.pk}").status_code == 403
        assert delivered() == []


@pytest.mark.parametrize("kind", ["password_reset", "email_changed", "login_failures"])
def test_a_notice_says_what_to_do(user: User, sign_in: SignIn, kind: str) -> None:
    verify(user)
    acts: dict[str, Callable[[], Any]] = {
        "password_reset": lambda: reset_by_email("alice", ADDRESS),
        "email_changed": lambda: change_address(sign_in(user), "new@example.com"),
        "login_failures": lambda: guess("alice"),
    }
    acts[kind]()

    text = str(inbox(ADDRESS)[-1].body)
    assert "UTC" in text
    assert "not you" in text


def test_without_a_link_no_email_goes_to_an_unverified_address(user: User, sign_in: SignIn) -> None:
    device = sign_in(user, HTTP_USER_AGENT=FIREFOX)
    sign_in(user, HTTP_USER_AGENT=CURL)
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    device.post(f"{API}/auth/password", body)
    guess("alice")
    forgot("alice")

    assert delivered() == [("reset_password", ADDRESS)]
