"""How PostgreSQL means to response what is asked most: by indexes, whatever the tables' size."""

from collections.abc import Callable

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from conftest import API, PASSWORD, SignIn
from tests.rig.api_tokens import issue_token, using
from tests.rig.plans import faults, plan_faults

# Enough rows for the planner to prefer a suitable index.
ROWS = {"users": 2000, "sessions": 20_000, "events": 20_000}
ARTICLES = """
    INSERT INTO articles_article (owner_id, title, description, amount, created_at, updated_at)
    SELECT o.id, 'Lamp ' || n, 'one of many', n % 1000, now() - n * interval '1 s', now()
      FROM generate_series(1, 20) n, accounts_user o
"""
API_TOKENS = """
    INSERT INTO accounts_apitoken (id, user_id, name, scope, digest, created_at, expires_at)
    SELECT left(md5(o.id || ' ' || n), 16), o.id, 'Token ' || n, 'read', repeat('0', 64),
           now() - n * interval '1 day', now() + n * interval '1 day' - interval '5 days'
      FROM generate_series(1, 20) n, accounts_user o
"""
TABLES = {"accounts_user", "accounts_session", "accounts_event", "articles_article"}
TABLES |= {"accounts_apitoken"}
ORDERINGS = ("created_at", "-title", "amount")
LISTS = [
    *(f"/articles?ordering={ordering}" for ordering in ORDERINGS),
    *(f"/articles?owner={{owner}}&ordering={ordering}" for ordering in ORDERINGS),
    *("/articles", "/articles?page=500", "/articles?owner={owner}", "/articles/{article}"),
    *("/users/me", "/users/me/tokens", "/auth/sessions", "/auth/events"),
]
CONSOLE = [
    "accounts/user",
    "accounts/apitoken",
    "accounts/session",
    "accounts/event",
    "articles/article",
]


def test_no_hot_query_scans_or_sorts_a_table(
    user: User,
    make_user: Callable[..., User],
    sign_in: SignIn,
    client: APIClient,
    settings: Settings,
) -> None:
    settings.AUTH_RATE_LIMIT = (1000, 60)
    for _ in range(12):
        device = sign_in(user)
    call_command("seeddemo", **ROWS, force=True)
    with connection.cursor() as cursor:
        cursor.execute(ARTICLES)
        cursor.execute(API_TOKENS)
        cursor.execute("SELECT id, owner_id FROM articles_article LIMIT 1")
        article, owner = cursor.fetchone()
        cursor.execute("ANALYZE")

    found = {
        path: plan_faults(
            lambda path=path: device.get(API + path.format(article=article, owner=owner)), TABLES
        )
        for path in LISTS
    }
    browser = Client()
    browser.force_login(make_user("boss", is_staff=True, is_superuser=True))
    found |= {
        path: plan_faults(lambda path=path: browser.get(f"/admin/{path}/"), TABLES)
        for path in CONSOLE
    }
    walk = device.get(f"{API}/articles?page=1000").json()["next"]
    assert "cursor=" in walk
    found["cursor"] = plan_faults(lambda: device.get(walk), TABLES)
    machine = using(issue_token(user))
    found["API token"] = plan_faults(lambda: machine.get(f"{API}/users/me"), TABLES)
    login = {"identity": user.email, "password": PASSWORD}
    token = {"refresh_token": device.tokens["refresh_token"]}
    found["refresh"] = plan_faults(lambda: client.post(f"{API}/auth/refresh", token), TABLES)
    found["login"] = plan_faults(lambda: client.post(f"{API}/auth/login", login), TABLES)
    found["logout"] = plan_faults(lambda: device.post(f"{API}/auth/logout"), TABLES)

    assert {path: faults for path, faults in found.items() if faults} == {}


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("SELECT * FROM articles_article WHERE description LIKE '%of many%' LIMIT 5", "a scan of"),
        ("SELECT * FROM articles_article ORDER BY updated_at", "a sort of 2000 rows"),
        ("SELECT count(*) FROM articles_article", "a scan of articles_article"),
    ],
)
def test_a_plan_with_a_scan_is_detected(db: None, statement: str, fault: str) -> None:
    call_command("seeddemo", users=100, sessions=0, events=0, force=True)
    with connection.cursor() as cursor:
        cursor.execute(ARTICLES)
        cursor.execute("ANALYZE articles_article")

    assert faults(statement, TABLES)[0].startswith(fault)
