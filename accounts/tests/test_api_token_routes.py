"""The routes of API tokens, and the routes that API tokens reach."""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from pytest_django import DjangoAssertNumQueries, Settings
from rest_framework.test import APIClient

from accounts.models import ApiToken, Event, OutgoingEmail, User
from accounts.tests.test_fresh import make_stale, refresh, use
from api.views import schema
from conftest import API, PASSWORD, SignIn
from tests.rig.api_tokens import (
    NEW_TOKEN,
    TOKENS,
    code_of,
    expire,
    issue_token,
    present,
    using,
    verified,
)
from tests.rig.lifecycle import errors

DENIED = (403, "permission_denied")


@pytest.fixture
def device(user: User, sign_in: SignIn) -> APIClient:
    return sign_in(verified(user))


@pytest.fixture
def lifted_limits(settings: Settings) -> None:
    settings.AUTH_RATE_LIMIT = (1_000_000, 60)


class TestCreation:
    def test_the_token_is_shown_once(self, device: APIClient, user: User) -> None:
        response = device.post(TOKENS, NEW_TOKEN)
        body = response.json()

        assert response.status_code == 201, body
        assert response.headers["Cache-Control"] == "no-store"
        token = ApiToken.objects.get()
        text = body.pop("token")
        assert body == {
            "id": token.pk, "name": "Deployment", "scope": "write", "last_used_at": None,
            "created_at": iso(token.created_at), "expires_at": iso(token.expires_at),
        }  # fmt: skip
        assert token.expires_at - token.created_at == timedelta(days=30)
        assert (token.user, present(f"Bearer {text}").get(f"{API}/users/me").status_code) == (
            user,
            200,
        )
        assert text not in device.get(TOKENS).content.decode()

    def test_it_is_recorded_and_announced_without_its_name(
        self, device: APIClient, user: User
    ) -> None:
        device.post(TOKENS, NEW_TOKEN)

        token = ApiToken.objects.get()
        event = Event.objects.get(kind="token_created")
        assert (event.user_id, event.detail, event.is_own) == (user.pk, token.pk, True)
        email = OutgoingEmail.objects.get(kind="token_created")
        assert (email.address, email.event) == (user.email, event)
        [shown] = device.get(f"{API}/auth/events?limit=1").json()["results"]
        assert (shown["event"], shown["detail"]) == ("token_created", token.pk)

    @pytest.mark.parametrize(
        ("field", "value", "code"),
        [
            ("name", None, "null"), ("name", "", "blank"), ("name", " ", "blank"),
            ("name", "x" * 51, "max_length"), ("name", 7, "invalid"), ("name", "a\nb", "invalid"),
            ("scope", "admin", "invalid_choice"), ("scope", "", "invalid_choice"),
            ("scope", True, "invalid_choice"), ("scope", ["read"], "invalid_choice"),
            ("scope", {"read": 1}, "invalid_choice"), ("scope", "READ", "invalid_choice"),
            ("scope", None, "null"),
            ("expires_in_days", 0, "min_value"), ("expires_in_days", 366, "max_value"),
            ("expires_in_days", "30", "invalid"), ("expires_in_days", True, "invalid"),
            ("expires_in_days", 1.5, "invalid"), ("expires_in_days", 1e30, "invalid"),
            ("expires_in_days", None, "null"),
        ],
    )  # fmt: skip
    def test_odd_values_are_reported_by_their_field(
        self, device: APIClient, field: str, value: Any, code: str
    ) -> None:
        assert errors(device.post(TOKENS, NEW_TOKEN | {field: value})) == {field: code}
        assert not ApiToken.objects.exists()

    @pytest.mark.parametrize("field", NEW_TOKEN)
    def test_every_field_is_required(self, device: APIClient, field: str) -> None:
        body = {name: value for name, value in NEW_TOKEN.items() if name != field}
        assert errors(device.post(TOKENS, body)) == {field: "required"}

    def test_a_client_chooses_neither_the_id_nor_the_user(
        self, device: APIClient, stranger: User, user: User
    ) -> None:
        body = NEW_TOKEN | {"id": "0" * 16, "user": stranger.pk, "token": "x", "text": "x"}
        created = device.post(TOKENS, body).json()

        assert created["token"] != "x"
        assert created["id"] != "0" * 16
        assert ApiToken.objects.get().user == user

    def test_it_needs_a_fresh_sign_in(self, device: APIClient, user: User) -> None:
        make_stale(user)
        use(device, refresh(device, device.tokens).json()["access_token"])

        assert code_of(device.post(TOKENS, NEW_TOKEN)) == (403, "reauthentication_required")

    def test_it_needs_a_verified_address(self, user: User, sign_in: SignIn) -> None:
        assert code_of(sign_in(user).post(TOKENS, NEW_TOKEN)) == (403, "email_not_verified")
        assert not ApiToken.objects.exists()

    def test_it_needs_a_token_of_a_session(self, client: APIClient, user: User) -> None:
        assert code_of(client.post(TOKENS, NEW_TOKEN)) == (401, "not_authenticated")
        assert code_of(using(issue_token(user)).post(TOKENS, NEW_TOKEN)) == DENIED

    def test_a_user_has_at_most_20_that_are_active(
        self, device: APIClient, user: User, lifted_limits: None
    ) -> None:
        for n in range(20):
            assert device.post(TOKENS, NEW_TOKEN | {"name": f"{n}"}).status_code == 201
        assert code_of(device.post(TOKENS, NEW_TOKEN)) == (409, "limit_reached")
        assert user.api_tokens.count() == 20

        expire(user.api_tokens.first())
        assert device.post(TOKENS, NEW_TOKEN).status_code == 201

    def test_it_is_limited_per_address(self, device: APIClient) -> None:
        responses = [device.post(TOKENS, NEW_TOKEN) for _ in range(6)]
        assert [response.status_code for response in responses] == [201] * 5 + [429]
        assert "q=5;w=60" in responses[0].headers["RateLimit-Policy"]


class TestList:
    def test_it_shows_the_callers_active_tokens_newest_first(
        self, device: APIClient, user: User, stranger: User
    ) -> None:
        issue_token(stranger)
        tokens = [issue_token(user, name=name) for name in ("one", "two", "three")]
        expire(tokens[1])
        using(tokens[0]).get(f"{API}/users/me")

        body = device.get(TOKENS).json()
        assert body["count"] == 2
        assert [row["name"] for row in body["results"]] == ["three", "one"]
        assert [bool(row["last_used_at"]) for row in body["results"]] == [False, True]
        assert body["results"][0].keys() == {
            "id", "name", "scope", "created_at", "expires_at", "last_used_at",
        }  # fmt: skip

    def test_it_is_counted_for_each_session(self, device: APIClient) -> None:
        assert "auth-read" in device.get(TOKENS).headers["RateLimit-Policy"]

    def test_their_number_is_in_the_accounts_security(self, device: APIClient, user: User) -> None:
        expire(issue_token(user))
        issue_token(user)
        assert device.get(f"{API}/users/me/security").json()["tokens"] == 1


class TestEnding:
    def test_the_next_request_is_rejected(self, device: APIClient, user: User) -> None:
        token = issue_token(user)
        machine = using(token)
        assert machine.get(f"{API}/users/me").status_code == 200

        assert device.delete(f"{TOKENS}/{token.pk}").status_code == 204
        assert code_of(machine.get(f"{API}/users/me")) == (401, "token_not_valid")
        event = Event.objects.get(kind="token_ended")
        assert (event.user_id, event.detail) == (user.pk, f"{token.pk}: user")

    def test_it_needs_no_fresh_sign_in(self, device: APIClient, user: User) -> None:
        make_stale(user)
        token = issue_token(user)
        use(device, refresh(device, device.tokens).json()["access_token"])

        assert device.delete(f"{TOKENS}/{token.pk}").status_code == 204

    def test_another_users_and_an_ended_one_do_not_exist(
        self, device: APIClient, user: User, stranger: User, lifted_limits: None
    ) -> None:
        ended, expired, other = issue_token(user), issue_token(user), issue_token(stranger)
        user.api_tokens.filter(pk=ended.pk).end("user")
        expire(expired)

        for pk in (ended.pk, expired.pk, other.pk, "0" * 16, "x", "A" * 3000, "é", "1;2"):
            assert code_of(device.delete(f"{TOKENS}/{pk}")) == (404, "not_found"), pk
        assert using(other).get(f"{API}/users/me").status_code == 200

    def test_a_token_does_not_end_itself(self, user: User) -> None:
        token = issue_token(user)
        assert code_of(using(token).delete(f"{TOKENS}/{token.pk}")) == DENIED


class TestReach:
    """What an API token reaches: nothing of accounts but what the contract names."""

    REACHED = {("get", "/users/me"), ("get", "/users/{id}"), ("post", "/users")}

    def test_every_route_of_accounts_that_reads_the_header_denies_it(
        self, user: User, lifted_limits: None
    ) -> None:
        """Routes come from the schema, so that a new one is tested too."""
        token, denied = issue_token(user), set()
        for method, path in own_routes():
            pk = user.pk if path == "/users/{id}" else user.sessions.get().pk
            response = getattr(using(token), method)(f"{API}{path.replace('{id}', str(pk))}")
            if response.status_code == 403 and code_of(response) == DENIED:
                denied.add((method, path))

        assert denied == own_routes() - self.REACHED
        assert len(denied) >= 15
        assert {("post", "/auth/password"), ("patch", "/users/{id}")} <= denied
        assert User.objects.filter(pk=user.pk).exists()
        assert user.api_tokens.count() == 1

    @pytest.mark.parametrize("scope", ["read", "write"])
    def test_it_reads_users(self, user: User, stranger: User, scope: str) -> None:
        machine = using(issue_token(user, scope=scope))

        assert machine.get(f"{API}/users/me").json()["email"] == user.email
        assert machine.head(f"{API}/users/me").status_code == 200
        assert machine.get(f"{API}/users/{user.pk}").json()["email"] == user.email
        assert "email" not in machine.get(f"{API}/users/{stranger.pk}").json()

    @pytest.mark.parametrize(("scope", "status"), [("read", 403), ("write", 201)])
    def test_a_registration_is_a_write(self, user: User, scope: str, status: int) -> None:
        body = {"username": "bob", "email": "bob@example.com", "password": PASSWORD}
        response = using(issue_token(user, scope=scope)).post(f"{API}/users", body)

        assert response.status_code == status

    def test_routes_that_ignore_the_header_ignore_it(self, user: User) -> None:
        body = {"identity": "alice", "password": PASSWORD}
        response = using(issue_token(user)).post(f"{API}/auth/login", body)

        assert response.status_code == 200

    def test_a_denied_request_is_not_counted(self, user: User) -> None:
        machine = using(issue_token(user))
        for _ in range(7):
            assert code_of(machine.post(f"{API}/auth/password", {})) == DENIED

    def test_a_denied_request_costs_no_more_than_authentication(
        self, user: User, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        machine = using(issue_token(user))
        machine.get(f"{API}/users/me")
        with django_assert_num_queries(1):
            assert code_of(machine.get(f"{API}/auth/events")) == DENIED

    def test_the_schema_names_the_operations_that_accept_one(self) -> None:
        schemes = json.loads(schema())["components"]["securitySchemes"]
        assert schemes["apiToken"]["scheme"] == "bearer"
        accepting = {
            route
            for route, operation in operations().items()
            if {"apiToken": []} in operation.get("security", [])
        }
        assert accepting & own_routes() == self.REACHED


def operations() -> dict[tuple[str, str], Any]:
    paths = json.loads(schema())["paths"]
    return {
        (method, path.removeprefix(API)): operation
        for path, item in paths.items()
        for method, operation in item.items()
    }


def own_routes() -> set[tuple[str, str]]:
    """Return the routes of accounts that read the Authorization header."""
    return {
        (method, path)
        for (method, path), operation in operations().items()
        if path.startswith(("/auth", "/users")) and {"bearer": []} in operation.get("security", [])
    }


def iso(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")
