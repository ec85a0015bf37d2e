"""Fresh sign-ins: the claims that carry them, reauthentication, and what demands them."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import jwt
import pytest
from django.conf import settings as project
from django.db.models.functions import Now
from pytest_django import DjangoAssertNumQueries, Settings
from rest_framework.test import APIClient, APIRequestFactory

from accounts import tokens
from accounts.models import Event, Session, User
from accounts.permissions import EmailNotVerified, IsFresh, IsVerified
from conftest import API, PASSWORD, SignIn
from tests.rig.lifecycle import make_stale

SECRETS = {
    "access_token": project.SECRETS["ACCESS_TOKEN_SECRET"][0],
    "refresh_token": project.SECRETS["REFRESH_TOKEN_SECRET"][0],
}


def claims_of(pair: dict[str, Any], name: str = "access_token") -> dict[str, Any]:
    options: Any = {"verify_aud": False}
    return jwt.decode(pair[name], SECRETS[name], algorithms=["HS256"], options=options)


def use(client: APIClient, token: str) -> APIClient:
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
    return client


def use_claims(client: APIClient, claims: dict[str, Any]) -> APIClient:
    return use(client, jwt.encode(claims, SECRETS["access_token"], "HS256"))


def refresh(client: APIClient, pair: dict[str, Any]) -> Any:
    return APIClient().post(f"{API}/auth/refresh", {"refresh_token": pair["refresh_token"]})


class TestClaims:
    def test_a_login_says_when_and_how(self, user: User, sign_in: SignIn) -> None:
        pair = sign_in(user).tokens
        session = user.sessions.get()

        claims = claims_of(pair)
        assert claims["auth_time"] == int(session.created_at.timestamp())
        assert claims["amr"] == session.methods == ["pwd"]
        assert claims["aud"] == claims_of(pair, "refresh_token")["aud"] == "latchkey"

    def test_a_refresh_copies_the_time_of_the_sign_in(self, user: User, sign_in: SignIn) -> None:
        client = sign_in(user)
        make_stale(user)
        pair = refresh(client, client.tokens).json()

        session = user.sessions.get()
        assert claims_of(pair)["auth_time"] == int(session.authenticated_at.timestamp())
        assert claims_of(pair)["amr"] == ["pwd"]
        assert use(client, pair["access_token"]).delete(f"{API}/users/{user.pk}").status_code == 403

    def test_a_token_for_another_audience_is_rejected(
        self, user: User, sign_in: SignIn, settings: Settings
    ) -> None:
        client = sign_in(user)
        settings.TOKEN_AUDIENCE = "another"

        for response in (client.get(f"{API}/users/me"), refresh(client, client.tokens)):
            assert (response.status_code, response.json()["code"]) == (401, "token_not_valid")

    @pytest.mark.parametrize("odd", [None, 7, ["latchkey"], {}, "", "Latchkey"])
    def test_an_odd_audience_is_rejected(self, user: User, sign_in: SignIn, odd: Any) -> None:
        client = sign_in(user)
        claims = claims_of(client.tokens) | {"aud": odd}

        assert sign_by_hand(client, claims).get(f"{API}/users/me").status_code == 401

    def test_a_token_without_audience_is_accepted_with_the_default_one_only(
        self, user: User, sign_in: SignIn, settings: Settings
    ) -> None:
        client = sign_in(user)
        claims = claims_of(client.tokens)
        del claims["aud"]
        use_claims(client, claims)
        spent = claims_of(client.tokens, "refresh_token")
        del spent["aud"]
        pair = {"refresh_token": jwt.encode(spent, SECRETS["refresh_token"], "HS256")}

        assert client.get(f"{API}/users/me").status_code == 200
        settings.TOKEN_AUDIENCE = "another"
        for response in (client.get(f"{API}/users/me"), refresh(client, pair)):
            assert (response.status_code, response.json()["code"]) == (401, "token_not_valid")
        settings.TOKEN_AUDIENCE = "latchkey"
        assert claims_of(refresh(client, pair).json())["aud"] == "latchkey"

    def test_a_token_without_audience_expires_as_it_says(self, user: User, sign_in: SignIn) -> None:
        client = sign_in(user)
        claims = claims_of(client.tokens)
        del claims["aud"]
        claims["exp"] = claims["iat"]

        response = use_claims(client, claims).get(f"{API}/users/me")

        assert (response.status_code, response.json()["code"]) == (401, "token_not_valid")

    @pytest.mark.parametrize(
        ("claim", "odd"),
        [("auth_time", "now"), ("auth_time", True), ("auth_time", -1), ("auth_time", None),
         ("amr", "pwd"), ("amr", [1]), ("amr", None)],
    )  # fmt: skip
    def test_an_odd_sign_in_is_rejected(
        self, user: User, sign_in: SignIn, claim: str, odd: Any
    ) -> None:
        client = sign_in(user)
        claims = claims_of(client.tokens) | {claim: odd}

        assert use_claims(client, claims).get(f"{API}/users/me").status_code == 401

    def test_sessions_in_the_list_say_it(self, user: User, sign_in: SignIn) -> None:
        [session] = sign_in(user).get(f"{API}/auth/sessions").json()["results"]

        assert session["methods"] == ["pwd"]
        assert session["authenticated_at"] == session["created_at"]


def sign_by_hand(client: APIClient, claims: dict[str, Any]) -> APIClient:
    """Sign what PyJWT rejects to write."""
    from accounts.tests.test_tokens import sign

    return use(client, sign(claims))


class TestFresh:
    def test_a_stolen_stale_token_deletes_no_account(self, user: User, sign_in: SignIn) -> None:
        client = sign_in(user)
        claims = claims_of(client.tokens)
        claims["auth_time"] -= 11 * 60
        response = use_claims(client, claims).delete(f"{API}/users/{user.pk}")

        assert (response.status_code, response.json()["code"]) == (403, "reauthentication_required")
        assert response.json()["methods"] == ["password"]
        assert User.objects.filter(pk=user.pk).exists()

    def test_a_token_of_before_the_upgrade_is_never_fresh(
        self, user: User, sign_in: SignIn
    ) -> None:
        client = sign_in(user)
        claims = claims_of(client.tokens)
        del claims["auth_time"], claims["amr"], claims["aud"]

        assert use_claims(client, claims).delete(f"{API}/users/{user.pk}").status_code == 403

    @pytest.mark.parametrize("minutes", [1, 10, 60])
    def test_a_sign_in_is_fresh_for_its_minutes(
        self, user: User, sign_in: SignIn, settings: Settings, minutes: int
    ) -> None:
        settings.FRESH_LIFETIME = timedelta(minutes=minutes)
        client = sign_in(user)
        claims, statuses = claims_of(client.tokens), []
        signed_in = claims["auth_time"]
        for seconds in (60 * minutes + 1, 60 * minutes - 20):
            claims["auth_time"] = signed_in - seconds
            url = f"{API}/users/{user.pk}"
            statuses.append(use_claims(client, claims).delete(url).status_code)

        assert statuses == [403, 204]

    @pytest.mark.parametrize("path", ["/auth/logout", "/auth/logout-all", "/auth/sessions/{}"])
    def test_a_stale_token_ends_sessions(self, user: User, sign_in: SignIn, path: str) -> None:
        client, other = sign_in(user), sign_in(user)
        claims = claims_of(client.tokens)
        claims["auth_time"] -= 11 * 60
        use_claims(client, claims)
        url = f"{API}{path.format(claims_of(other.tokens)['sid'])}"

        response = client.post(url) if "{" not in path else client.delete(url)

        assert response.status_code in {200, 204}
        assert user.sessions.active().count() == (0 if path == "/auth/logout-all" else 1)

    def test_the_check_costs_no_query(
        self, user: User, sign_in: SignIn, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        client = sign_in(user)
        claims = claims_of(client.tokens)
        claims["auth_time"] -= 11 * 60
        use_claims(client, claims)

        with django_assert_num_queries(1):
            client.delete(f"{API}/users/{user.pk}")

    def test_without_a_token_it_is_401(self, client: APIClient, user: User) -> None:
        assert client.delete(f"{API}/users/{user.pk}").status_code == 401


class TestReauthentication:
    def test_it_makes_the_session_fresh_and_rotates_its_refresh_token(
        self, user: User, sign_in: SignIn
    ) -> None:
        client = sign_in(user)
        make_stale(user)
        before = client.tokens
        stale = refresh(client, before).json()
        use(client, stale["access_token"])
        response = client.post(f"{API}/auth/reauthenticate", {"password": PASSWORD})

        assert response.status_code == 200
        pair = response.json()
        assert claims_of(pair)["sid"] == claims_of(before)["sid"]
        assert Event.objects.filter(kind="reauthenticated", user_id=user.pk).count() == 1
        assert refresh(client, pair).status_code == 200
        assert client.delete(f"{API}/users/{user.pk}").status_code == 403, "the older token"
        use(client, pair["access_token"])
        assert client.delete(f"{API}/users/{user.pk}").status_code == 204

    @pytest.mark.parametrize("grace", [0, 10])
    def test_a_stolen_refresh_token_of_before_gets_nothing(
        self, user: User, sign_in: SignIn, settings: Settings, grace: int
    ) -> None:
        settings.REFRESH_GRACE = timedelta(seconds=grace)
        client = sign_in(user)
        client.post(f"{API}/auth/reauthenticate", {"password": PASSWORD})

        stolen = refresh(client, client.tokens)

        assert (stolen.status_code, stolen.json()["code"]) == (401, "token_not_valid")
        assert user.sessions.get().end_reason == "token_reuse"

    def test_a_refresh_token_in_its_grace_gets_nothing_either(
        self, user: User, sign_in: SignIn
    ) -> None:
        client = sign_in(user)
        assert refresh(client, client.tokens).status_code == 200
        assert refresh(client, client.tokens).status_code == 200, "within the grace"
        client.post(f"{API}/auth/reauthenticate", {"password": PASSWORD})

        assert refresh(client, client.tokens).status_code == 401

    def test_a_lost_response_is_repeated(self, user: User, sign_in: SignIn) -> None:
        client = sign_in(user)
        lost, again = (
            client.post(f"{API}/auth/reauthenticate", {"password": PASSWORD}).json()
            for _ in range(2)
        )

        assert lost["refresh_token"] != again["refresh_token"]
        assert refresh(client, again).status_code == 200

    def test_a_session_above_a_lowered_maximum_age_is_not_renewed(
        self, user: User, sign_in: SignIn, settings: Settings
    ) -> None:
        client = sign_in(user)
        user.sessions.update(created_at=Now() - timedelta(days=8))
        settings.SESSION_MAX_AGE = timedelta(days=7)
        response = client.post(f"{API}/auth/reauthenticate", {"password": PASSWORD})

        assert (response.status_code, response.json()["code"]) == (401, "token_not_valid")

    def test_a_wrong_password_is_counted_as_a_login_failure(
        self, user: User, sign_in: SignIn, settings: Settings
    ) -> None:
        settings.AUTH_RATE_LIMIT, settings.LOGIN_FAILURE_LIMIT = (100, 60), (2, 900)
        client = sign_in(user)
        for _ in range(2):
            wrong = client.post(f"{API}/auth/reauthenticate", {"password": "wrong password"})
            assert wrong.status_code == 400
            assert [(e["field"], e["code"]) for e in wrong.json()["errors"]] == [
                ("password", "invalid")
            ]
        limited = client.post(f"{API}/auth/reauthenticate", {"password": PASSWORD})

        assert limited.status_code == 429
        assert "login-failures" in limited.headers["RateLimit"]

    def test_a_session_that_ends_meanwhile_is_not_renewed(
        self, user: User, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = sign_in(user)
        check = User.check_password

        def end_meanwhile(self: User, password: str) -> bool:
            Session.objects.filter(user=user).end(Session.Reason.STAFF)
            return check(self, password)

        monkeypatch.setattr(User, "check_password", end_meanwhile)
        response = client.post(f"{API}/auth/reauthenticate", {"password": PASSWORD})

        assert (response.status_code, response.json()["code"]) == (401, "token_not_valid")

    def test_a_password_that_must_be_changed_makes_nothing_fresh(
        self, user: User, sign_in: SignIn
    ) -> None:
        client = sign_in(user)
        User.objects.filter(pk=user.pk).update(must_change_password=True)
        response = client.post(f"{API}/auth/reauthenticate", {"password": PASSWORD})

        assert (response.status_code, response.json()["code"]) == (403, "password_change_required")


class TestVerified:
    def test_it_is_shown_where_the_address_is(
        self, user: User, sign_in: SignIn, make_user: Callable[..., User]
    ) -> None:
        client, other = sign_in(user), make_user("mallory")
        assert client.get(f"{API}/users/me").json()["email_verified"] is False
        User.objects.filter(pk=user.pk).update(email_verified_at=Now())

        assert client.get(f"{API}/users/me").json()["email_verified"] is True
        assert "email_verified" not in client.get(f"{API}/users/{other.pk}").json()

    def test_a_view_may_demand_it(self, user: User) -> None:
        request: Any = APIRequestFactory().get("/")
        request.user, view = user, Any
        with pytest.raises(EmailNotVerified):
            IsVerified().has_permission(request, view)

        user.email_verified_at = user.date_joined
        assert IsVerified().has_permission(request, view)
        request.user = None
        assert not IsVerified().has_permission(request, view)
        assert not IsFresh().has_permission(request, view)


def test_the_default_audience_is_the_default_of_the_setting() -> None:
    assert project.TOKEN_AUDIENCE == tokens.DEFAULT_AUDIENCE
