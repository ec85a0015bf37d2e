"""API tokens for tests, and clients that use them."""

from datetime import timedelta
from typing import Any

from django.db.models.functions import Now
from rest_framework.test import APIClient

from accounts.models import ApiToken, Session, User
from conftest import API

TOKENS = f"{API}/users/me/tokens"
NEW_TOKEN = {"name": "Deployment", "scope": "write", "expires_in_days": 30}


def verified(user: User) -> User:
    User.objects.filter(pk=user.pk).update(email_verified_at=Now())
    user.refresh_from_db()
    return user


def issue_token(user: User, *, scope: str = "write", name: str = "Deployment") -> ApiToken:
    """Return a new token of a user, who is verified by it."""
    session = Session.objects.start(
        verified(user), address="192.0.2.1", user_agent="", device="Firefox on Linux"
    )
    return ApiToken.objects.issue(
        user, name=name, scope=scope, lifetime=timedelta(days=30), session=session
    )


def present(header: str) -> APIClient:
    """Return a client that sends this Authorization header."""
    client = APIClient(raise_request_exception=False)
    client.credentials(HTTP_AUTHORIZATION=header)
    return client


def using(token: ApiToken) -> APIClient:
    return present(f"Bearer {token.text}")


def code_of(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def expire(*tokens: ApiToken) -> None:
    """Let tokens expire a second ago."""
    rows = ApiToken.objects.filter(pk__in=[token.pk for token in tokens])
    rows.update(expires_at=Now() - timedelta(seconds=1))
