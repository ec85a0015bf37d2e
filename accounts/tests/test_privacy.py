"""docs/privacy.md names every table with data of persons, and the periods of the settings."""

import json
import re

import pytest
from django.apps import apps
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.test import Client
from rest_framework.test import APIClient

from accounts.models import Event, OutgoingEmail, Session, Ticket, User
from accounts.models.tickets import KEPT_AFTER_END, lifetime
from conftest import API, SignIn
from tests.articles.models import Article
from tests.rig.machine import ROOT

PAGE = (ROOT / "docs/privacy.md").read_text()
EXAMPLES = {"articles", "guest"}  # apps of the tests


def tables_of_persons() -> set[str]:
    """Return the tables that refer to a user, or name one or an address of one."""
    named = {"email", "address", "ip_address", "username", "session_data"}
    return {
        model._meta.db_table
        for model in apps.get_models(include_auto_created=True)
        if model._meta.app_label not in EXAMPLES and not model._meta.proxy
        for field in model._meta.fields
        if field.related_model is User or field.name in named
    }


def test_every_table_with_data_of_persons_is_listed() -> None:
    listed = set(re.findall(r"`([a-z]+_[a-z_]+)`", PAGE))

    assert {"accounts_user", "accounts_event", "django_session"} <= tables_of_persons()
    assert tables_of_persons() <= listed


def test_the_periods_are_those_of_the_settings() -> None:
    undo, longest = settings.UNDO_LIFETIME.days, lifetime(Ticket.Purpose.INVITE).days
    day = KEPT_AFTER_END.days
    claims = [
        f"{settings.SESSION_RETENTION.days} days after the end (`SESSION_RETENTION_DAYS`)",
        f"{settings.EVENT_RETENTION.days} days (`EVENT_RETENTION_DAYS`)",
        f"{settings.EMAIL_RETENTION.days} days (`EMAIL_RETENTION_DAYS`)",
        f"{day} day after the end, at most {longest} days and {day} day (or `UNDO_DAYS` and",
        f"| {settings.SESSION_COOKIE_AGE // 3600} hours |",
        f"the last {settings.FRESH_LIFETIME.seconds // 60} minutes (`FRESH_MINUTES`)",
    ]

    assert undo <= longest
    assert max(lifetime(purpose).days for purpose in Ticket.Purpose) == longest
    assert [claim for claim in claims if claim not in PAGE] == []


def test_each_part_of_an_export_is_named(user: User, sign_in: SignIn) -> None:
    response = sign_in(user).get(f"{API}/users/me/export")

    names = set(json.loads(response.getvalue()))
    assert {"account", "sessions", "events", "emails"} <= names
    assert names - EXAMPLES <= set(re.findall(r"\| `(\w+)`[^|`]*\|\n", PAGE))


@pytest.fixture
def traces(user: User, sign_in: SignIn, console: Client) -> APIClient:
    """A device of a user who has left a row in every table."""
    device = sign_in(user)
    OutgoingEmail.objects.enqueue(OutgoingEmail.Kind.VERIFY_EMAIL, user)
    Article.objects.create(owner=user, title="Lamp", amount=1)
    form = {"username": "alice", "email": user.email, "names": "Alice", "is_active": "on"}
    assert console.post(f"/admin/accounts/user/{user.pk}/change/", form).status_code == 302
    return device


@pytest.mark.parametrize("by", ["user", "staff"])
def test_a_deletion_leaves_events_and_emails(
    user: User, traces: APIClient, console: Client, by: str
) -> None:
    if by == "user":
        assert traces.delete(f"{API}/users/{user.pk}").status_code == 204
    else:
        console.post(f"/admin/accounts/user/{user.pk}/delete/", {"post": "yes"})

    assert not User.objects.filter(username="alice").exists()
    left = [Session, Ticket, Article]
    assert [model.__name__ for model in left if model._default_manager.exists()] == []
    assert set(OutgoingEmail.objects.values_list("address", flat=True)) == {user.email}
    assert not OutgoingEmail.objects.filter(user__isnull=False).exists()
    assert Event.objects.filter(username="alice", kind="account_deleted").count() == 1
    assert LogEntry.objects.filter(object_repr="alice").exists()
