"""The keys of a real response of every operation of the contract, compared with the schema."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import Session, Ticket, User
from api.views import schema
from conftest import API, PASSWORD, SignIn
from tests.articles.models import Article
from tests.rig.api_tokens import NEW_TOKEN, TOKENS
from tests.service.test_project import CLOSED, OPEN

ARTICLE = {"title": "Lamp", "description": "Warm light.", "amount": 3}
# No response body: the operation returns 204.
EMPTY = {
    ("POST", "/auth/logout"),
    ("POST", "/auth/password"),
    ("POST", "/auth/password/reset"),
    ("DELETE", "/auth/sessions/{id}"),
    ("DELETE", "/users/me/tokens/{id}"),
    ("DELETE", "/articles/{id}"),
    ("DELETE", "/users/{id}"),
}


def documented() -> dict[tuple[str, str], dict[str, Any]]:
    """Return the schema of each operation's successful response."""
    found = {}
    for path, item in json.loads(schema())["paths"].items():
        for method, operation in item.items():
            [response] = [r for status, r in operation["responses"].items() if status < "300"]
            for content in response.get("content", {}).values():
                found[method.upper(), path.removeprefix(API)] = content["schema"]
    return found


def resolve(described: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in described:
        return described
    name = described["$ref"].rpartition("/")[2]
    component: dict[str, Any] = json.loads(schema())["components"]["schemas"][name]
    return component


def differences(value: Any, described: dict[str, Any], place: str = "") -> Iterator[str]:
    """Yield each key of a value that its schema lacks, and each required key that it lacks."""
    described = resolve(described)
    if isinstance(value, list):
        assert value, f"{place} is empty, which compares nothing"
        for item in value:
            yield from differences(item, described["items"], f"{place}[]")
    if isinstance(value, dict) and "properties" in described:
        properties = described["properties"]
        yield from (f"{place}.{key} is not documented" for key in value.keys() - properties)
        required = set(described.get("required", ()))
        yield from (f"{place}.{key} is not returned" for key in required - value.keys())
        for key in value.keys() & properties:
            yield from differences(value[key], properties[key], f"{place}.{key}")


@pytest.fixture
def bodies(
    user: User, stranger: User, sign_in: SignIn, client: APIClient, settings: Settings
) -> dict[tuple[str, str], Any]:
    """Request each operation that returns a body, and return the bodies."""
    settings.REVISION = "f00d"
    settings.AUTH_RATE_LIMIT = (1_000, 60)
    device, identifier = sign_in(user), user.pk
    article = Article.objects.create(owner=user, **ARTICLE).pk
    name = {"username": "bob", "email": "bob@example.com", "password": PASSWORD}
    login = {"identity": "alice", "password": PASSWORD}
    refresh = {"refresh_token": device.tokens["refresh_token"]}
    email, me = "alice@example.com", f"{API}/users/me"
    verify = {"token": Ticket.objects.issue("verify", user, address=email).token}
    responses = {
        ("POST", "/auth/login"): client.post(f"{API}/auth/login", login),
        ("POST", "/auth/refresh"): client.post(f"{API}/auth/refresh", refresh),
        ("GET", "/auth/sessions"): device.get(f"{API}/auth/sessions"),
        ("GET", "/auth/events"): device.get(f"{API}/auth/events"),
        ("POST", "/auth/reauthenticate"): device.post(f"{API}/auth/reauthenticate", login),
        ("POST", "/auth/password/forgot"): client.post(f"{API}/auth/password/forgot", login),
        ("POST", "/auth/registration"): request_registration(settings, client),
        ("POST", "/users"): client.post(f"{API}/users", name),
        ("GET", "/users/me"): device.get(me),
        ("GET", "/users/me/export"): device.get(f"{me}/export"),
        ("GET", "/users/me/security"): device.get(f"{me}/security"),
        ("POST", "/users/me/email/verification"): device.post(f"{me}/email/verification"),
        ("POST", "/users/me/email"): device.post(f"{me}/email", {"email": "new@example.com"}),
        ("POST", "/users/me/email/verify"): device.post(f"{me}/email/verify", verify),
        ("POST", "/users/me/tokens"): device.post(TOKENS, NEW_TOKEN),
        ("GET", "/users/me/tokens"): device.get(TOKENS),
        ("GET", "/users/{id}"): device.get(f"{API}/users/{identifier}"),
        ("PATCH", "/users/{id}"): device.patch(f"{API}/users/{identifier}", {"names": "Alice"}),
        ("GET", "/articles"): client.get(f"{API}/articles"),
        ("POST", "/articles"): device.post(f"{API}/articles", ARTICLE),
        ("GET", "/articles/{id}"): client.get(f"{API}/articles/{article}"),
        ("PATCH", "/articles/{id}"): device.patch(f"{API}/articles/{article}", {"amount": 4}),
        ("GET", "/health"): client.get(f"{API}/health"),
        ("GET", "/health/live"): client.get(f"{API}/health/live"),
        ("GET", "/health/ready"): client.get(f"{API}/health/ready"),
        ("GET", "/schema"): client.get(f"{API}/schema"),
        ("GET", ""): client.get(API),
        ("POST", "/auth/logout-all"): device.post(f"{API}/auth/logout-all"),
    }
    assert not Session.objects.active().exists()
    assert {response.status_code for response in responses.values()} <= {200, 201, 202}
    return {operation: json.loads(response.getvalue()) for operation, response in responses.items()}


def request_registration(settings: Settings, client: APIClient) -> Any:
    settings.REGISTRATION = "verified"
    response = client.post(f"{API}/auth/registration", {"email": "carol@example.com"})
    settings.REGISTRATION = "open"
    return response


def test_the_keys_of_each_response_are_those_of_its_schema(
    bodies: dict[tuple[str, str], Any],
) -> None:
    schemas = documented()

    assert bodies.keys() | EMPTY == OPEN | CLOSED
    assert bodies.keys() <= schemas.keys()
    assert not EMPTY & schemas.keys()
    for operation, body in bodies.items():
        assert list(differences(body, schemas[operation])) == [], operation


def test_each_documented_key_is_returned_to_who_may_see_all(
    bodies: dict[tuple[str, str], Any],
) -> None:
    """A field that is declared but never returned is documented in vain."""
    schemas = documented()
    for operation, body in bodies.items():
        properties = resolve(schemas[operation]).get("properties", {})
        assert body.keys() >= properties.keys(), operation


def test_a_profile_as_others_see_it_is_within_its_schema(
    user: User, stranger: User, sign_in: SignIn
) -> None:
    body = sign_in(stranger).get(f"{API}/users/{user.pk}").json()

    assert body.keys() == {"id", "username", "names"}
    assert list(differences(body, documented()["GET", "/users/{id}"])) == []
