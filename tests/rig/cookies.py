"""A page that keeps its refresh token in a cookie."""

from datetime import timedelta
from typing import Any

from pytest_django import Settings
from rest_framework.test import APIClient

from accounts import tokens
from conftest import API, PASSWORD

COOKIE = "__Host-refresh"
OWN = "https://testserver"
LISTED = "https://app.example.com"


def enable(settings: Settings) -> None:
    """Offer the cookie, to pages of OWN and LISTED."""
    settings.REFRESH_COOKIE = True
    settings.REFRESH_GRACE = timedelta(0)
    settings.CORS_ALLOWED_ORIGINS = [LISTED]
    settings.PUBLIC_URL = "https://API.example.com:443/base"
    settings.AUTH_RATE_LIMIT = (100, 60)


class Browser(APIClient):
    """A page of an allowed origin over HTTPS; it keeps cookies, and the access token in memory."""

    def __init__(self, origin: str | None = OWN) -> None:
        super().__init__(raise_request_exception=False)
        self.origin = origin

    def send(self, path: str, body: Any = None, **extra: Any) -> Any:
        origin = {} if self.origin is None else {"HTTP_ORIGIN": self.origin}
        extra = {"secure": True, **origin, **extra}
        return self.post(f"{API}/auth/{path}", {} if body is None else body, **extra)

    def login(self, *, cookie: Any = True, **extra: Any) -> Any:
        body = {"identity": "alice", "password": PASSWORD, "cookie": cookie}
        return self.take(self.send("login", body, **extra))

    def refresh(self, body: Any = None, **extra: Any) -> Any:
        return self.take(self.send("refresh", body, **extra))

    def take(self, response: Any) -> Any:
        if response.status_code == 200:
            self.credentials(HTTP_AUTHORIZATION=f"Bearer {response.json()['access_token']}")
        return response

    @property
    def token(self) -> str:
        return str(self.cookies[COOKIE].value)


def assert_is_in_the_cookie(response: Any, name: str = COOKIE) -> None:
    assert response.status_code == 200
    assert "refresh_token" not in response.json()
    cookie = response.cookies[name]
    assert tokens.read(tokens.RefreshToken, cookie.value).user_id
    assert cookie["max-age"] == response.json()["refresh_expires_in"]
    # Within the grace the token was issued a moment ago.
    assert cookie["max-age"] in {604799, 604800}
    assert (cookie["path"], cookie["domain"], cookie["samesite"]) == ("/", "", "Strict")
    assert cookie["httponly"] is True
    assert bool(cookie["secure"]) == (name == COOKIE)
    assert cookie.value not in response.content.decode()


def assert_is_rejected(response: Any, status: int, code: str) -> None:
    assert (response.status_code, response.json()["code"]) == (status, code)


def assert_is_deleted(response: Any) -> None:
    cookie = response.cookies[COOKIE]
    assert (cookie.value, cookie["max-age"], cookie["path"]) == ("", 0, "/")
    assert (cookie["secure"], cookie["samesite"]) == (True, "Strict")
