import io
import logging
import re
from typing import Any

import pytest
from django.db import OperationalError
from django.http import HttpResponseNotModified
from django.test import RequestFactory
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from api.middleware import ResponseHeadersMiddleware
from conftest import API, SignIn

ORIGIN = "https://app.example.com"
EXPOSED = {"X-Request-ID", "Retry-After", "RateLimit", "RateLimit-Policy"}


def every_type_of_response(client: APIClient) -> dict[str, Any]:
    return {
        "success": client.get(f"{API}/articles", HTTP_ORIGIN=ORIGIN),
        "health": client.get("/health", HTTP_ORIGIN=ORIGIN),
        "not found": client.get("/api/v1/nothing", HTTP_ORIGIN=ORIGIN),
        "refused": client.get(f"{API}/users/me", HTTP_ORIGIN=ORIGIN),
        "method": client.put(f"{API}/articles", HTTP_ORIGIN=ORIGIN),
        "options": client.options(f"{API}/articles", HTTP_ORIGIN=ORIGIN),
        "query": client.get(f"{API}/articles?x=%00", HTTP_ORIGIN=ORIGIN),
        "preflight": client.options(
            f"{API}/articles", HTTP_ORIGIN=ORIGIN, HTTP_ACCESS_CONTROL_REQUEST_METHOD="POST"
        ),
    }


def test_every_response_has_the_security_headers(client: APIClient, db: None) -> None:
    for kind, response in every_type_of_response(client).items():
        assert response.headers["X-Content-Type-Options"] == "nosniff", kind
        assert response.headers["Referrer-Policy"], kind
        assert response.headers["X-Frame-Options"] == "DENY", kind
        policy = response.headers["Content-Security-Policy"]
        assert policy == "default-src 'none'; frame-ancestors 'none'", kind
        assert "Strict-Transport-Security" not in response.headers, kind
        assert response.headers["Content-Length"] == str(len(response.content)), kind


class TestRequestId:
    @pytest.mark.parametrize("given", ["abc", "A-1_b.2", "x" * 128])
    def test_a_valid_one_is_returned(self, client: APIClient, db: None, given: str) -> None:
        for path in (f"{API}/articles", "/health", "/nothing"):
            response = client.get(path, HTTP_X_REQUEST_ID=given)
            assert response.headers["X-Request-ID"] == given

    @pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a\nb", "é", "<script>", "١"])
    def test_any_other_is_replaced(self, client: APIClient, given: str) -> None:
        response = client.get("/health", HTTP_X_REQUEST_ID=given)

        assert re.fullmatch(r"[0-9a-f]{32}", response.headers["X-Request-ID"])

    def test_it_is_in_every_log_line(
        self, client: APIClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stream = io.StringIO()
        [handler] = [h for h in logging.getLogger().handlers if type(h) is logging.StreamHandler]
        monkeypatch.setattr(handler, "stream", stream)

        client.get("/api/v1/nothing%0aforged", HTTP_X_REQUEST_ID="tell-me")
        client.get("/api/v1/auth/sessions", HTTP_X_REQUEST_ID="tell-me")
        monkeypatch.setattr("health.views.LiveView.get", None)
        client.get("/health/live%1b", HTTP_X_REQUEST_ID="tell-me")
        client.get("/health/live", HTTP_X_REQUEST_ID="tell-me")

        text = stream.getvalue()
        lines = [line for line in text.splitlines() if re.match(r"\d\d:\d\d:\d\d ", line)]
        assert len(lines) == 5
        assert all(line.endswith("[tell-me]") for line in lines)
        assert "TypeError: /health/live" in text
        assert "forged" not in text


class TestCaching:
    def test_where_a_token_was_presented_or_handed_out_nothing_is_stored(
        self, client: APIClient, user: User, sign_in: SignIn
    ) -> None:
        device = sign_in(user)

        for response in (
            device.get(f"{API}/articles"),
            device.get(f"{API}/users/me"),
            client.get(f"{API}/articles", HTTP_AUTHORIZATION="Bearer garbage"),
            client.post(f"{API}/auth/login", {}),
            client.post(f"{API}/auth/refresh", {}),
            client.post(f"{API}/users", {"registration_token": "x"}),
        ):
            assert response.headers["Cache-Control"] == "no-store"
        assert "Cache-Control" not in client.get(f"{API}/articles").headers


class TestHTTPS:
    @pytest.fixture(autouse=True)
    def production(self, settings: Settings) -> None:
        settings.SECURE_HSTS_SECONDS = 3600

    def test_hsts_on_https_only(self, client: APIClient) -> None:
        assert "Strict-Transport-Security" in client.get("/health", secure=True).headers
        assert "Strict-Transport-Security" not in client.get("/health").headers

    def test_forwarded_proto_counts_only_from_a_trusted_proxy(
        self, client: APIClient, settings: Settings
    ) -> None:
        header = {"HTTP_X_FORWARDED_PROTO": "https"}
        assert "Strict-Transport-Security" not in client.get("/health", **header).headers

        settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
        assert "Strict-Transport-Security" in client.get("/health", **header).headers


class TestCORS:
    def test_no_origin_is_allowed_unless_listed(self, client: APIClient, db: None) -> None:
        for kind, response in every_type_of_response(client).items():
            assert "Access-Control-Allow-Origin" not in response.headers, kind

    def test_a_listed_origin_may_read_error_responses(
        self, client: APIClient, db: None, settings: Settings
    ) -> None:
        settings.CORS_ALLOWED_ORIGINS = [ORIGIN]

        for kind, response in every_type_of_response(client).items():
            assert response.headers["Access-Control-Allow-Origin"] == ORIGIN, kind
            exposed = set(response.headers["Access-Control-Expose-Headers"].split(", "))
            assert exposed == EXPOSED, kind
            assert "Access-Control-Allow-Credentials" not in response.headers, kind

    def test_a_500_has_them_too(
        self, client: APIClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.CORS_ALLOWED_ORIGINS = [ORIGIN]
        monkeypatch.delattr("tests.articles.views.ArticleViewSet.get_queryset")
        monkeypatch.setattr("tests.articles.views.ArticleViewSet.queryset", "broken", raising=False)

        response = client.get(f"{API}/articles", HTTP_ORIGIN=ORIGIN)

        assert response.status_code == 500
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN

    @pytest.mark.parametrize(
        ("path", "allowed"),
        [
            (f"{API}/auth/login", "OPTIONS, POST"),
            (f"{API}/articles/1", "DELETE, GET, HEAD, OPTIONS, PATCH"),
            ("/health", "GET, HEAD, OPTIONS"),
            (f"{API}/nothing", None),
        ],
    )
    @pytest.mark.parametrize("origin", [ORIGIN, "https://evil.example.com"])
    def test_a_preflight_is_an_options_request(
        self, client: APIClient, settings: Settings, path: str, allowed: str | None, origin: str
    ) -> None:
        settings.CORS_ALLOWED_ORIGINS = [ORIGIN]
        headers = {"HTTP_ORIGIN": origin, "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "POST"}

        response = client.options(path, **headers)

        assert response.status_code == (200 if allowed else 404)
        assert response.headers.get("Allow") == allowed
        methods = response.headers.get("Access-Control-Allow-Methods", "")
        assert ("POST" in methods) == (origin == ORIGIN)

    def test_another_origin_may_not(self, client: APIClient, settings: Settings) -> None:
        settings.CORS_ALLOWED_ORIGINS = [ORIGIN]

        response = client.get("/health", HTTP_ORIGIN="https://evil.example.com")

        assert "Access-Control-Allow-Origin" not in response.headers


class TestPages:
    @pytest.mark.parametrize("path", ["/", f"{API}/docs", "/admin/login/"])
    def test_pages_run_nothing_but_what_is_served_here(
        self, client: APIClient, db: None, path: str
    ) -> None:
        response = client.get(path)

        html = response.content.decode()
        policy = response.headers["Content-Security-Policy"]
        assert response.status_code == 200
        assert policy.startswith("default-src 'self';")
        sources = {source for part in policy.split("; ") for source in part.split()[1:]}
        assert sources == {"'self'", "'none'"}
        assert not re.search(r"<script(?![^>]*\ssrc=)[^>]*>", html)
        assert not re.search(r"\s(style|on[a-z]+)=", html)
        assert "<style" not in html
        assert not re.search(r"(src|href)=\"(https?:)?//", html)

    @pytest.mark.parametrize(
        "path",
        [
            *("/", f"{API}/docs", f"{API}/schema", "/admin/login/", "/admin/nothing/", "/nothing"),
            *("/account/reset-password", "/mail", "/static/accounts/pages.js", "/static/nothing"),
        ],
    )
    @pytest.mark.parametrize("host", ["testserver", "evil.example.com"])
    def test_each_has_the_security_headers(
        self, client: APIClient, db: None, path: str, host: str
    ) -> None:
        response = client.get(path, HTTP_HOST=host)
        response.close()

        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] in {"same-origin", "no-referrer"}
        assert response.headers["X-Frame-Options"] == "DENY"
        assert "'unsafe" not in response.headers["Content-Security-Policy"]
        assert re.fullmatch(r"[0-9a-f]{32}", response.headers["X-Request-ID"])

    def test_a_page_that_a_browser_has_stored_keeps_its_policy(self, rf: RequestFactory) -> None:
        """A browser takes the headers of a 304 over into what it has stored."""
        middleware = ResponseHeadersMiddleware(lambda request: HttpResponseNotModified())

        response = middleware(rf.get("/"))

        assert "Content-Security-Policy" not in response.headers

    def test_the_pages_files_are_served_without_collectstatic(
        self, client: APIClient, db: None
    ) -> None:
        # Closing a response closes an old connection, if an earlier test left one.
        html = client.get(f"{API}/docs").content.decode()

        paths = re.findall(r'(?:src|href)="(/static/[^"]+)"', html)
        assert len(paths) == 5
        for path in paths:
            response = client.get(path)
            assert (response.status_code, bool(b"".join(response))) == (200, True), path
            response.close()


class TestAdminErrors:
    def test_people_get_html(self, client: APIClient, db: None) -> None:
        response = client.get("/admin/nothing/", follow=True)

        assert response.headers["Content-Type"].startswith("text/html")

    def test_also_when_the_database_is_unavailable(
        self, client: APIClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*args: Any, **kwargs: Any) -> None:
            raise OperationalError("secret")

        monkeypatch.setattr("django.contrib.auth.views.LoginView.dispatch", fail)

        response = client.get("/admin/login/")

        assert response.status_code == 503
        assert response.headers["Content-Type"].startswith("text/html")
        assert int(response.headers["Retry-After"]) >= 1
        assert b"secret" not in response.content
