"""Any number of rows that one user piled up is ended or deleted, in bounded statements."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client
from pytest_django import Settings

from accounts.models import Event, Session, User
from accounts.models.batches import BATCH, key_batches
from conftest import API, PASSWORD, SignIn
from tests.articles.models import Article

ROWS = 2 * BATCH + 500
NEW = "a rainy night in June"
SESSIONS = """
    INSERT INTO accounts_session (id, user_id, token_id, user_agent, device, ip_address,
                                  created_at, last_used_at, expires_at, end_reason)
    SELECT gen_random_uuid(), %s, gen_random_uuid(), '', 'curl', '192.0.2.1',
           now(), now() - n * interval '1 second', now() + interval '7 days', ''
      FROM generate_series(1, %s) n
"""
ARTICLES = """
    INSERT INTO articles_article (owner_id, title, description, amount, created_at, updated_at)
    SELECT %s, 'Lamp ' || n, '', 1, now(), now() FROM generate_series(1, %s) n
"""


def add(statement: str, user: User, rows: int = ROWS) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, [user.pk, rows])


@contextmanager
def bounded_writes() -> Iterator[None]:
    """Fail where a statement writes more than a batch of rows."""

    def check(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        if sql.split()[0] in {"INSERT", "UPDATE", "DELETE", "WITH"}:
            assert context["cursor"].rowcount <= BATCH, sql
        return result

    with connection.execute_wrapper(check):
        yield


@pytest.fixture
def many(user: User, settings: Settings) -> User:
    """A user with many sessions, of before there was a limit."""
    add(SESSIONS, user)
    settings.SESSION_LIMIT = 0
    return user


def log_out_everywhere(user: User, device: Any) -> int:
    return int(device.post(f"{API}/auth/logout-all").json()["revoked"])


def change_password(user: User, device: Any) -> int:
    body = {"current_password": PASSWORD, "new_password": NEW}
    assert device.post(f"{API}/auth/password", body).status_code == 204
    assert device.get(f"{API}/users/me").status_code == 200
    return ROWS + 1


def deactivate(user: User, device: Any) -> int:
    user.is_active = False
    user.save()
    return ROWS + 1


def end_all(user: User, device: Any) -> int:
    call_command("endsessions", "--all")
    return ROWS + 1


@pytest.mark.parametrize("end", [log_out_everywhere, change_password, deactivate, end_all])
def test_any_number_of_sessions_ends(
    many: User, sign_in: SignIn, end: Callable[[User, Any], int]
) -> None:
    device = sign_in(many)

    with bounded_writes():
        assert end(many, device) == ROWS + 1

    left = 1 if end is change_password else 0
    assert many.sessions.active().count() == left
    ended = Event.objects.filter(kind__in=["signed_out", "session_ended"], user_id=many.pk)
    assert ended.count() == ROWS + 1 - left


def test_all_sessions_of_any_number_of_users_end(
    make_user: Callable[..., User], sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accounts.models.managers.key_batches", in_pairs)
    devices = [sign_in(make_user(f"user{n}"), REMOTE_ADDR=f"192.0.2.{n}") for n in range(5)]

    assert User.objects.end_sessions(Session.Reason.STAFF) == 5

    assert {device.get(f"{API}/users/me").status_code for device in devices} == {401}


def in_pairs(rows: Any) -> Iterator[list[Any]]:
    return key_batches(rows, size=2)


class TestSessionLimit:
    def test_a_login_beyond_it_ends_the_least_recently_used(
        self, user: User, sign_in: SignIn, settings: Settings
    ) -> None:
        settings.SESSION_LIMIT = 2
        first, second = sign_in(user), sign_in(user)
        first.post(f"{API}/auth/refresh", {"refresh_token": first.tokens["refresh_token"]})

        third = sign_in(user)

        statuses = [d.get(f"{API}/users/me").status_code for d in (first, second, third)]
        assert statuses == [200, 401, 200]
        ended = user.sessions.get(ended_at__isnull=False)
        assert ended.end_reason == "session_limit"
        event = Event.objects.get(kind="session_ended")
        assert (event.detail, event.session_id) == ("session_limit", ended.pk)

    def test_sessions_that_ended_do_not_count(
        self, user: User, sign_in: SignIn, settings: Settings
    ) -> None:
        settings.SESSION_LIMIT = 2
        device, other = sign_in(user), sign_in(user)
        other.post(f"{API}/auth/logout")
        sign_in(user)

        assert device.get(f"{API}/users/me").status_code == 200

    def test_another_users_do_not_count(
        self, user: User, stranger: User, sign_in: SignIn, settings: Settings
    ) -> None:
        settings.SESSION_LIMIT = 1
        device = sign_in(user)
        sign_in(stranger)

        assert device.get(f"{API}/users/me").status_code == 200

    def test_any_surplus_ends_with_one_login(
        self, many: User, sign_in: SignIn, settings: Settings
    ) -> None:
        settings.SESSION_LIMIT = 100

        with bounded_writes():
            device = sign_in(many)

        assert many.sessions.active().count() == 100
        assert device.get(f"{API}/users/me").status_code == 200

    def test_zero_is_no_limit(self, many: User, sign_in: SignIn) -> None:
        sign_in(many)

        assert many.sessions.active().count() == ROWS + 1

    def test_it_costs_a_login_no_statement(
        self, user: User, sign_in: SignIn, settings: Settings, django_assert_num_queries: Any
    ) -> None:
        with django_assert_num_queries(8):  # two of them a savepoint, as the test has a transaction
            sign_in(user)


class TestDeletion:
    def test_a_user_with_any_number_of_rows_is_deleted(self, many: User, sign_in: SignIn) -> None:
        device = sign_in(many)
        add(ARTICLES, many)

        with bounded_writes():
            assert device.delete(f"{API}/users/{many.pk}").status_code == 204

        assert not Article.objects.exists()
        assert not Session.objects.exists()
        assert not User.objects.exists()

    def test_it_works_in_the_console(self, many: User, make_user: Callable[..., User]) -> None:
        browser = Client()
        browser.force_login(make_user("boss", is_staff=True, is_superuser=True))
        add(ARTICLES, many)

        with bounded_writes():
            url = f"/admin/accounts/user/{many.pk}/delete/"
            assert browser.post(url, {"post": "yes"}).status_code == 302

        assert not User.objects.filter(pk=many.pk).exists()
