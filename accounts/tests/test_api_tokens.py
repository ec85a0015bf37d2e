"""API tokens as credentials: their form, what they cost, and what is made of hostile ones."""

import hashlib
import json
import re
import zlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied
from django.db.models.functions import Now
from prometheus_client import REGISTRY
from pytest_django import DjangoAssertNumQueries, Settings
from rest_framework.generics import GenericAPIView
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.test import APIClient, APIRequestFactory

from accounts import api_tokens
from accounts.authentication import BearerAuthentication
from accounts.models import ApiToken, User
from accounts.permissions import IsFresh
from conftest import API, SignIn
from tests.rig.api_tokens import code_of, expire, issue_token, present, using

ME = f"{API}/users/me"
INVALID = (401, "token_not_valid")
NO_ID, NO_SECRET = "0" * 16, "A" * 43


@pytest.fixture
def token(user: User) -> ApiToken:
    return issue_token(user)


def checked(signed: str) -> str:
    """Add the checksum by which a service recognises a whole token."""
    return f"{signed}_{zlib.crc32(signed.encode()):08x}"


def almost(secret: str) -> str:
    return ("B" if secret[0] == "A" else "A") + secret[1:]


def parts(token: ApiToken) -> tuple[str, str]:
    """Return the id and the secret of a token."""
    text = str(token.text)
    return text[3:19], text[20:63]


def used_at(token: ApiToken) -> Any:
    return ApiToken.objects.values_list("last_used_at", flat=True).get(pk=token.pk)


class TestForm:
    def test_it_has_the_form_that_secret_scanners_look_for(self, token: ApiToken) -> None:
        assert re.fullmatch(r"lk_[0-9a-f]{16}_[A-Za-z0-9_-]{43}_[0-9a-f]{8}", str(token.text))
        token_id, secret = parts(token)
        assert token_id == token.pk
        assert token.text == checked(f"lk_{token_id}_{secret}")

    def test_only_the_digest_is_stored(self, token: ApiToken) -> None:
        secret = parts(token)[1]
        [row] = ApiToken.objects.values_list()

        assert hashlib.sha256(secret.encode()).hexdigest() in row
        assert not any(secret in str(column) for column in row)
        assert ApiToken.objects.get().text is None

    def test_every_secret_has_one_form(self) -> None:
        for _ in range(200):
            text = api_tokens.write(api_tokens.new_id(), api_tokens.new_secret())
            assert len(api_tokens.read(text).digest) == 64

    def test_another_prefix_is_used_and_the_former_one_is_not(
        self,
        token: ApiToken,
        user: User,
        settings: Settings,
        django_assert_num_queries: DjangoAssertNumQueries,
    ) -> None:
        settings.API_TOKEN_PREFIX = "shop2"
        renamed = issue_token(user)

        assert str(renamed.text).startswith("shop2_")
        assert using(renamed).get(ME).status_code == 200
        with django_assert_num_queries(0):
            assert code_of(using(token).get(ME)) == INVALID


# Each makes a header of a token that works, another user's token, and the parts of the former.
Forge = Callable[[str, str, str], str]
MALFORMED: dict[str, Forge] = {
    "no checksum": lambda text, i, s: f"Bearer lk_{i}_{s}",
    "another checksum": lambda text, i, s: f"Bearer {text[:-1]}{'0' if text[-1] != '0' else '1'}",
    "upper-case checksum": lambda text, i, s: f"Bearer {text[:-8]}{'ABCDEF01'}",
    "another prefix": lambda text, i, s: f"Bearer {checked(f'xx_{i}_{s}')}",
    "no prefix": lambda text, i, s: f"Bearer {checked(f'{i}_{s}')}",
    "upper-case prefix": lambda text, i, s: f"Bearer {checked(f'LK_{i}_{s}')}",
    "only the prefix": lambda text, i, s: "Bearer lk_",
    "upper-case id": lambda text, i, s: f"Bearer {checked(f'lk_{i[:-1]}A_{s}')}",
    "short id": lambda text, i, s: f"Bearer {checked(f'lk_{i[:-1]}_{s}')}",
    "no id": lambda text, i, s: f"Bearer {checked(f'lk__{s}')}",
    "short secret": lambda text, i, s: f"Bearer {checked(f'lk_{i}_{s[:-1]}')}",
    "long secret": lambda text, i, s: f"Bearer {checked(f'lk_{i}_{s}A')}",
    "padded secret": lambda text, i, s: f"Bearer {checked(f'lk_{i}_{s}=')}",
    "another form of the secret": lambda text, i, s: f"Bearer {checked(f'lk_{i}_{s[:-1]}B')}",
    "another alphabet": lambda text, i, s: f"Bearer {checked(f'lk_{i}_{s[:-2]}+A')}",
    "digits of another script": lambda text, i, s: f"Bearer {checked(f'lk_{i[:-1]}٣_{s}')}",
    "a letter that looks alike": lambda text, i, s: f"Bearer {checked(f'lk_{i}_{s[:-2]}АA')}",
    "NUL": lambda text, i, s: f"Bearer {checked(f'lk_{i}_{s[:-2]}')}\x00",
    "a line": lambda text, i, s: f"Bearer {text}\n{text}",
    "thousands of characters": lambda text, i, s: f"Bearer lk_{i}_{'A' * 60_000}",
    "a space in it": lambda text, i, s: f"Bearer {text[:30]} {text[30:]}",
    "two headers": lambda text, i, s: f"Bearer {text}, Bearer {text}",
    "two tokens": lambda text, i, s: f"Bearer {text},{text}",
    "quotes": lambda text, i, s: f'Bearer "{text}"',
}
UNKNOWN: dict[str, Forge] = {
    "an id that does not exist": lambda text, i, s: f"Bearer {checked(f'lk_{NO_ID}_{s}')}",
    "another secret": lambda text, i, s: f"Bearer {checked(f'lk_{i}_{NO_SECRET}')}",
    "almost its secret": lambda text, i, s: f"Bearer {checked(f'lk_{i}_{almost(s)}')}",
}


class TestHostileForms:
    @pytest.mark.parametrize("name", MALFORMED)
    def test_a_wrong_form_or_checksum_is_rejected_without_a_query(
        self, token: ApiToken, django_assert_num_queries: DjangoAssertNumQueries, name: str
    ) -> None:
        header = MALFORMED[name](str(token.text), *parts(token))

        with django_assert_num_queries(0):
            assert code_of(present(header).get(ME)) == INVALID

    @pytest.mark.parametrize("name", UNKNOWN)
    def test_a_wrong_secret_is_rejected_after_one_query(
        self, token: ApiToken, django_assert_num_queries: DjangoAssertNumQueries, name: str
    ) -> None:
        header = UNKNOWN[name](str(token.text), *parts(token))

        with django_assert_num_queries(1):
            assert code_of(present(header).get(ME)) == INVALID
        assert used_at(token) is None

    def test_the_id_of_another_users_token_opens_nothing(
        self,
        token: ApiToken,
        stranger: User,
        django_assert_num_queries: DjangoAssertNumQueries,
    ) -> None:
        other, secret = issue_token(stranger), parts(token)[1]
        damaged = str(token.text).replace(token.pk, other.pk)

        with django_assert_num_queries(0):
            assert code_of(present(f"Bearer {damaged}").get(ME)) == INVALID
        with django_assert_num_queries(1):
            header = f"Bearer {checked(f'lk_{other.pk}_{secret}')}"
            assert code_of(present(header).get(ME)) == INVALID

    def test_an_expired_token_is_rejected(self, token: ApiToken) -> None:
        expire(token)
        assert code_of(using(token).get(ME)) == INVALID

    def test_an_ended_token_is_rejected(self, token: ApiToken) -> None:
        ApiToken.objects.end("user")
        assert code_of(using(token).get(ME)) == INVALID

    def test_the_token_of_an_inactive_user_is_rejected(self, token: ApiToken, user: User) -> None:
        User.objects.filter(pk=user.pk).update(is_active=False)
        assert code_of(using(token).get(ME)) == INVALID

    def test_the_token_of_a_deleted_user_is_rejected(self, token: ApiToken, user: User) -> None:
        user.delete()
        assert code_of(using(token).get(ME)) == INVALID
        assert not ApiToken.objects.exists()

    @pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer  "])
    def test_the_scheme_may_have_any_letter_case(self, token: ApiToken, scheme: str) -> None:
        assert present(f"{scheme} {token.text} ").get(ME).status_code == 200

    @pytest.mark.parametrize("scheme", ["Token", "Basic", "lk"])
    def test_another_scheme_is_no_token(self, token: ApiToken, scheme: str) -> None:
        assert code_of(present(f"{scheme} {token.text}").get(ME)) == (401, "not_authenticated")

    @pytest.mark.parametrize("path", ["/auth/refresh", "/auth/login"])
    def test_it_is_no_refresh_token_and_no_password(
        self, token: ApiToken, client: APIClient, path: str
    ) -> None:
        body = {"refresh_token": token.text, "identity": "alice", "password": token.text}
        assert client.post(f"{API}{path}", body).status_code == 401

    def test_an_access_token_in_its_form_is_none(
        self, user: User, sign_in: SignIn, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        access = sign_in(user).tokens["access_token"]
        with django_assert_num_queries(0):
            assert code_of(present(f"Bearer lk_{access}").get(ME)) == INVALID

    def test_the_metric_counts_them(self, token: ApiToken) -> None:
        def counted() -> list[float]:
            name = "latchkey_api_tokens_presented_total"
            outcomes = ("accepted", "refused", "denied")
            return [REGISTRY.get_sample_value(name, {"outcome": one}) or 0 for one in outcomes]

        before = counted()
        using(token).get(ME)
        present(f"Bearer {token.text}x").get(ME)
        using(token).get(f"{API}/auth/sessions")

        assert [new - old for old, new in zip(before, counted(), strict=True)] == [1, 1, 1]


class TestCost:
    def test_a_request_costs_one_query_and_once_a_minute_a_second_one(
        self, token: ApiToken, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        client = using(token)
        with django_assert_num_queries(2):
            client.get(ME)
        first = used_at(token)
        for _ in range(3):
            with django_assert_num_queries(1):
                assert client.get(ME).json()["username"] == "alice"
        assert used_at(token) == first

        ApiToken.objects.update(last_used_at=Now() - timedelta(seconds=61))
        with django_assert_num_queries(2):
            client.get(ME)
        assert used_at(token) > first

    def test_of_two_requests_at_once_one_records_the_use(self, token: ApiToken) -> None:
        ApiToken.objects.filter(pk=token.pk).record_use()
        first = used_at(token)
        # The other request has read the row before it was recorded.
        ApiToken.objects.filter(pk=token.pk).record_use()

        assert used_at(token) == first


class AnyView(GenericAPIView[User]):
    """A view of an app, which replaces the permissions of the project."""

    permission_classes = [AllowAny]

    def get(self, request: Request) -> Response:
        return Response({})

    post = get


class OpenView(AnyView):
    allows_api_tokens = True


class FreshView(OpenView):
    permission_classes = [IsFresh]


class TestViews:
    @pytest.mark.parametrize("scope", ["read", "write"])
    def test_a_view_that_does_not_say_so_accepts_none(self, user: User, scope: str) -> None:
        token = issue_token(user, scope=scope)
        for method in ("get", "post"):
            assert call(AnyView, method, token) == (403, "permission_denied")

    @pytest.mark.parametrize(("scope", "status"), [("read", 403), ("write", 200)])
    def test_a_view_that_says_so_accepts_what_the_scope_permits(
        self, user: User, scope: str, status: int
    ) -> None:
        token = issue_token(user, scope=scope)
        assert call(OpenView, "get", token)[0] == 200
        assert call(OpenView, "post", token)[0] == status

    def test_a_request_without_a_view_accepts_none(self, token: ApiToken) -> None:
        bare = APIRequestFactory().get("/", HTTP_AUTHORIZATION=f"Bearer {token.text}")
        with pytest.raises(PermissionDenied):
            BearerAuthentication().authenticate(Request(bare))

    def test_no_api_token_is_fresh(self, token: ApiToken) -> None:
        assert call(FreshView, "get", token) == (403, "reauthentication_required")


def call(view: type[AnyView], method: str, token: ApiToken) -> tuple[int, Any]:
    request = getattr(APIRequestFactory(), method)("/", HTTP_AUTHORIZATION=f"Bearer {token.text}")
    response = view.as_view()(request)
    code = json.loads(response.content)["code"] if response.status_code >= 400 else ""
    return response.status_code, code
