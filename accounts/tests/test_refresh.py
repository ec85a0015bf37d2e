from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings
from rest_framework.test import APIClient

import config.settings
from accounts import tokens
from accounts.models import Session, User
from conftest import API, SignIn


@pytest.fixture(autouse=True)
def strict(settings: Settings) -> None:
    settings.REFRESH_GRACE = timedelta(0)


def refresh(client: APIClient, token: Any) -> Any:
    return client.post(f"{API}/auth/refresh", {"refresh_token": token})


def assert_is_rejected(response: Any) -> None:
    assert response.status_code == 401
    assert response.json()["code"] == "token_not_valid"
    assert response.headers["WWW-Authenticate"] == "Bearer"


class TestRotation:
    def test_a_refresh_returns_a_new_pair_of_the_same_session(
        self, client: APIClient, user: User, sign_in: SignIn
    ) -> None:
        first = sign_in(user).tokens
        before = user.sessions.get()

        response = refresh(client, first["refresh_token"])

        second = response.json()
        after = user.sessions.get()
        assert response.status_code == 200
        assert response.headers["Cache-Control"] == "no-store"
        assert set(second) == set(first) - {"user"}
        assert second["refresh_token"] != first["refresh_token"]
        assert (second["expires_in"], second["refresh_expires_in"]) == (900, 604800)
        assert after.pk == before.pk
        assert after.last_used_at > before.last_used_at
        assert after.expires_at == after.last_used_at + timedelta(days=7)

    def test_the_new_tokens_work_and_the_old_access_token_goes_on(
        self, client: APIClient, user: User, sign_in: SignIn
    ) -> None:
        device = sign_in(user)

        pair = refresh(client, device.tokens["refresh_token"]).json()

        assert device.get(f"{API}/users/me").status_code == 200
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {pair['access_token']}")
        assert client.get(f"{API}/users/me").status_code == 200
        assert refresh(client, pair["refresh_token"]).status_code == 200

    def test_it_costs_one_statement(
        self,
        client: APIClient,
        user: User,
        sign_in: SignIn,
        django_assert_num_queries: DjangoAssertNumQueries,
    ) -> None:
        token = sign_in(user).tokens["refresh_token"]

        with django_assert_num_queries(1):
            assert refresh(client, token).status_code == 200

    def test_it_adds_no_row(self, client: APIClient, user: User, sign_in: SignIn) -> None:
        token = sign_in(user).tokens["refresh_token"]

        for _ in range(4):
            token = refresh(client, token).json()["refresh_token"]

        assert Session.objects.count() == 1

    def test_an_authorization_header_is_not_looked_at(
        self, client: APIClient, user: User, sign_in: SignIn
    ) -> None:
        token = sign_in(user).tokens["refresh_token"]
        client.credentials(HTTP_AUTHORIZATION="Bearer garbage")

        assert refresh(client, token).status_code == 200


class TestReplay:
    def test_a_spent_token_ends_the_session_and_no_other(
        self, client: APIClient, user: User, sign_in: SignIn
    ) -> None:
        device, other = sign_in(user), sign_in(user)
        pair = refresh(client, device.tokens["refresh_token"]).json()

        assert_is_rejected(refresh(client, device.tokens["refresh_token"]))

        ended = user.sessions.get(ended_at__isnull=False)
        assert ended.end_reason == "token_reuse"
        assert_is_rejected(refresh(client, pair["refresh_token"]))
        assert device.get(f"{API}/users/me").status_code == 401
        assert other.get(f"{API}/users/me").status_code == 200
        assert refresh(client, other.tokens["refresh_token"]).status_code == 200

    @pytest.mark.django_db(transaction=True)
    def test_the_end_is_committed_although_the_response_is_an_error(
        self, client: APIClient, user: User, sign_in: SignIn
    ) -> None:
        token = sign_in(user).tokens["refresh_token"]
        refresh(client, token)

        assert_is_rejected(refresh(client, token))

        assert user.sessions.get().end_reason == "token_reuse"

    def test_a_session_that_has_ended_keeps_its_reason(
        self, client: APIClient, user: User, sign_in: SignIn
    ) -> None:
        device = sign_in(user)
        device.post(f"{API}/auth/logout")

        assert_is_rejected(refresh(client, device.tokens["refresh_token"]))

        assert user.sessions.get().end_reason == "logout"

    def test_an_expired_token_ends_nothing(
        self, client: APIClient, user: User, sign_in: SignIn
    ) -> None:
        sign_in(user)
        session = user.sessions.get()
        spent = write_refresh(session, token_id=session.pk, expires_at=timezone.now())

        assert_is_rejected(refresh(client, spent))

        assert user.sessions.active().exists()

    def test_another_users_session_is_not_ended(
        self, client: APIClient, user: User, stranger: User, sign_in: SignIn
    ) -> None:
        sign_in(user)
        forged = write_refresh(user.sessions.get(), user_id=stranger.pk)

        assert_is_rejected(refresh(client, forged))

        assert user.sessions.active().exists()

    def test_an_expired_session_is_rejected_without_more(
        self, client: APIClient, user: User, sign_in: SignIn
    ) -> None:
        token = sign_in(user).tokens["refresh_token"]
        user.sessions.update(expires_at=Now())

        assert_is_rejected(refresh(client, token))

        assert user.sessions.get().ended_at is None

    def test_a_user_deactivated_by_sql_is_rejected(
        self, client: APIClient, user: User, sign_in: SignIn
    ) -> None:
        device = sign_in(user)
        User.objects.update(is_active=False)

        assert_is_rejected(refresh(client, device.tokens["refresh_token"]))
        assert device.get(f"{API}/users/me").status_code == 401


def test_the_grace_is_10_seconds_by_default() -> None:
    assert timedelta(seconds=10) == config.settings.REFRESH_GRACE


class TestGrace:
    @pytest.fixture(autouse=True)
    def grace(self, strict: None, settings: Settings) -> None:
        settings.REFRESH_GRACE = timedelta(seconds=10)

    def test_the_previous_token_returns_the_current_one(
        self, client: APIClient, user: User, sign_in: SignIn
    ) -> None:
        first = sign_in(user).tokens["refresh_token"]
        second = refresh(client, first).json()

        again = refresh(client, first)

        assert again.status_code == 200
        assert again.json()["refresh_token"] == second["refresh_token"]
        assert refresh(client, second["refresh_token"]).status_code == 200

    def test_after_the_grace_it_is_a_replay(
        self, client: APIClient, user: User, sign_in: SignIn
    ) -> None:
        first = sign_in(user).tokens["refresh_token"]
        refresh(client, first)
        user.sessions.update(last_used_at=F("last_used_at") - timedelta(seconds=11))

        assert_is_rejected(refresh(client, first))

        assert user.sessions.get().end_reason == "token_reuse"

    def test_a_token_spent_before_the_last_is_a_replay(
        self, client: APIClient, user: User, sign_in: SignIn
    ) -> None:
        first = sign_in(user).tokens["refresh_token"]
        refresh(client, refresh(client, first).json()["refresh_token"])

        assert_is_rejected(refresh(client, first))

        assert user.sessions.get().end_reason == "token_reuse"

    def test_the_seconds_are_those_really_left(
        self, client: APIClient, user: User, sign_in: SignIn
    ) -> None:
        first = sign_in(user).tokens["refresh_token"]
        refresh(client, first)
        user.sessions.update(
            last_used_at=F("last_used_at") - timedelta(seconds=5),
            expires_at=F("expires_at") - timedelta(seconds=5),
        )

        again = refresh(client, first).json()

        assert again["expires_in"] == 900
        assert again["refresh_expires_in"] in (604794, 604795)


class TestMaximumAge:
    def test_no_token_outlives_its_session(
        self, client: APIClient, user: User, sign_in: SignIn
    ) -> None:
        token = sign_in(user).tokens["refresh_token"]
        user.sessions.update(created_at=Now() - timedelta(days=30) + timedelta(minutes=5))

        pair = refresh(client, token).json()

        session = user.sessions.get()
        assert session.expires_at == session.created_at + timedelta(days=30)
        assert pair["expires_in"] == pair["refresh_expires_in"]
        assert 290 <= pair["expires_in"] <= 300
        access = tokens.read(tokens.AccessToken, pair["access_token"])
        assert access.expires_at <= session.expires_at

    def test_a_maximum_that_was_lowered_is_no_theft(
        self, client: APIClient, user: User, sign_in: SignIn, settings: Settings
    ) -> None:
        token = sign_in(user).tokens["refresh_token"]
        user.sessions.update(created_at=Now() - timedelta(days=2))
        settings.SESSION_MAX_AGE = timedelta(days=1)

        assert_is_rejected(refresh(client, token))

        assert user.sessions.get().ended_at is None


def write_refresh(session: Session, **changes: Any) -> str:
    claims = {
        "user_id": session.user_id,
        "session_id": session.pk,
        "token_id": session.token_id,
        "issued_at": session.last_used_at,
        "expires_at": session.expires_at,
    }
    return tokens.write(tokens.RefreshToken, **(claims | changes))
