import threading
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.utils.dateparse import parse_datetime
from pytest_django import DjangoAssertNumQueries, Settings
from rest_framework.test import APIClient

from conftest import API
from health import views

PREFIXES = ["", API]


@pytest.fixture(params=PREFIXES)
def prefix(request: Any) -> str:
    return str(request.param)


def test_health_returns_the_version_without_dependencies(client: APIClient, prefix: str) -> None:
    """Without database access."""
    response = client.get(f"{prefix}/health", HTTP_AUTHORIZATION="Bearer garbage")

    body = response.json()
    assert response.status_code == 200
    assert set(body) == {"status", "service", "version", "timestamp"}
    assert (body["status"], body["service"]) == ("ok", "latchkey")
    assert parse_datetime(body["timestamp"]).tzinfo is not None


def test_health_names_the_revision_that_was_built(
    client: APIClient, prefix: str, settings: Settings
) -> None:
    settings.VERSION, settings.REVISION = "2.1.0", "f00d"

    body = client.get(f"{prefix}/health").json()

    assert (body["version"], body["revision"]) == ("2.1.0", "f00d")


def test_live_needs_nothing(client: APIClient, prefix: str) -> None:
    response = client.get(f"{prefix}/health/live", HTTP_AUTHORIZATION="Bearer garbage")

    assert (response.status_code, response.json()) == (200, {"status": "ok"})


class TestReady:
    def test_it_checks_database_cache_and_migrations(
        self,
        client: APIClient,
        db: None,
        prefix: str,
        django_assert_max_num_queries: DjangoAssertNumQueries,
    ) -> None:
        with django_assert_max_num_queries(3):
            response = client.get(f"{prefix}/health/ready", HTTP_AUTHORIZATION="Bearer x")

        ok = {"status": "ok"}
        assert response.status_code == 200
        assert response.json()["checks"] == {"database": ok, "cache": ok, "migrations": ok}
        assert response.headers["Cache-Control"] == "no-store"

    def test_without_a_database_it_is_a_problem(
        self, client: APIClient, prefix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*args: Any) -> None:
            raise OperationalError("connection to 10.0.0.1 failed")

        monkeypatch.setattr(connection, "cursor", fail)

        response = client.get(f"{prefix}/health/ready")

        body = response.json()
        failed = {"status": "failed"}
        assert response.status_code == 503
        assert response.headers["Content-Type"] == "application/problem+json"
        assert body["code"] == "service_unavailable"
        assert body["request_id"] == response.headers["X-Request-ID"]
        assert body["checks"] == {
            "database": failed, "cache": {"status": "ok"}, "migrations": failed,
        }  # fmt: skip
        assert b"10.0.0.1" not in response.content
        assert int(response.headers["Retry-After"]) >= 1

    def test_a_migration_that_is_missing_fails(
        self, client: APIClient, db: None, prefix: str
    ) -> None:
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM django_migrations WHERE app = 'auth'")

        response = client.get(f"{prefix}/health/ready")

        assert response.status_code == 503
        assert response.json()["checks"]["migrations"] == {"status": "failed"}
        assert response.json()["checks"]["database"] == {"status": "ok"}

    def test_a_read_only_database_fails(self, client: APIClient, db: None, prefix: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET transaction_read_only = on")

        response = client.get(f"{prefix}/health/ready")

        assert response.status_code == 503
        assert response.json()["checks"]["database"] == {"status": "failed"}

    def test_a_draining_process_is_not_ready(
        self, client: APIClient, db: None, prefix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(views, "draining", threading.Event())
        views.draining.set()

        response = client.get(f"{prefix}/health/ready")

        assert response.status_code == 503
        assert {c["status"] for c in response.json()["checks"].values()} == {"ok"}
        assert client.get(f"{prefix}/health/live").status_code == 200

    def test_without_the_cache_it_is_degraded_and_serves(
        self, client: APIClient, db: None, prefix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("django.core.cache.cache.get", lambda key: None)

        response = client.get(f"{prefix}/health/ready")

        assert response.status_code == 200
        assert response.json()["checks"]["cache"] == {"status": "degraded"}
