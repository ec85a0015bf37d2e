"""Tokens that somebody made up, or that hold what ours never do."""

import base64
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from django.conf import settings
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from accounts import tokens
from accounts.models import User
from conftest import API, SignIn

ACCESS_SECRET = settings.SECRETS["ACCESS_TOKEN_SECRET"][0]
REFRESH_SECRET = settings.SECRETS["REFRESH_TOKEN_SECRET"][0]
ODD = [None, True, 7, -1, 1e18, "", "abc", "\x00", "1\x00", "٣", "é" * 500, [], ["1"], {}, {"a": 1}]


@pytest.fixture
def claims(user: User, sign_in: SignIn) -> dict[str, Any]:
    """The claims of a token that works."""
    token = sign_in(user).tokens["access_token"]
    return jwt.decode(token, ACCESS_SECRET, algorithms=["HS256"], audience="latchkey")


def present(client: APIClient, token: str, scheme: str = "Bearer") -> Any:
    return client.get(f"{API}/users/me", HTTP_AUTHORIZATION=f"{scheme} {token}")


def sign(claims: Any, secret: str = ACCESS_SECRET, algorithm: str = "HS256") -> str:
    """Sign by hand: PyJWT would refuse to write some of what it may have to read."""
    parts = [json.dumps({"alg": algorithm, "typ": "JWT"}).encode(), json.dumps(claims).encode()]
    text = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    signer = jwt.get_algorithm_by_name("HS256")
    signature = signer.sign(text, signer.prepare_key(secret))
    return b".".join([text, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def assert_is_rejected(response: Any) -> None:
    assert response.status_code == 401, response.content
    assert response.json()["code"] == "token_not_valid"
    assert response.headers["WWW-Authenticate"] == "Bearer"


class TestAccess:
    def test_a_token_that_works_costs_one_statement(
        self,
        client: APIClient,
        claims: dict[str, Any],
        django_assert_num_queries: DjangoAssertNumQueries,
    ) -> None:
        with django_assert_num_queries(1):
            assert present(client, sign(claims)).status_code == 200

    @pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
    def test_the_scheme_is_matched_in_any_letter_case(
        self, client: APIClient, claims: dict[str, Any], scheme: str
    ) -> None:
        assert present(client, sign(claims), scheme).status_code == 200

    @pytest.mark.parametrize(
        "header", ["Basic YWxpY2U6cGFzcw==", 'Digest username="a", realm="b"', "Token abc", "x", ""]
    )
    def test_another_scheme_counts_as_no_token(
        self, client: APIClient, db: None, header: str
    ) -> None:
        response = client.get(f"{API}/users/me", HTTP_AUTHORIZATION=header)

        assert response.status_code == 401
        assert response.json()["code"] == "not_authenticated"

    @pytest.mark.parametrize(
        "pattern", ["Bearer {0},Bearer {0}", "Bearer {0},Basic x", "Basic x,Bearer {0}"]
    )
    def test_two_headers_are_rejected(
        self, client: APIClient, claims: dict[str, Any], pattern: str
    ) -> None:
        header = pattern.format(sign(claims))

        assert_is_rejected(client.get(f"{API}/users/me", HTTP_AUTHORIZATION=header))

    @pytest.mark.parametrize(
        "token",
        [
            "",
            "abc",
            "a.b.c",
            "a b",
            "..",
            "é.é.é",
            "x" * 5000,
            # A header so deeply nested that Python's JSON gives up.
            base64.urlsafe_b64encode(b"[" * 1500).decode() + ".e30.e30",
        ],
    )
    def test_garbage_is_rejected(self, client: APIClient, db: None, token: str) -> None:
        assert_is_rejected(present(client, token))

    @pytest.mark.parametrize("claim", ["sub", "sid", "jti", "iat", "exp", "token_type"])
    def test_a_missing_claim_is_rejected(
        self, client: APIClient, claims: dict[str, Any], claim: str
    ) -> None:
        del claims[claim]

        assert_is_rejected(present(client, sign(claims)))

    @pytest.mark.parametrize("claim", ["sub", "sid", "jti", "iat", "exp", "token_type"])
    def test_a_claim_of_the_wrong_type_is_rejected(
        self, client: APIClient, claims: dict[str, Any], claim: str
    ) -> None:
        for odd in ODD:
            if (claim, odd) != ("iat", 7):  # `iat` has to be a time; when is not judged.
                assert_is_rejected(present(client, sign({**claims, claim: odd})))

    @pytest.mark.parametrize(
        ("claim", "value"),
        [
            ("sub", "0"),
            ("sub", "01"),
            ("sub", str(2**63)),
            ("sub", "9" * 30),
            ("exp", 10**18),
            ("exp", 10**400),
            ("exp", float("inf")),
            ("exp", float("nan")),
            ("sid", "{00000000-0000-0000-0000-000000000000}"),
            ("jti", "00000000-0000-0000-0000-000000000000"),
        ],
    )
    def test_a_claim_beyond_its_bounds_is_rejected(
        self, client: APIClient, claims: dict[str, Any], claim: str, value: Any
    ) -> None:
        assert_is_rejected(present(client, sign({**claims, claim: value})))

    @pytest.mark.parametrize("payload", [[], "x", 1, None, [[[]]]])
    def test_a_payload_that_is_no_object_is_rejected(
        self, client: APIClient, db: None, payload: Any
    ) -> None:
        assert_is_rejected(present(client, sign(payload)))

    def test_a_session_of_another_or_of_none_is_rejected(
        self, client: APIClient, claims: dict[str, Any], stranger: User
    ) -> None:
        assert_is_rejected(present(client, sign({**claims, "sub": str(stranger.pk)})))
        assert_is_rejected(present(client, sign({**claims, "sid": str(uuid.uuid4())})))

    def test_only_its_own_secret_type_and_algorithm_count(
        self, client: APIClient, claims: dict[str, Any]
    ) -> None:
        none = jwt.encode(claims, None, algorithm="none")

        assert_is_rejected(present(client, sign(claims, REFRESH_SECRET)))
        assert_is_rejected(present(client, sign(claims, settings.SECRET_KEY)))
        assert_is_rejected(present(client, sign({**claims, "token_type": "refresh"})))
        assert_is_rejected(present(client, sign(claims, algorithm="HS512")))
        assert_is_rejected(present(client, none))

    def test_the_end_is_judged_without_leeway_and_the_beginning_not_at_all(
        self, client: APIClient, claims: dict[str, Any]
    ) -> None:
        now = int(time.time())

        assert_is_rejected(present(client, sign({**claims, "exp": now})))
        ahead = {**claims, "iat": now + 3600, "nbf": now + 3600}
        assert present(client, sign(ahead)).status_code == 200


class TestRefresh:
    @pytest.mark.parametrize("token", [None, 7, ["x"], {}, "", "abc", "x" * 3000])
    def test_what_is_no_token_is_rejected(self, client: APIClient, db: None, token: Any) -> None:
        response = client.post(f"{API}/auth/refresh", {"refresh_token": token})

        assert response.status_code in {400, 401}

    def test_an_access_token_refreshes_nothing(
        self, client: APIClient, user: User, sign_in: SignIn
    ) -> None:
        pair = sign_in(user).tokens

        response = client.post(f"{API}/auth/refresh", {"refresh_token": pair["access_token"]})

        assert_is_rejected(response)
        assert user.sessions.active().exists()
        assert_is_rejected(present(client, pair["refresh_token"]))

    def test_odd_claims_are_rejected(
        self, client: APIClient, claims: dict[str, Any], settings: Any
    ) -> None:
        settings.AUTH_RATE_LIMIT = (1000, 60)
        claims["token_type"] = "refresh"
        for claim in claims:
            for odd in [*ODD, 10**18]:
                if (claim, odd) == ("iat", 7):
                    continue
                token = sign({**claims, claim: odd}, REFRESH_SECRET)
                response = client.post(f"{API}/auth/refresh", {"refresh_token": token})
                assert_is_rejected(response)


class TestSecrets:
    @pytest.mark.parametrize("kind", [tokens.AccessToken, tokens.RefreshToken])
    def test_an_earlier_secret_still_verifies(
        self, kind: tokens.Kind, monkeypatch: pytest.MonkeyPatch, make_claims: Callable[[], Any]
    ) -> None:
        old, new = "o" * 32, "n" * 32
        monkeypatch.setattr(kind, "token_backend", tokens.RotatingBackend([old]))
        token = tokens.write(kind, **make_claims())

        monkeypatch.setattr(kind, "token_backend", tokens.RotatingBackend([new, old]))
        assert tokens.read(kind, token).user_id == 1
        again = tokens.write(kind, **make_claims())

        monkeypatch.setattr(kind, "token_backend", tokens.RotatingBackend([new]))
        assert tokens.read(kind, again).user_id == 1
        with pytest.raises(tokens.TokenError):
            tokens.read(kind, token)

    @pytest.fixture
    def make_claims(self) -> Callable[[], dict[str, Any]]:
        from django.utils import timezone

        now = timezone.now()
        one = uuid.UUID(int=1)
        names = {"user_id": 1, "session_id": one, "token_id": one}
        return lambda: {**names, "issued_at": now, "expires_at": now}
