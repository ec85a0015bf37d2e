"""Every error response, from any layer, is a problem document."""

import json
import logging
from typing import Any

import pytest
from django.db import InterfaceError, InternalError, OperationalError
from django.http import HttpRequest
from django.test import Client
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from conftest import API, SignIn

LOGIN = f"{API}/auth/login"


def assert_is_problem(response: Any, status: int, code: str) -> None:
    body = response.json()
    assert response.status_code == status, response.content
    assert response.headers["Content-Type"] == "application/problem+json"
    assert set(body) - {"errors", "checks"} == {
        "type", "title", "status", "detail", "code", "request_id",
    }  # fmt: skip
    assert (body["type"], body["status"], body["code"]) == ("about:blank", status, code)
    assert body["request_id"] == response.headers["X-Request-ID"]
    assert ("errors" in body) == (code == "validation_error")


@pytest.fixture(params=[True, False], autouse=True)
def debug(request: Any, settings: Settings) -> bool:
    """Run every test with DEBUG and without."""
    settings.DEBUG = request.param
    settings.ALLOWED_HOSTS = ["testserver"]
    return bool(request.param)


class TestBodies:
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"[]",
            b'"text"',
            b"null",
            b"1",
            b"[" * 2000,
            b"[" * 200_000,
            b'{"a":' * 2000 + b"1" + b"}" * 2000,
            b'{"identity": NaN}',
            b'{"identity": Infinity}',
            b'{"identity": -Infinity}',
            b'{"identity": "a", "identity": "b"}',
            b'{"x": {"a": 1, "a": 2}}',
            b'{"identity": "\xff"}',
            b'\xef\xbb\xbf{"identity": "a"}',
            b'{"x": ' + b"9" * 5000 + b"}",
            b'{"a\\u0000": 1}',
            b'{"\\ud800": 1}',
            b"identity=alice",
        ],
        ids=lambda body: repr(body[:24]),
    )
    def test_a_body_that_is_not_a_json_object_is_a_parse_error(
        self, client: APIClient, db: None, body: bytes
    ) -> None:
        response = client.generic("POST", LOGIN, body, "application/json")

        if body:
            assert_is_problem(response, 400, "parse_error")
        else:
            assert_is_problem(response, 400, "validation_error")

    @pytest.mark.parametrize("text", [r"\u0000", r"a\u0000b", r"\ud800", r"\udfff x"])
    @pytest.mark.parametrize("wrap", ["%s", '["%s"]', '{"deep": ["%s"]}', '{"%s": 1}'])
    def test_an_unstorable_value_is_an_error_of_its_field(
        self, client: APIClient, db: None, text: str, wrap: str
    ) -> None:
        value = f'"{text}"' if wrap == "%s" else wrap % text
        body = f'{{"identity": "alice", "password": "x", "junk": {value}}}'

        response = client.generic("POST", LOGIN, body, "application/json")

        assert_is_problem(response, 400, "validation_error")
        assert [error["field"] for error in response.json()["errors"]] == ["junk"]

    def test_a_pair_of_surrogates_is_a_character(self, client: APIClient, db: None) -> None:
        body = rb'{"identity": "\ud83d\ude00", "password": "x"}'

        response = client.generic("POST", LOGIN, body, "application/json")

        assert_is_problem(response, 401, "invalid_credentials")

    @pytest.mark.parametrize(
        "content_type",
        [
            "",
            "text/plain",
            "application/xml",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/json; charset=latin-1",
            "application/json; charset=bz2_codec",
            "application/json; charset=nonsense",
        ],
    )
    def test_another_media_type_is_rejected(
        self, client: APIClient, db: None, content_type: str
    ) -> None:
        response = client.generic("POST", LOGIN, b'{"identity": "x"}', content_type)

        assert_is_problem(response, 415, "unsupported_media_type")

    @pytest.mark.parametrize(
        "path", ["/auth/login", "/users", "/articles", "/auth/logout", "/nothing"]
    )
    def test_a_body_over_1_mib_is_too_large(self, client: APIClient, db: None, path: str) -> None:
        body = b'{"x": "' + b"x" * 1024 * 1024 + b'"}'

        response = client.generic("POST", f"{API}{path}", body, "application/json")

        assert_is_problem(response, 413, "payload_too_large")

    @pytest.mark.parametrize(
        ("content_type", "body"),
        [
            ("application/x-www-form-urlencoded", b"x" * (192 * 1024 + 1)),
            ("multipart/form-data; boundary=x", b";" * 1001),
        ],
    )
    def test_a_form_of_the_console_that_is_costly_is_too_large(
        self, db: None, content_type: str, body: bytes
    ) -> None:
        response = Client().generic("POST", "/admin/login/", body, content_type)

        assert response.status_code == 413

    def test_an_endless_body_is_not_read_completely(
        self, client: APIClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("api.middleware.DRAINED_BYTES", 65536)

        response = client.generic("POST", LOGIN, b"x" * 2 * 1024 * 1024, "application/json")

        assert_is_problem(response, 413, "payload_too_large")

    def test_a_body_of_1_mib_is_accepted(self, client: APIClient, db: None) -> None:
        body = b'{"identity": "a", "password": "x", "x": "'
        body += b"x" * (1024 * 1024 - len(body) - 2) + b'"}'

        response = client.generic("POST", LOGIN, body, "application/json")

        assert_is_problem(response, 401, "invalid_credentials")


class TestQueries:
    @pytest.mark.parametrize("value", ["%00", "a%00b", "%ED%A0%80", "%ff", "\udcff"])
    def test_an_unstorable_value_is_an_error_of_its_parameter(
        self, client: APIClient, db: None, value: str
    ) -> None:
        query = f"page=1&anything={value}".encode(errors="surrogateescape").decode("latin-1")

        response = client.get(f"{API}/articles", QUERY_STRING=query)

        assert_is_problem(response, 400, "validation_error")
        assert [error["field"] for error in response.json()["errors"]] == ["anything"]

    def test_a_name_that_cannot_be_stored_is_not_repeated(
        self, client: APIClient, db: None
    ) -> None:
        response = client.get(f"{API}/articles", QUERY_STRING="%ff%00=1")

        assert_is_problem(response, 400, "parse_error")

    def test_too_many_parameters(self, client: APIClient, db: None) -> None:
        query = "&".join(f"a{n}=1" for n in range(2000))

        response = client.get(f"{API}/articles", QUERY_STRING=query)

        assert_is_problem(response, 400, "parse_error")

    def test_at_most_20_errors_are_listed(self, client: APIClient, db: None) -> None:
        query = "&".join(f"a{n}=%00" for n in range(30))
        body = "{" + ",".join(f'"a{n}":"\\u0000"' for n in range(30)) + "}"

        for response in (
            client.get(f"{API}/articles", QUERY_STRING=query),
            client.generic("POST", LOGIN, body, "application/json"),
        ):
            assert_is_problem(response, 400, "validation_error")
            assert [e["field"] for e in response.json()["errors"]] == [f"a{n}" for n in range(20)]


class TestRoutes:
    @pytest.mark.parametrize(
        "path",
        ["/api", "/api/", "/api/v1x", "/api/v1//", "/api/v2/users", "/api/v1/users/x/y", "/nothing",
         "/api/v1//users/me", "/api/v1/users%00", "/health/nothing", "/api/v1/%0a"],
    )  # fmt: skip
    def test_an_unknown_path_is_not_found(self, client: APIClient, db: None, path: str) -> None:
        assert_is_problem(client.get(path), 404, "not_found")

    @pytest.mark.parametrize(
        ("path", "allow"),
        [
            ("/api/v1/auth/login", "OPTIONS, POST"),
            ("/api/v1/auth/refresh", "OPTIONS, POST"),
            ("/api/v1/auth/logout", "OPTIONS, POST"),
            ("/api/v1/auth/logout-all", "OPTIONS, POST"),
            ("/api/v1/auth/password", "OPTIONS, POST"),
            ("/api/v1/auth/sessions", "GET, HEAD, OPTIONS"),
            ("/api/v1/auth/sessions/00000000-0000-4000-8000-000000000000", "DELETE, OPTIONS"),
            ("/api/v1/users", "OPTIONS, POST"),
            ("/api/v1/users/me", "GET, HEAD, OPTIONS"),
            ("/api/v1/users/1", "DELETE, GET, HEAD, OPTIONS, PATCH"),
            ("/api/v1/articles", "GET, HEAD, OPTIONS, POST"),
            ("/api/v1/articles/1", "DELETE, GET, HEAD, OPTIONS, PATCH"),
            ("/api/v1/schema", "GET, HEAD, OPTIONS"),
            ("/api/v1/docs", "GET, HEAD, OPTIONS"),
            ("/api/v1", "GET, HEAD, OPTIONS"),
            ("/api/v1/health", "GET, HEAD, OPTIONS"),
            ("/health", "GET, HEAD, OPTIONS"),
            ("/health/ready", "GET, HEAD, OPTIONS"),
            ("/health/live", "GET, HEAD, OPTIONS"),
        ],
    )
    def test_methods(self, client: APIClient, path: str, allow: str) -> None:
        """Without database access: no response requires a token or counts a request."""
        for suffix in ("", "/"):
            options = client.options(f"{path}{suffix}", HTTP_AUTHORIZATION="Bearer garbage")
            assert (options.status_code, options.content) == (200, b"")
            assert options.headers["Allow"] == allow
            for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"}:
                if method not in allow:
                    response = client.generic(method, f"{path}{suffix}")
                    assert_is_problem(response, 405, "method_not_allowed")
                    assert response.headers["Allow"] == allow

    @pytest.mark.parametrize("accept", ["text/html", "application/xml", "image/*", "", "nonsense"])
    def test_json_is_the_only_representation(
        self, client: APIClient, db: None, accept: str
    ) -> None:
        response = client.get(f"{API}/articles?format=xml", HTTP_ACCEPT=accept)

        assert response.status_code == 200
        assert response.headers["Content-Type"] == "application/json"

    def test_a_trailing_slash_is_ignored(
        self, client: APIClient, user: User, sign_in: SignIn
    ) -> None:
        response = client.post(
            f"{LOGIN}/", {"identity": "alice", "password": "wrong"}, follow=False
        )
        assert_is_problem(response, 401, "invalid_credentials")
        assert sign_in(user).get(f"{API}/users/me/").status_code == 200
        assert_is_problem(client.get(f"{API}/articles//"), 404, "not_found")

    def test_head_is_handled_like_get(self, client: APIClient, db: None) -> None:
        for path in (f"{API}/articles", "/health", f"{API}/schema"):
            response = client.head(path)
            assert (response.status_code, response.content) == (200, b"")


class TestTrouble:
    @pytest.mark.parametrize("error", [OperationalError, InterfaceError, InternalError])
    def test_an_unavailable_database_is_a_503(
        self, client: APIClient, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
    ) -> None:
        break_articles(monkeypatch, error("connection to server at 10.0.0.1 failed"))

        response = client.get(f"{API}/articles")

        assert_is_problem(response, 503, "service_unavailable")
        assert int(response.headers["Retry-After"]) >= 1
        assert b"10.0.0.1" not in response.content

    def test_an_unexpected_error_is_a_500_without_details(
        self,
        client: APIClient,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        break_articles(monkeypatch, RuntimeError("SELECT secret FROM /etc/passwd"))

        response = client.get(f"{API}/articles", HTTP_ORIGIN="https://app.example.com")

        assert_is_problem(response, 500, "server_error")
        assert b"secret" not in response.content
        [record] = [r for r in caplog.records if r.levelno >= logging.ERROR]
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], RuntimeError)

    def test_an_unexpected_error_outside_the_api_is_a_500(
        self, client: APIClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*args: Any) -> None:
            raise RuntimeError("secret")

        monkeypatch.setattr("health.views.HealthView.get", fail)

        assert_is_problem(client.get("/health"), 500, "server_error")

    def test_a_client_that_disconnects_while_sending_gets_a_400(
        self, client: APIClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def hang_up(self: HttpRequest, *args: Any) -> bytes:
            raise OSError("connection reset")

        monkeypatch.setattr("django.core.handlers.wsgi.LimitedStream.read", hang_up)

        response = client.generic("POST", LOGIN, b"{}", "application/json")

        assert_is_problem(response, 400, "parse_error")

    def test_an_unknown_host(self, client: APIClient, db: None) -> None:
        response = client.get(f"{API}/articles", HTTP_HOST="evil.example.com")

        assert_is_problem(response, 400, "parse_error")
        assert b"evil" not in response.content

    @pytest.mark.parametrize("host", ["10.1.2.3:3000", "evil.example.com", "bad host", ""])
    def test_probes_may_name_any_host(self, client: APIClient, host: str) -> None:
        for path in ("/health", "/health/live", "/api/v1/health"):
            assert client.get(path, HTTP_HOST=host).status_code == 200

    def test_django_permission_errors_and_bad_signatures(
        self, client: APIClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from django.core.exceptions import PermissionDenied, SuspiciousOperation

        for error, status, code in (
            (PermissionDenied("x"), 403, "permission_denied"),
            (SuspiciousOperation("x"), 400, "parse_error"),
        ):
            break_articles(monkeypatch, error)
            assert_is_problem(client.get(f"{API}/articles"), status, code)


def test_nested_faults_are_joined_by_dots() -> None:
    from rest_framework.exceptions import ValidationError

    from api.errors import field_errors

    error = ValidationError({"a": [{"b": ["x"]}], "non_field_errors": ["y"]}, code="odd")

    assert list(field_errors(error.get_full_details())) == [
        {"field": "a.b", "code": "odd", "detail": "x"},
        {"field": None, "code": "odd", "detail": "y"},
    ]


def break_articles(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*args: Any) -> None:
        raise error

    monkeypatch.setattr("tests.articles.views.ArticleViewSet.get_queryset", fail)


def test_json_bodies_are_utf8(client: APIClient, user: User, sign_in: SignIn) -> None:
    response = sign_in(user).post(f"{API}/articles", {"title": "Größe ✓", "amount": 1})

    assert json.loads(response.content.decode("utf-8"))["title"] == "Größe ✓"
