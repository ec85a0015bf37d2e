from datetime import timedelta
from typing import Any

import jwt
import pytest
from django.conf import settings
from django.db import connection
from rest_framework.test import APIClient

from accounts.devices import device_name
from accounts.models import Session, User
from conftest import API, PASSWORD, SignIn


def login(client: APIClient, identity: Any, password: Any = PASSWORD, **extra: Any) -> Any:
    return client.post(f"{API}/auth/login", {"identity": identity, "password": password}, **extra)


@pytest.mark.parametrize(
    "identity", ["alice", "ALICE", " alice ", "Alice@Example.COM", "alice@ｅxample.com"]
)
def test_any_letter_case_of_the_identity_signs_in(
    client: APIClient, user: User, identity: str
) -> None:
    response = login(client, identity)

    assert response.status_code == 200
    assert response.json()["user"]["id"] == user.pk
    assert user.sessions.count() == 1


def test_the_response_is_a_pair_without_personal_data(client: APIClient, user: User) -> None:
    response = login(client, "alice")

    body = response.json()
    session = user.sessions.get()
    assert response.headers["Cache-Control"] == "no-store"
    assert set(body) == {
        "access_token", "refresh_token", "token_type", "expires_in", "refresh_expires_in", "user",
    }  # fmt: skip
    assert (body["token_type"], body["expires_in"], body["refresh_expires_in"]) == (
        "Bearer", 900, 604800,
    )  # fmt: skip
    for kind in ("access", "refresh"):
        token, secret = body[f"{kind}_token"], settings.SECRETS[f"{kind.upper()}_TOKEN_SECRET"][0]
        claims = jwt.decode(token, secret, algorithms=["HS256"], audience="latchkey")
        sign_in = {"auth_time", "amr"} if kind == "access" else set()
        assert set(claims) == {"aud", "sub", "sid", "jti", "iat", "exp", "token_type"} | sign_in
        assert claims["sub"] == str(user.pk)
        assert claims["sid"] == str(session.pk)
        assert claims["token_type"] == kind
    assert set(body["user"]) == {
        "id", "username", "email", "email_verified", "names", "date_joined",
    }  # fmt: skip


def test_a_session_knows_its_device(client: APIClient, user: User) -> None:
    agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"

    login(client, "alice", HTTP_USER_AGENT=agent, REMOTE_ADDR="::ffff:192.0.2.7")

    session = user.sessions.get()
    assert (session.user_agent, session.device) == (agent, "Firefox on Linux")
    assert session.ip_address == "192.0.2.7"
    assert session.last_used_at == session.created_at
    assert session.expires_at == session.created_at + timedelta(days=7)


@pytest.mark.parametrize(
    ("agent", "device"),
    [
        ("", "Unknown device"),
        ("curl/8.5.0", "curl"),
        ("acme-sync/1.2", "acme-sync"),
        ("x" * 2000, "x" * 100),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 "
            "(KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
            "Mobile Safari on iOS",
        ),
    ],
)
def test_devices_have_short_names(client: APIClient, user: User, agent: str, device: str) -> None:
    login(client, "alice", HTTP_USER_AGENT=agent)

    assert user.sessions.get().device == device


def test_a_device_is_named_by_the_first_512_characters() -> None:
    agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"

    assert device_name(" " * 400 + agent) == "Firefox on Linux"
    assert device_name(" " * 512 + agent) == "Unknown device"


def test_rejections_are_alike(client: APIClient, user: User, stranger: User) -> None:
    User.objects.filter(pk=stranger.pk).update(is_active=False)
    header = {"HTTP_X_REQUEST_ID": "same"}

    wrong = login(client, "alice", "wrong password", **header)
    unknown = login(client, "nobody", **header)
    inactive = login(client, "mallory", **header)

    assert wrong.status_code == unknown.status_code == inactive.status_code == 401
    assert wrong.content == unknown.content == inactive.content
    assert wrong.json()["code"] == "invalid_credentials"
    assert wrong.headers["WWW-Authenticate"] == "Bearer"
    assert not Session.objects.exists()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"password": PASSWORD}, "identity"),
        ({"identity": "alice"}, "password"),
        ({"identity": "alice", "password": 12345678}, "password"),
        ({"identity": ["alice"], "password": PASSWORD}, "identity"),
        ({"identity": None, "password": PASSWORD}, "identity"),
        ({"identity": "alice", "password": "x" * 129}, "password"),
        ({"identity": "alice\x00", "password": PASSWORD}, "identity"),
        ({"identity": "alice", "password": "\x00" * 9}, "password"),
    ],
)
def test_a_body_of_the_wrong_shape_is_reported(
    client: APIClient, user: User, body: dict[str, Any], field: str
) -> None:
    response = client.post(f"{API}/auth/login", body)

    assert response.status_code == 400
    assert response.json()["code"] == "validation_error"
    assert [error["field"] for error in response.json()["errors"]] == [field]


def test_a_form_never_logs_anyone_in(client: APIClient, user: User) -> None:
    body = f"identity=alice&password={PASSWORD}"

    for content_type in ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain"):
        response = client.generic("POST", f"{API}/auth/login", body, content_type)
        assert response.status_code == 415
        assert response.json()["code"] == "unsupported_media_type"
    assert not Session.objects.exists()


def test_an_authorization_header_is_not_looked_at(client: APIClient, user: User) -> None:
    client.credentials(HTTP_AUTHORIZATION="Bearer garbage")

    assert login(client, "alice").status_code == 200


def test_no_token_and_no_secret_is_stored(sign_in: SignIn, user: User) -> None:
    device = sign_in(user)

    with connection.cursor() as cursor:
        cursor.execute("SELECT s::text FROM accounts_session s")
        stored = cursor.fetchall()
    assert len(stored) == 1
    for part in (
        *device.tokens["access_token"].split("."),
        *device.tokens["refresh_token"].split("."),
    ):
        assert part not in stored[0][0]
