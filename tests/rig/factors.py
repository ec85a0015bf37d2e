"""Second factors as an authenticator app and its user handle them."""

from datetime import datetime
from typing import Any

import pyotp
from django.db import connection
from django.db.models.functions import Now
from rest_framework.test import APIClient

from accounts.models import TOTPDevice, User
from conftest import API, PASSWORD
from tests.rig.lifecycle import post


def code_of(secret: str, step: int = 0) -> str:
    """Return the code of the present step, or of one after or before it, by the database's time."""
    totp = pyotp.TOTP(secret)
    return totp.generate_otp(totp.timecode(database_time()) + step)


def database_time() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        now: datetime = cursor.fetchone()[0]
    return now


def wrong_code_of(secret: str) -> str:
    return next(code for code in ("000000", "111111", "222222", "333333") if not fits(secret, code))


def fits(secret: str, code: str) -> bool:
    return code in {code_of(secret, step) for step in (-2, -1, 0, 1, 2)}


def enrol(user: User) -> tuple[str, list[str]]:
    """Add an authenticator app, and return its secret and the recovery codes."""
    User.objects.filter(pk=user.pk, email_verified_at=None).update(email_verified_at=Now())
    user.refresh_from_db()
    secret = user.begin_totp(session=None)
    codes = user.confirm_totp(code_of(secret), session=None)
    assert codes is not None
    TOTPDevice.objects.filter(user=user).update(last_step=0)  # The code was used; time passes.
    return secret, codes


def begin_login(identity: str = "alice", password: str = PASSWORD) -> str:
    """Log in as a user with a factor and return the token that continues it."""
    response = post("/auth/login", {"identity": identity, "password": password})
    assert (response.status_code, response.json()["code"]) == (403, "mfa_required")
    token: str = response.json()["mfa_token"]
    return token


def complete(token: str, code: Any, **headers: str) -> Any:
    return post("/auth/mfa", {"mfa_token": token, "code": code}, **headers)


def sign_in_with(code: str, identity: str = "alice", password: str = PASSWORD) -> APIClient:
    """Log in with a factor and return a client with the access token."""
    response = complete(begin_login(identity, password), code)
    assert response.status_code == 200, response.content
    return client_of(response.json())


def client_of(pair: dict[str, Any]) -> APIClient:
    device = APIClient(raise_request_exception=False)
    device.tokens = pair
    device.credentials(HTTP_AUTHORIZATION=f"Bearer {pair['access_token']}")
    return device


def reauthenticate(device: APIClient, code: str | None = None) -> Any:
    """Prove the password and a code again, and use the new tokens."""
    body = {"password": PASSWORD} | ({} if code is None else {"code": code})
    response = device.post(f"{API}/auth/reauthenticate", body)
    if response.status_code == 200:
        device.tokens = response.json()
        device.credentials(HTTP_AUTHORIZATION=f"Bearer {device.tokens['access_token']}")
    return response
