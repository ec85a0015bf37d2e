import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.db.models import F
from django.db.models.functions import Now
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from accounts import tokens
from accounts.models import Session, User
from accounts.models.batches import prune
from conftest import API, SignIn

SESSIONS = f"{API}/auth/sessions"


class TestList:
    def test_it_shows_the_active_ones_most_recently_used_first(
        self, user: User, stranger: User, sign_in: SignIn
    ) -> None:
        first, second, third = sign_in(user), sign_in(user), sign_in(user)
        sign_in(stranger)
        third.post(f"{API}/auth/logout")
        first.post(f"{API}/auth/refresh", {"refresh_token": first.tokens["refresh_token"]})

        response = second.get(SESSIONS)

        body = response.json()
        assert response.status_code == 200
        assert (body["count"], body["count_capped"], body["next"]) == (2, False, None)
        assert [session["current"] for session in body["results"]] == [False, True]
        assert set(body["results"][0]) == {
            "id", "current", "user_agent", "device", "ip_address",
            "created_at", "last_used_at", "expires_at", "authenticated_at", "methods",
        }  # fmt: skip
        assert response.headers["Cache-Control"] == "no-store"

    def test_an_expired_one_is_not_shown(self, user: User, sign_in: SignIn) -> None:
        device, old = sign_in(user), sign_in(user)
        user.sessions.filter(pk=claimed_session(old)).update(expires_at=Now())

        assert device.get(SESSIONS).json()["count"] == 1

    def test_it_comes_in_pages_and_cursors(self, user: User, sign_in: SignIn) -> None:
        device = sign_in(user)
        sign_in(user)

        page = device.get(SESSIONS, {"limit": 1}).json()

        assert page["next"].endswith("page=2&limit=1") or page["next"].endswith("limit=1&page=2")
        assert device.get(page["next"]).json()["results"][0]["current"] is True

    def test_it_costs_two_statements_and_a_count_where_there_are_more(
        self, user: User, sign_in: SignIn, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        device, _ = sign_in(user), sign_in(user)

        with django_assert_num_queries(2):
            assert device.get(SESSIONS).json()["count"] == 2
        with django_assert_num_queries(3):
            assert device.get(f"{SESSIONS}?limit=1").json()["count"] == 2


class TestEnd:
    def test_ending_one_ends_its_access_token_at_once(self, user: User, sign_in: SignIn) -> None:
        device, other = sign_in(user), sign_in(user)

        response = device.delete(f"{SESSIONS}/{claimed_session(other)}")

        assert (response.status_code, response.content) == (204, b"")
        assert other.get(f"{API}/users/me").status_code == 401
        assert device.get(f"{API}/users/me").status_code == 200
        assert user.sessions.get(pk=claimed_session(other)).end_reason == "user"

    def test_anothers_or_an_unknown_one_is_not_found(
        self, user: User, stranger: User, sign_in: SignIn
    ) -> None:
        device, other = sign_in(user), sign_in(stranger)

        for name in (claimed_session(other), uuid.uuid4(), "1", "%00", str(uuid.uuid4()).upper()):
            response = device.delete(f"{SESSIONS}/{name}")
            assert response.status_code == 404
            assert response.json()["code"] == "not_found"
            # Five a minute are plenty for a person; this is the test's sixth.
            reset_limits()
        assert other.get(f"{API}/users/me").status_code == 200

    def test_an_ended_session_is_not_found(self, user: User, sign_in: SignIn) -> None:
        device, other = sign_in(user), sign_in(user)
        other.post(f"{API}/auth/logout")

        assert device.delete(f"{SESSIONS}/{claimed_session(other)}").status_code == 404
        assert user.sessions.get(pk=claimed_session(other)).end_reason == "logout"

    def test_logout_ends_the_session_of_the_presented_token(
        self, client: APIClient, user: User, sign_in: SignIn
    ) -> None:
        device, other = sign_in(user), sign_in(user)

        response = device.post(f"{API}/auth/logout")

        assert (response.status_code, response.content) == (204, b"")
        assert device.get(f"{API}/users/me").status_code == 401
        assert device.post(f"{API}/auth/logout").status_code == 401
        refresh = {"refresh_token": device.tokens["refresh_token"]}
        assert client.post(f"{API}/auth/refresh", refresh).status_code == 401
        assert other.get(f"{API}/users/me").status_code == 200

    def test_logout_all_ends_this_one_too(
        self, user: User, stranger: User, sign_in: SignIn
    ) -> None:
        devices = [sign_in(user), sign_in(user), sign_in(user)]
        other = sign_in(stranger)
        devices[2].post(f"{API}/auth/logout")

        response = devices[0].post(f"{API}/auth/logout-all")

        assert response.json() == {"revoked": 2}
        assert all(device.get(f"{API}/users/me").status_code == 401 for device in devices)
        assert other.get(f"{API}/users/me").status_code == 200

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("post", "/auth/logout"),
            ("post", "/auth/logout-all"),
            ("get", "/auth/sessions"),
            ("delete", f"/auth/sessions/{uuid.UUID(int=1)}"),
            ("post", "/auth/password"),
            ("get", "/users/me"),
            ("get", "/users/1"),
            ("patch", "/users/1"),
            ("delete", "/users/1"),
        ],
    )
    def test_without_a_token_it_is_a_401(
        self, client: APIClient, user: User, method: str, path: str
    ) -> None:
        response = getattr(client, method)(f"{API}{path}")

        assert response.status_code == 401
        assert response.json()["code"] == "not_authenticated"
        assert response.headers["WWW-Authenticate"] == "Bearer"


class TestDeactivation:
    def test_it_ends_the_sessions_and_activation_brings_none_back(
        self, client: APIClient, user: User, sign_in: SignIn
    ) -> None:
        device = sign_in(user)
        user.is_active = False
        user.save()

        assert device.get(f"{API}/users/me").status_code == 401
        user.is_active = True
        user.save()
        assert device.get(f"{API}/users/me").status_code == 401
        refresh = {"refresh_token": device.tokens["refresh_token"]}
        assert client.post(f"{API}/auth/refresh", refresh).status_code == 401
        assert user.sessions.get().end_reason == "account_changed"


class TestPrune:
    def test_it_deletes_what_ended_long_ago_in_batches(self, user: User, sign_in: SignIn) -> None:
        sign_in(user)
        live = sign_in(user)
        for _ in range(3):
            sign_in(user)
            reset_limits()
        over = user.sessions.exclude(pk=claimed_session(live))
        over.update(ended_at=Now() - timedelta(days=31), end_reason="logout")
        recent = over.first()
        assert recent is not None
        over.filter(pk=recent.pk).update(ended_at=F("ended_at") + timedelta(days=2))

        assert list(prune(Session.objects.ended_before(timedelta(days=30)), size=2)) == [2, 1]
        assert set(user.sessions.values_list("pk", flat=True)) == {
            recent.pk, claimed_session(live),
        }  # fmt: skip

    def test_an_expired_one_counts_from_its_expiry(self, user: User, sign_in: SignIn) -> None:
        sign_in(user)
        user.sessions.update(expires_at=Now() - timedelta(days=31))

        assert sum(prune(Session.objects.ended_before(timedelta(days=30)), size=2)) == 1


def claimed_session(device: Any) -> uuid.UUID:
    return tokens.read(tokens.AccessToken, device.tokens["access_token"]).session_id


def reset_limits() -> None:
    cache.clear()
