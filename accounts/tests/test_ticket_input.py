"""Hostile tokens at every route that takes one: one error, and no query before the HMAC matches."""

import base64
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import Ticket, User
from conftest import API, PASSWORD, SignIn
from tests.rig.lifecycle import NEW_PASSWORD, errors

ADDRESS = "alice@example.com"
# Of each route: its path, its field, the rest of its body, and the purposes that it accepts.
ROUTES: dict[str, tuple[str, str, dict[str, str], set[str]]] = {
    "reset": (
        "/auth/password/reset", "token", {"new_password": NEW_PASSWORD}, {"reset", "undo", "force"},
    ),
    "verify": ("/users/me/email/verify", "token", {}, {"verify", "change"}),
    "register": (
        "/users", "registration_token", {"username": "bob", "password": PASSWORD},
        {"register", "invite"},
    ),
}  # fmt: skip
UNSIGNED = base64.urlsafe_b64encode(uuid.uuid4().bytes + bytes(16)).rstrip(b"=").decode()
ODD: dict[str, Any] = {
    "null": None, "number": 7, "decimal": 1e300, "true": True, "list": ["x" * 43], "object": {},
    "nested": [[[{}]]], "empty": "", "short": "x" * 42, "long": "x" * 44, "huge": "x" * 900_000,
    "non-ASCII": "\u00e9" * 43, "wide digits": "\uff11" * 43, "combining": "a" + "\u0300" * 42,
    "spaces": " " * 43, "padded": "A" * 42 + "=", "standard base64": "+/" * 21 + "A",
    "trailing newline": "A" * 42 + "\n", "unsigned": UNSIGNED, "zeros": "A" * 43,
}  # fmt: skip


@pytest.fixture(autouse=True)
def settings_of_routes(settings: Settings) -> None:
    settings.AUTH_RATE_LIMIT = (1_000_000, 60)
    settings.REGISTRATION = "verified"


class Route:
    """One of the routes, called as a client that may call it."""

    def __init__(self, name: str, device: APIClient) -> None:
        self.path, self.field, self.body, self.accepted = ROUTES[name]
        self.client = device if name == "verify" else APIClient(raise_request_exception=False)
        self.other_queries = 1 if name == "verify" else 0  # of the caller's session

    def send(self, **body: Any) -> Any:
        return self.client.post(f"{API}{self.path}", self.body | body)

    def assert_rejected(self, token: Any, *, queries: int) -> None:
        with CaptureQueriesContext(connection) as captured:
            response = self.send(**{self.field: token})
        assert errors(response) == {self.field: "ticket_not_valid"}
        [error] = response.json()["errors"]
        assert error["detail"].startswith("This token is not valid.")
        assert len(captured) == queries + self.other_queries, captured.captured_queries


@pytest.fixture(params=list(ROUTES))
def route(request: pytest.FixtureRequest, user: User, sign_in: SignIn) -> Route:
    return Route(request.param, sign_in(user))


def issue(purpose: str, user: User) -> Ticket:
    if purpose in {"register", "invite"}:
        return Ticket.objects.issue(purpose, address="bob@example.com")
    return Ticket.objects.issue(purpose, user, address=ADDRESS)


@pytest.mark.parametrize("name", list(ODD))
def test_an_odd_token_costs_no_query(route: Route, name: str) -> None:
    route.assert_rejected(ODD[name], queries=0)


def test_a_missing_token(route: Route) -> None:
    with CaptureQueriesContext(connection) as captured:
        response = route.send()

    code = "required" if route.field == "registration_token" else "ticket_not_valid"
    assert errors(response) == {route.field: code}
    assert len(captured) == route.other_queries


@pytest.mark.parametrize("text", ["\\u0000", "\\ud800", "\\udfff\\ud800"])
def test_text_that_cannot_be_stored_costs_no_query(route: Route, text: str) -> None:
    body = f'{{"{route.field}": "{text * 43}", "new_password": "x", "username": "bob"}}'
    with CaptureQueriesContext(connection) as captured:
        response = route.client.generic("POST", f"{API}{route.path}", body, "application/json")

    assert response.status_code == 400
    assert len(captured) <= route.other_queries


def test_a_token_of_another_purpose_costs_no_query(route: Route, user: User) -> None:
    for purpose in set(Ticket.Purpose.values) - route.accepted:
        route.assert_rejected(issue(purpose, user).token, queries=0)


def test_a_changed_token_costs_no_query(route: Route, user: User) -> None:
    for purpose in route.accepted:
        token = issue(purpose, user).token
        for place in (0, 21, 22, 41, 42):
            changed = "B" if token[place] != "B" else "C"
            route.assert_rejected(token[:place] + changed + token[place + 1 :], queries=0)
        for other in (token.lower(), token[::-1], token[1:] + token[0]):
            route.assert_rejected(other, queries=0)


def test_a_token_of_another_secret_costs_no_query(
    route: Route, user: User, settings: Settings
) -> None:
    tokens = [issue(purpose, user).token for purpose in route.accepted]
    settings.SECRET_KEY = "another secret, which signed none of these"

    for token in tokens:
        route.assert_rejected(token, queries=0)


def expire(ticket: Ticket) -> None:
    Ticket.objects.filter(pk=ticket.pk).update(expires_at=Now())


def use(ticket: Ticket) -> None:
    Ticket.objects.filter(pk=ticket.pk).update(used_at=Now())


def delete(ticket: Ticket) -> None:
    ticket.delete()


@pytest.mark.parametrize("end", [expire, use, delete])
def test_an_ended_ticket_is_the_same_error(
    route: Route, user: User, end: Callable[[Ticket], None]
) -> None:
    for purpose in route.accepted:
        ticket = issue(purpose, user)
        token = ticket.token
        end(ticket)

        route.assert_rejected(token, queries=1)


def test_another_users_ticket_is_the_same_error(
    user: User, stranger: User, sign_in: SignIn
) -> None:
    route = Route("verify", sign_in(stranger))
    for purpose in ("verify", "change"):
        route.assert_rejected(issue(purpose, user).token, queries=1)
    user.refresh_from_db()
    assert not user.email_verified


def test_a_valid_token_is_accepted(route: Route, user: User) -> None:
    for purpose in sorted(route.accepted - {"change"}):
        response = route.send(**{route.field: issue(purpose, user).token})

        assert response.status_code < 300, response.content
        User.objects.filter(username="bob").delete()
