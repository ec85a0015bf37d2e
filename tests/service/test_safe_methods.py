"""A GET changes nothing, on any route: scanners of emails open links, and browsers load ahead."""

import re
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import Group
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import get_resolver

from accounts.models import OutgoingEmail, Session, Ticket, User
from conftest import SignIn
from tests.articles.models import Article
from tests.service.test_project import routes

WRITE = re.compile(r"\b(INSERT INTO|UPDATE \"|UPDATE accounts_|DELETE FROM|FOR UPDATE)")


@pytest.fixture
def boss(make_user: Any, sign_in: SignIn) -> Client:
    """A superuser's browser, with an access token and a console session, and rows to look at."""
    user: User = make_user("boss", is_staff=True, is_superuser=True)
    tokens = sign_in(user).tokens
    OutgoingEmail.objects.enqueue(OutgoingEmail.Kind.RESET_PASSWORD, user)
    Article.objects.create(owner=user, title="Lamp", amount=1)
    Group.objects.get_or_create(name="Readers")
    client = Client(HTTP_AUTHORIZATION=f"Bearer {tokens['access_token']}")
    client.force_login(user)
    return client


def url_of(pattern: str) -> str:
    """Return the URL of a route; it names an existing row of the route's model."""
    models = {f"{m._meta.app_label}/{m._meta.model_name}/": m for m in apps.get_models()}
    default: Any = {"auth/sessions": Session, "articles": Article}
    for part, model in {**models, **default}.items():
        if part in pattern and model.objects.exists():
            return f"/{re.sub('<[^>]+>', str(model.objects.first().pk), pattern)}"
    return f"/{re.sub('<[^>]+>', str(User.objects.get().pk), pattern)}"


@pytest.mark.parametrize("method", ["get", "head"])
def test_no_route_changes_the_database(boss: Client, method: str) -> None:
    token, seen = Ticket.objects.get().token, []
    for pattern, _ in routes(get_resolver().url_patterns):
        url = url_of(pattern)
        with CaptureQueriesContext(connection) as captured:
            query = {} if url.startswith("/admin/") else {"token": token}
            response = getattr(boss, method)(url, query)
            assert response.getvalue() is not None  # An export reads its rows now.
        seen.append((url, response.status_code))
        writes = [q["sql"] for q in captured.captured_queries if WRITE.search(q["sql"])]
        if (method, url) == ("get", "/api/v1/users/me/export"):
            [event] = writes  # It needs a fresh access token, which no scanner or browser adds.
            assert event.startswith('INSERT INTO "accounts_event"')
        else:
            assert writes == [], url
    assert [status for _, status in seen].count(200) > 50
