"""The console's first page: its numbers and its queries."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import Event, OutgoingEmail, User
from conftest import SignIn
from console.dashboard import dashboard


def happened(kind: str, ago: timedelta, **fields: object) -> None:
    Event.objects.create(kind=kind, created_at=timezone.now() - ago, **fields)


@pytest.fixture
def browser(make_user: Callable[..., User]) -> Client:
    browser = Client()
    browser.force_login(make_user("boss", is_staff=True, is_superuser=True))
    return browser


def numbers() -> dict[str, int]:
    cache.clear()
    return {number.label: number.value for number in dashboard()["numbers"]}


def test_numbers_after_known_events(browser: Client, user: User, sign_in: SignIn) -> None:
    sign_in(user)
    sign_in(user)
    user.sessions.filter(pk=user.sessions.first().pk).end("logout")
    for n in range(3):
        happened("refused", timedelta(hours=n), username="alice", ip_address="192.0.2.1")
    happened("refused", timedelta(hours=30), username="alice")
    happened("replayed", timedelta(minutes=1))
    happened("limit_reached", timedelta(minutes=1))

    assert numbers() == {
        "Active sessions": 1,
        "Users signed in": 1,
        "With a second factor": 0,
        "Sign-ins": 2,
        "Rejected": 3,
        "Replays": 1,
        "Limits reached": 1,
        "New accounts": 2,
    }
    shown = dashboard()
    assert [plot.highest for plot in shown["plots"]] == [pytest.approx(4, abs=2)] * 2
    (_, users), (_, addresses) = shown["most_rejected"]
    assert (users[0][:2], addresses[0][:2]) == (("alice", 3), ("192.0.2.1", 3))


def test_each_number_leads_to_its_list(browser: Client, user: User, sign_in: SignIn) -> None:
    sign_in(user)
    happened("refused", timedelta(hours=1), username="alice", ip_address="192.0.2.1")
    happened("refused", timedelta(hours=30), username="alice")
    cache.clear()
    shown = dashboard()

    page = browser.get("/admin/").content.decode()
    for number in shown["numbers"]:
        assert number.url.replace("&", "&amp;") in page
        if "session" in number.url:
            continue
        listed = browser.get(number.url).content.decode()
        rows = "user" if "accounts/user" in number.url else "event"
        assert f"{number.value} {rows}" in listed
    for _, rows in shown["most_rejected"]:
        assert "1 event" in browser.get(rows[0][2]).content.decode()


def test_an_empty_dashboard(browser: Client) -> None:
    Event.objects.all().delete()
    cache.clear()

    page = browser.get("/admin/").content.decode()

    assert "No sign-ins and no rejections." in page
    assert "None in the last 24 hours" in page


def test_plots_cover_each_hour_and_day(db: None) -> None:
    happened("signed_in", timedelta(days=3))
    happened("refused", timedelta(days=3))
    cache.clear()

    hours, days = dashboard()["plots"]

    assert (len(hours.bars), len(days.bars)) == (24, 30)
    (full,) = [bar for bar in days.bars if bar.signed_in_height]
    assert "1 sign-ins, 1 rejected" in full.title
    assert full.signed_in_height == full.rejected_height == 80
    assert full.y == 0


def test_past_days_are_counted_once(db: None) -> None:
    cache.clear()
    dashboard()
    cache.delete("dashboard")

    with CaptureQueriesContext(connection) as queries:
        dashboard()

    today = timezone.now().strftime("%Y-%m-%d")
    (daily,) = [q["sql"] for q in queries if "DATE_TRUNC('day'" in q["sql"]]
    assert f"'{today}T00:00:00" in daily or f"'{today} 00:00:00" in daily


def test_the_dashboard_is_cached(db: None) -> None:
    cache.clear()
    dashboard()
    with CaptureQueriesContext(connection) as queries:
        dashboard()
    assert not queries.captured_queries


def test_emails_due_and_the_age_of_the_oldest(
    browser: Client, user: User, make_user: Callable[..., User]
) -> None:
    assert b"Emails due" in browser.get("/admin/").content
    now = timezone.now()
    # Minutes since it was written, and since it became due: each attempt moves the latter.
    for age, due, sent_at in ((61, 2, None), (1, 1, None), (90, 90, now), (90, -5, None)):
        OutgoingEmail.objects.create(
            kind="new_device",
            user=user,
            address=user.email,
            created_at=now - timedelta(minutes=age),
            due_at=now - timedelta(minutes=due),
            sent_at=sent_at,
        )
    cache.clear()

    shown = {number.label: number for number in dashboard(with_emails=True)["numbers"]}
    assert shown["Emails due"].value == 2
    oldest = shown["Oldest due (minutes)"]
    assert (oldest.value, oldest.style) == (61, "bad")
    assert "2 emails" in browser.get(oldest.url).content.decode()

    support = make_user("susan", is_staff=True)
    names = ["view_event", "view_session"]
    support.user_permissions.set(Permission.objects.filter(codename__in=names))
    browser.force_login(support)
    page = browser.get("/admin/").content.decode()
    assert "Active sessions" in page
    assert "Emails due" not in page
