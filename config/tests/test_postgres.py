"""A database that stops answering, while the web process waits for it."""

import contextlib
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import psycopg
import pytest
from django.db import OperationalError, connection

from config.postgres.base import DatabaseWrapper
from config.tests.serving import database_url


@pytest.fixture
def impatient(django_db_setup: None, django_db_blocker: Any) -> Iterator[DatabaseWrapper]:
    """A connection as the web process has it, but more impatient still."""
    with django_db_blocker.unblock():
        connection.ensure_connection()
        options = {"longest_wait": 0.3, "connect_timeout": 2}
        settings = {**connection.settings_dict, "OPTIONS": options}
        wrapper = DatabaseWrapper(settings, alias="default")
        wrapper.ensure_connection()
        yield wrapper
        wrapper.close()


@pytest.fixture
def hang(impatient: DatabaseWrapper) -> Iterator[None]:
    """Stop the process that serves this connection, and no other."""
    backend = psutil.Process(impatient.connection.info.backend_pid)
    backend.send_signal(signal.SIGSTOP)
    yield
    backend.send_signal(signal.SIGCONT)


def test_it_works_like_any_other(impatient: DatabaseWrapper) -> None:
    with impatient.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM generate_series(1, 100000)")
        assert cursor.fetchone() == (100000,)


@pytest.mark.parametrize(("zone", "offset"), [(None, 0), ("Asia/Tokyo", 9)])
def test_times_are_in_the_connections_zone(
    impatient: DatabaseWrapper, zone: str | None, offset: int
) -> None:
    wrapper = DatabaseWrapper({**impatient.settings_dict, "TIME_ZONE": zone}, alias="default")

    with contextlib.closing(wrapper), wrapper.cursor() as cursor:
        cursor.execute("SELECT '2026-01-01T00:00Z'::timestamptz")
        [moment] = cursor.fetchone()

    assert moment == datetime(2026, 1, 1, tzinfo=UTC)
    assert moment.utcoffset() == timedelta(hours=offset)


def test_an_answer_that_does_not_come_closes_the_connection(
    impatient: DatabaseWrapper, hang: None
) -> None:
    started = time.monotonic()

    with pytest.raises(OperationalError, match="timeout"), impatient.cursor() as cursor:
        cursor.execute("SELECT 1")

    assert 0.2 < time.monotonic() - started < 2
    assert impatient.connection.closed


def look_before_use(wrapper: DatabaseWrapper) -> None:
    wrapper.health_check_enabled = True
    wrapper.health_check_done = False


def test_the_look_before_use_asks_nothing_of_a_connection_that_is_well(
    impatient: DatabaseWrapper,
) -> None:
    first = impatient.connection
    look_before_use(impatient)
    impatient.force_debug_cursor = True

    with impatient.cursor() as cursor:
        cursor.execute("SELECT 1")

    assert impatient.connection is first
    assert [query["sql"] for query in impatient.queries_log] == ["SELECT 1"]


def test_the_look_before_use_finds_one_that_was_closed_and_opens_another(
    impatient: DatabaseWrapper,
) -> None:
    process = psutil.Process(impatient.connection.info.backend_pid)
    process.terminate()
    psutil.wait_procs([process], timeout=5)
    look_before_use(impatient)

    with impatient.cursor() as cursor:
        cursor.execute("SELECT 1")

        assert cursor.fetchone() == (1,)


def test_one_that_was_closed_here_is_not_usable(impatient: DatabaseWrapper) -> None:
    impatient.connection.close()

    assert not impatient.is_usable()


def test_a_connection_on_which_something_was_said_is_asked(impatient: DatabaseWrapper) -> None:
    with impatient.cursor() as cursor:
        cursor.execute("LISTEN news")
    psycopg.connect(database_url(), autocommit=True).execute("NOTIFY news").connection.close()
    first = impatient.connection
    look_before_use(impatient)

    with impatient.cursor() as cursor:
        cursor.execute("SELECT 1")

        assert cursor.fetchone() == (1,)
    assert impatient.connection is first
