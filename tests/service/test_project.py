"""Checks of the whole project, and of the OpenAPI document."""

import json
import re
import runpy
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.password_validation import CommonPasswordValidator
from django.core.management import call_command
from django.core.paginator import Paginator
from django.test import RequestFactory
from django.urls import get_resolver
from drf_spectacular.validation import validate_schema
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from accounts.models.events import GUESSES_OF_AN_ACCOUNT
from accounts.passwords import MAXIMUM_LENGTH
from api.errors import DETAILS
from api.requests import is_api, is_health
from api.views import schema
from config import urls
from conftest import API
from console.site import ConsoleSite
from tests.articles.admin import ArticleAdmin
from tests.articles.models import Article
from tests.rig.machine import ROOT

# The routes of the contract, and those of tests.articles. Own apps may have any others.
OPEN = {
    ("POST", "/auth/login"),
    ("POST", "/auth/refresh"),
    ("POST", "/auth/password/forgot"),
    ("POST", "/auth/password/reset"),
    ("POST", "/auth/registration"),
    ("POST", "/users"),
    ("GET", "/articles"),
    ("GET", "/articles/{id}"),
    ("GET", "/health"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/schema"),
    ("GET", ""),
}
CLOSED = {
    ("POST", "/auth/reauthenticate"),
    ("POST", "/auth/logout"),
    ("POST", "/auth/logout-all"),
    ("GET", "/auth/events"),
    ("GET", "/auth/sessions"),
    ("DELETE", "/auth/sessions/{id}"),
    ("POST", "/auth/password"),
    ("GET", "/users/me"),
    ("GET", "/users/me/export"),
    ("GET", "/users/me/security"),
    ("GET", "/users/me/tokens"),
    ("POST", "/users/me/tokens"),
    ("DELETE", "/users/me/tokens/{id}"),
    ("POST", "/users/me/email"),
    ("POST", "/users/me/email/verification"),
    ("POST", "/users/me/email/verify"),
    ("GET", "/users/{id}"),
    ("PATCH", "/users/{id}"),
    ("DELETE", "/users/{id}"),
    ("POST", "/articles"),
    ("PATCH", "/articles/{id}"),
    ("DELETE", "/articles/{id}"),
}

APPS = ["accounts", "catalog", "health"]
PACKAGES = {*APPS, "api", "tests"}


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    document = json.loads(schema())
    return {
        (method.upper(), path.removeprefix(API)): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


def test_no_migration_is_missing(db: None) -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def test_the_schema_is_valid_and_names_every_route_of_the_contract() -> None:
    document = json.loads(schema())

    validate_schema(document)
    assert document["openapi"].startswith("3.1")
    assert set(operations()) >= OPEN | CLOSED
    identifiers = [operation["operationId"] for operation in operations().values()]
    assert len(identifiers) == len(set(identifiers))
    assert {"auth_login", "auth_refresh", "articles_list", "users_me"} <= set(identifiers)


def test_the_schema_lists_every_route() -> None:
    """A new route of the template must be in the schema or in this list."""
    described = {path for _, path in operations()} | {"/docs"}

    for pattern, view in routes(get_resolver().url_patterns):
        if pattern.startswith("api/v1") and view.__module__.partition(".")[0] in PACKAGES:
            path = pattern.removeprefix("api/v1")
            path = re.sub("<[a-z]+:pk>", "{id}", path)
            assert path in described


UUIDS = re.compile("sessions|passkeys")


@pytest.mark.parametrize(("method", "path"), sorted(operations()))
def test_every_route_rejects_anonymous_clients_except_a_list(
    client: APIClient, db: None, method: str, path: str
) -> None:
    """A route of an own app is closed if its description requires a token."""
    identifier = "00000000-0000-4000-8000-000000000000" if UUIDS.search(path) else "1"
    url = API + re.sub(r"\{\w+\}", identifier, path)
    needs_token = {} not in operations()[method, path].get("security", [{}])

    response = client.generic(method, url, b"{}", "application/json")

    is_closed = (method, path) in CLOSED or (needs_token and (method, path) not in OPEN)
    assert (response.status_code == 401) == is_closed


def test_security_names_tests_that_exist() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    names = re.findall(r"`([a-z_/]+(?:\.py|/tests))`", text)

    assert len(names) > 40
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_security_states_the_numbers_of_the_settings() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    common = CommonPasswordValidator().passwords
    tokens, sessions = settings.REFRESH_TOKEN_LIFETIME.days, settings.SESSION_MAX_AGE.days
    claims = [
        f"of 8 characters or more | yes | 8 to {MAXIMUM_LENGTH};",
        f"characters or more | yes | up to {MAXIMUM_LENGTH} |",
        f"Django's list of {round(len(common), -4):,}",
        f"{tokens} and {sessions} days, {settings.SESSION_LIMIT} sessions (`SESSION_LIMIT`)",
        f"the console {settings.SESSION_COOKIE_AGE // 3600} hours",
        f"up to {GUESSES_OF_AN_ACCOUNT} an hour",
    ]

    assert [claim for claim in claims if claim not in text] == []


def test_every_code_is_described() -> None:
    described = json.dumps(json.loads(schema()))

    for code in DETAILS:
        assert f'"{code}"' in described


def test_every_operation_describes_its_error_responses() -> None:
    for method, path in OPEN | CLOSED:
        if path.startswith(("/health", "/schema")) or not path:
            continue
        operation = operations()[method, path]
        errors = {status for status in operation["responses"] if int(status) >= 400}
        assert {"500", "503"} <= errors
        assert ("504" in errors) == (method != "GET")
        if (method, path) in CLOSED:
            assert "401" in errors
            assert {"bearer": []} in operation["security"]
            assert ({} in operation["security"]) == (path == "/auth/password")
        is_change_of_user = path.startswith("/users") and method != "GET"
        is_own = path.startswith("/auth/") or path in {"/users/me/tokens", "/users/me/export"}
        assert ("429" in errors) == (is_own or is_change_of_user)
        for status in errors:
            content = operation["responses"][status]["content"]
            assert list(content) == ["application/problem+json"]


def test_every_operation_has_a_summary_and_a_description_of_its_own() -> None:
    described = [
        operation
        for (method, path), operation in operations().items()
        if (method, path) in OPEN | CLOSED
    ]

    for name in ("summary", "description"):
        texts = [operation.get(name) for operation in described]
        assert all(texts)
        assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("name", APPS)
def test_no_app_mentions_another(name: str) -> None:
    """In code, templates, SQL, names of routes, and tests; import-linter sees only imports."""
    others = "|".join({*APPS} - {name})
    mention = re.compile(rf"""(?<![\w.])(?:{others})(?:[._:]\w|/\w|["'](?!:))""")
    files = [path for path in (ROOT / name).rglob("*") if path.suffix in {".py", ".html"}]

    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in files
        for line in path.read_text().splitlines()
        if mention.search(line)
    ]

    assert files
    assert not found


def routes(patterns: list[Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return the path and the view of each pattern."""
    found = []
    for pattern in patterns:
        path = prefix + str(pattern.pattern)
        if hasattr(pattern, "url_patterns"):
            found += routes(pattern.url_patterns, path)
        else:
            found.append((path, pattern.callback))
    return found


def test_the_admin_can_be_elsewhere(settings: Settings) -> None:
    settings.ADMIN_PATH = "staff/console/"

    patterns = runpy.run_path(urls.__file__)["urlpatterns"]

    assert str(patterns[-1].pattern) == "staff/console/"


def test_the_admin_can_be_switched_off(settings: Settings) -> None:
    for enabled in (True, False):
        settings.ADMIN_ENABLED = enabled
        patterns = runpy.run_path(urls.__file__)["urlpatterns"]
        assert any(str(pattern.pattern) == "admin/" for pattern in patterns) == enabled


def test_the_api_can_be_elsewhere(settings: Settings) -> None:
    settings.API_ROOT, settings.API_PATH = "rest/", "rest/v1/"

    patterns = runpy.run_path(urls.__file__)["urlpatterns"]

    assert {"rest/v1", "rest/v1/"} <= {str(pattern.pattern) for pattern in patterns}
    assert [is_api(path) for path in ("/rest/v2/x", "/health", "/api/v1/x")] == [True, True, False]
    assert [is_health(path) for path in ("/rest/v1/health/live", "/rest/v1/x")] == [True, False]


def test_lists_of_the_console_are_bounded(
    user: User, monkeypatch: pytest.MonkeyPatch, rf: RequestFactory
) -> None:
    class OwnAdmin(ArticleAdmin):
        paginator = Paginator

    monkeypatch.setattr("api.pagination.MAXIMUM_COUNT", 2)
    Article.objects.bulk_create(Article(owner=user, title="Lamp", amount=n) for n in range(3))
    articles = Article.objects.order_by("pk")
    plain, own = ConsoleSite(), ConsoleSite()
    plain.register(Article)
    own.register(Article, OwnAdmin)

    def count(site: ConsoleSite, rows: Any) -> int:
        return site.get_model_admin(Article).get_paginator(rf.get("/"), rows, 100).count

    assert (count(plain, articles), count(plain, articles.none()), count(own, articles)) == (
        2,
        0,
        3,
    )
