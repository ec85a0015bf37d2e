from collections.abc import Callable
from datetime import timedelta
from io import StringIO

import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session as ConsoleSession
from django.core.management import CommandError, call_command
from django.db import IntegrityError
from django.db.models.functions import Now
from django.test import Client
from django.utils import timezone

from accounts.models import ApiToken, Event, User
from conftest import API, PASSWORD, SignIn
from tests.rig.api_tokens import expire, issue_token


def run(*command: str, **options: object) -> str:
    output = StringIO()
    call_command(*command, stdout=output, **options)
    return output.getvalue()


class TestPruneSessions:
    def test_it_reports_what_it_would_delete_and_deletes_it(
        self, user: User, stranger: User, make_user: Callable[..., User], sign_in: SignIn
    ) -> None:
        browser = Client()
        browser.force_login(make_user("boss", is_staff=True))
        SessionStore().save(must_create=True)
        expired = ConsoleSession.objects.exclude(pk=browser.session.session_key)
        expired.update(expire_date=Now() - timedelta(seconds=1))
        for _ in range(3):
            sign_in(user)
        user.sessions.update(expires_at=Now() - timedelta(days=31))
        live = sign_in(user)
        pruned, kept, active = (issue_token(stranger) for _ in range(3))
        expire(pruned, kept)
        ApiToken.objects.filter(pk=pruned.pk).update(
            created_at=Now() - timedelta(days=62), expires_at=Now() - timedelta(days=31)
        )

        Event.objects.create(kind=Event.Kind.REFUSED, created_at=timezone.now() - timedelta(91))
        Event.objects.create(kind=Event.Kind.REFUSED, created_at=timezone.now() - timedelta(89))

        assert run("prunesessions", "--dry-run") == (
            "3 session(s) would be deleted.\n1 API token(s) would be deleted.\n"
            "1 event(s) would be deleted.\n"
            "0 email(s) would be deleted.\n0 ticket(s) would be deleted.\n"
            "0 unconfirmed authenticator app(s) would be deleted.\n"
            "1 console session(s) would be deleted.\n"
        )
        assert user.sessions.count() == 4
        assert run("prunesessions", "--batch", "2") == (
            "3 session(s) deleted.\n1 API token(s) deleted.\n"
            "1 event(s) deleted.\n0 email(s) deleted.\n"
            "0 ticket(s) deleted.\n0 unconfirmed authenticator app(s) deleted.\n"
            "1 console session(s) deleted.\n"
        )
        assert set(stranger.api_tokens.all()) == {kept, active}
        assert browser.get("/admin/").status_code == 200
        assert live.get(f"{API}/users/me").status_code == 200
        assert run("prunesessions") == (
            "0 session(s) deleted.\n0 API token(s) deleted.\n"
            "0 event(s) deleted.\n0 email(s) deleted.\n"
            "0 ticket(s) deleted.\n0 unconfirmed authenticator app(s) deleted.\n"
            "0 console session(s) deleted.\n"
        )


class TestEndSessions:
    def test_of_one_user(self, user: User, stranger: User, sign_in: SignIn) -> None:
        device, other = sign_in(user), sign_in(stranger)

        assert run("endsessions", "ALICE@example.com") == "1 session(s) ended.\n"

        assert device.get(f"{API}/users/me").status_code == 401
        assert other.get(f"{API}/users/me").status_code == 200
        assert user.sessions.get().end_reason == "staff"

    def test_of_all(self, user: User, stranger: User, sign_in: SignIn) -> None:
        sign_in(user)
        sign_in(stranger)

        assert run("endsessions", "--all") == "2 session(s) ended.\n"

    def test_of_nobody(self, db: None) -> None:
        with pytest.raises(CommandError, match="nobody"):
            run("endsessions", "nobody")
        with pytest.raises(CommandError):
            run("endsessions")


class TestCreateSuperuser:
    def test_it_keeps_the_rules(self, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", PASSWORD)
        options = {"interactive": False}

        run("createsuperuser", username="Boss", email="boss@example.com", **options)
        for name, address in (("ALICE", "a@example.com"), ("x", "x@example.com"), ("bob", "x")):
            with pytest.raises(CommandError):
                run("createsuperuser", username=name, email=address, **options)

        boss = User.objects.get(username="Boss")
        assert (boss.is_staff, boss.is_superuser) == (True, True)
        assert User.objects.count() == 2


def test_the_database_rejects_a_taken_name(user: User) -> None:
    with pytest.raises(IntegrityError, match="accounts_user_username_unique"):
        User.objects.create_user("Alice", "other@example.com", PASSWORD)
