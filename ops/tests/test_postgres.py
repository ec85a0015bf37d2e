"""Connections that hang or are lost, timeouts, deadlocks and altered columns."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from django.db import NotSupportedError, OperationalError, connection, transaction
from pytest_django import Settings

from accounts.models import User
from conftest import API, PASSWORD, SignIn
from ops.database.postgres.base import DatabaseWrapper
from tests.articles.models import Article
from tests.rig.gunicorn import Server, database_url, serve
from tests.rig.machine import wait_until


@pytest.fixture
def impatient(django_db_setup: None, django_db_blocker: Any) -> Iterator[DatabaseWrapper]:
    """A connection as in the web process, with shorter timeouts."""
    with django_db_blocker.unblock():
        connection.ensure_connection()
        options = {"longest_wait": 0.3, "connect_timeout": 2}
        settings = {**connection.settings_dict, "OPTIONS": options}
        wrapper = DatabaseWrapper(settings, alias="default")
        wrapper.ensure_connection()
        yield wrapper
        wrapper.close()


@pytest.fixture
def web(impatient: DatabaseWrapper) -> Iterator[DatabaseWrapper]:
    """A connection with server-side binding, as in the web process."""
    options = impatient.settings_dict["OPTIONS"] | {"server_side_binding": True}
    wrapper = DatabaseWrapper({**impatient.settings_dict, "OPTIONS": options}, alias="default")
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


def test_a_response_timeout_closes_the_connection(impatient: DatabaseWrapper, hang: None) -> None:
    started = time.monotonic()

    with pytest.raises(OperationalError, match="timeout"), impatient.cursor() as cursor:
        cursor.execute("SELECT 1")

    assert 0.2 < time.monotonic() - started < 2
    assert impatient.connection.closed


def look_before_use(wrapper: DatabaseWrapper) -> None:
    wrapper.health_check_enabled = True
    wrapper.health_check_done = False


def test_the_health_check_of_an_open_connection_needs_no_query(
    impatient: DatabaseWrapper,
) -> None:
    first = impatient.connection
    look_before_use(impatient)
    impatient.force_debug_cursor = True

    with impatient.cursor() as cursor:
        cursor.execute("SELECT 1")

    assert impatient.connection is first
    assert [query["sql"] for query in impatient.queries_log] == ["SELECT 1"]


def test_the_health_check_replaces_a_closed_connection(
    impatient: DatabaseWrapper,
) -> None:
    process = psutil.Process(impatient.connection.info.backend_pid)
    process.terminate()
    psutil.wait_procs([process], timeout=5)
    look_before_use(impatient)

    with impatient.cursor() as cursor:
        cursor.execute("SELECT 1")

        assert cursor.fetchone() == (1,)


def test_a_connection_closed_by_the_client_is_not_usable(impatient: DatabaseWrapper) -> None:
    impatient.connection.close()

    assert not impatient.is_usable()


def test_a_readable_connection_is_tested_by_a_query(impatient: DatabaseWrapper) -> None:
    with impatient.cursor() as cursor:
        cursor.execute("LISTEN news")
    with contextlib.closing(connect(impatient)) as other:
        other.execute("NOTIFY news")
    first = impatient.connection
    look_before_use(impatient)

    with impatient.cursor() as cursor:
        cursor.execute("SELECT 1")

        assert cursor.fetchone() == (1,)
    assert impatient.connection is first


def connect(like: DatabaseWrapper) -> "psycopg.Connection[Any]":
    """Connect as another client of the same database."""
    return psycopg.connect(database_url(like.settings_dict["NAME"]), autocommit=True)


@pytest.fixture
def table(impatient: DatabaseWrapper) -> Iterator["psycopg.Connection[Any]"]:
    """Make a table of two rows and return another client's connection."""
    with contextlib.closing(connect(impatient)) as other:
        other.execute("DROP TABLE IF EXISTS box")
        other.execute("CREATE TABLE box (id integer PRIMARY KEY, name varchar(150))")
        other.execute("INSERT INTO box VALUES (1, 'one'), (2, 'two')")
        yield other
        other.execute("DROP TABLE box")


def run_too_long(wrapper: DatabaseWrapper, other: Any) -> None:
    with wrapper.cursor() as cursor:
        cursor.execute("SET statement_timeout = 50")
        cursor.execute("SELECT pg_sleep(1)")


def wait_for_a_lock(wrapper: DatabaseWrapper, other: Any) -> None:
    with other.transaction(), wrapper.cursor() as cursor:
        other.execute("LOCK TABLE box")
        cursor.execute("SET lock_timeout = 50")
        cursor.execute("SELECT * FROM box")


def deadlock(wrapper: DatabaseWrapper, other: Any) -> None:
    """Lock two rows in the opposite order; the first one to wait fails."""
    with other.transaction(), wrapper.cursor() as cursor:
        cursor.execute("SET deadlock_timeout = '50ms'")
        other.execute("SET LOCAL deadlock_timeout = '10s'")
        cursor.execute("BEGIN")
        cursor.execute("UPDATE box SET name = 'a' WHERE id = 1")
        other.execute("UPDATE box SET name = 'b' WHERE id = 2")
        second = threading.Thread(
            target=other.execute, args=("UPDATE box SET name = 'b' WHERE id = 1",)
        )
        second.start()
        try:
            time.sleep(0.1)
            cursor.execute("UPDATE box SET name = 'a' WHERE id = 2")
        finally:
            cursor.execute("ROLLBACK")
            second.join()


@pytest.mark.parametrize(
    ("fail", "error"),
    [
        (run_too_long, psycopg.errors.QueryCanceled),
        (wait_for_a_lock, psycopg.errors.LockNotAvailable),
        (deadlock, psycopg.errors.DeadlockDetected),
    ],
)
def test_an_error_of_a_healthy_server_keeps_the_connection(
    impatient: DatabaseWrapper, table: Any, fail: Callable[..., None], error: type[Exception]
) -> None:
    first = impatient.connection

    with pytest.raises(OperationalError) as caught:
        fail(impatient, table)

    assert isinstance(caught.value.__cause__, error)
    with impatient.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM box")
        assert cursor.fetchone() == (2,)
    assert impatient.connection is first


def test_a_connection_that_the_server_terminates_is_closed(
    impatient: DatabaseWrapper, table: Any
) -> None:
    process = impatient.connection.info.backend_pid
    table.execute("SELECT pg_terminate_backend(%s)", [process])

    for _ in range(2):  # The first error is the server's message.
        with pytest.raises(OperationalError), impatient.cursor() as cursor:
            cursor.execute("SELECT 1")

    assert impatient.connection.closed


def lost(wrapper: DatabaseWrapper, run: Callable[[], Any]) -> Any:
    """Run a statement on a process that hangs, and return the psycopg error."""
    backend = psutil.Process(wrapper.connection.info.backend_pid)
    backend.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(OperationalError) as caught:
            run()
    finally:
        backend.send_signal(signal.SIGCONT)
    return caught.value.__cause__


class TestLostResponse:
    @pytest.mark.parametrize(
        ("statement", "is_unknown"),
        [
            ("SELECT count(*) FROM box", False),
            ("\n select 1", False),
            ("INSERT INTO box VALUES (3, 'c')", True),
            ("WITH old AS (DELETE FROM box RETURNING id) SELECT * FROM old", True),
        ],
    )
    def test_only_a_read_changed_nothing(
        self, web: DatabaseWrapper, table: Any, statement: str, is_unknown: bool
    ) -> None:
        with web.cursor() as cursor:
            error = lost(web, lambda: cursor.execute(statement))

        assert isinstance(error, psycopg.errors.StatementCompletionUnknown) == is_unknown

    def test_many_statements_may_have_been_executed(self, web: DatabaseWrapper, table: Any) -> None:
        rows = [(3, "c"), (4, "d")]
        with web.cursor() as cursor:
            error = lost(web, lambda: cursor.executemany("INSERT INTO box VALUES (%s, %s)", rows))

        assert isinstance(error, psycopg.errors.StatementCompletionUnknown)

    def test_a_transaction_changes_nothing_before_its_commit(
        self, web: DatabaseWrapper, table: Any
    ) -> None:
        web.set_autocommit(False)
        with web.cursor() as cursor:
            cursor.execute("SELECT 1")
            error = lost(web, lambda: cursor.execute("DELETE FROM box"))

        assert not isinstance(error, psycopg.errors.StatementCompletionUnknown)

    def test_a_commit_may_have_been_executed(self, web: DatabaseWrapper, table: Any) -> None:
        web.set_autocommit(False)
        with web.cursor() as cursor:
            cursor.execute("DELETE FROM box WHERE id = 1")
            error = lost(web, web.commit)

        assert isinstance(error, psycopg.errors.StatementCompletionUnknown)

    def test_a_commit_that_the_server_rejects_changed_nothing(
        self, web: DatabaseWrapper, table: Any
    ) -> None:
        web.set_autocommit(False)
        with web.cursor() as cursor:
            cursor.execute("DELETE FROM box WHERE id = 1")
        table.execute("SELECT pg_terminate_backend(%s, 1000)", [web.connection.info.backend_pid])

        with pytest.raises(OperationalError) as caught:
            web.commit()

        assert isinstance(caught.value.__cause__, psycopg.errors.AdminShutdown)


@pytest.fixture
def slow_writes(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let each write of an article take longer than the client waits for a response."""
    options = connection.settings_dict["OPTIONS"] | {"server_side_binding": True}
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)
    connection.close()
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql"
            " AS 'BEGIN PERFORM pg_sleep(1); RETURN NULL; END'"
        )
        cursor.execute(
            "CREATE CONSTRAINT TRIGGER pause AFTER INSERT OR UPDATE ON articles_article"
            " INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pause()"
        )
    connection.connection.longest_wait = 0.3
    yield
    connection.close()
    with connection.cursor() as cursor:
        cursor.execute("DROP FUNCTION pause CASCADE")


@pytest.mark.parametrize("is_debugging", [False, True])
def test_a_write_that_may_have_been_committed_is_not_a_503(
    user: User,
    sign_in: SignIn,
    slow_writes: None,
    settings: Settings,
    *,
    is_debugging: bool,
) -> None:
    # Django's cursor of DEBUG raises another error while it handles this one.
    settings.DEBUG = is_debugging
    device = sign_in(user)

    response = device.post(f"{API}/articles", {"title": "Lamp", "amount": 1})

    assert (response.status_code, response.json()["code"]) == (504, "server_error")
    assert "Retry-After" not in response.headers
    connection.close()
    assert wait_until(Article.objects.exists, seconds=5) < 5


def test_an_update_that_may_have_been_committed_is_not_a_503(
    user: User, sign_in: SignIn, slow_writes: None
) -> None:
    device = sign_in(user)
    connection.connection.longest_wait = None
    article = Article.objects.create(owner=user, title="Lamp", amount=1)
    connection.connection.longest_wait = 0.3

    response = device.patch(f"{API}/articles/{article.pk}", {"amount": 2})

    assert response.status_code == 504
    connection.close()
    assert wait_until(Article.objects.filter(amount=2).exists, seconds=5) < 5


@pytest.mark.parametrize(
    ("method", "table"),
    [("GET", "articles_article"), ("POST", "accounts_session"), ("PATCH", "articles_article")],
)
def test_a_request_that_changed_nothing_is_a_503(
    user: User, sign_in: SignIn, slow_writes: None, method: str, table: str
) -> None:
    device = sign_in(user)
    path = f"{API}/articles/1" if method == "PATCH" else f"{API}/articles"
    with contextlib.closing(connect(connection)) as other, other.transaction():
        other.execute(f"LOCK TABLE {table}")
        response = device.generic(method, path, '{"amount": 1}', "application/json")

    assert (response.status_code, response.json()["code"]) == (503, "service_unavailable")
    assert int(response.headers["Retry-After"]) >= 1


@pytest.fixture
def hot(impatient: DatabaseWrapper) -> Iterator[DatabaseWrapper]:
    """A connection with prepared statements, as in the web process."""
    options = {"server_side_binding": True, "prepare_threshold": 5}
    wrapper = DatabaseWrapper({**impatient.settings_dict, "OPTIONS": options}, alias="default")
    wrapper.ensure_connection()
    yield wrapper
    wrapper.close()


def prepared(wrapper: DatabaseWrapper) -> int:
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%box%'")
        return int(cursor.fetchone()[0])


ALTERATIONS = ["name TYPE varchar(200)", "id TYPE bigint"]


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_a_statement_whose_column_was_altered_is_executed_again(
    hot: DatabaseWrapper, table: Any, alteration: str
) -> None:
    first = hot.connection
    with hot.cursor() as cursor:
        for n in range(20):
            if n == 10:
                assert prepared(hot) == 2
                table.execute(f"ALTER TABLE box ALTER COLUMN {alteration}")
            cursor.execute("SELECT id, name FROM box WHERE id = %s", [1])
            assert cursor.fetchall() == [(1, "one")]
            cursor.execute("UPDATE box SET name = name WHERE id = %s RETURNING id, name", [2])
            assert cursor.fetchall() == [(2, "two")]

    assert prepared(hot) == 2
    assert hot.connection is first


@pytest.mark.parametrize("alteration", ALTERATIONS)
@pytest.mark.parametrize("autocommit", [True, False])
def test_in_a_transaction_nothing_is_prepared(
    hot: DatabaseWrapper, table: Any, alteration: str, *, autocommit: bool
) -> None:
    """A failed statement cannot be repeated in a transaction, so nothing is prepared."""
    with hot.cursor() as cursor:
        for _ in range(10):
            cursor.execute("SELECT id, name FROM box WHERE id = %s", [1])
    table.execute(f"ALTER TABLE box ALTER COLUMN {alteration}")

    hot.set_autocommit(autocommit)
    with hot.cursor() as cursor:
        if autocommit:
            cursor.execute("BEGIN")
        for _ in range(10):
            cursor.execute("SELECT id, name FROM box WHERE id = %s", [1])
            assert cursor.fetchall() == [(1, "one")]
            cursor.execute("SELECT name FROM box WHERE id = %s FOR UPDATE", [1])
        cursor.execute("ROLLBACK")
        hot.set_autocommit(True)
    assert prepared(hot) == 0


def test_what_the_server_does_not_support_is_an_error(hot: DatabaseWrapper, table: Any) -> None:
    with pytest.raises(NotSupportedError, match="FOR UPDATE"), hot.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM box FOR UPDATE")

    assert prepared(hot) == 0


@contextlib.contextmanager
def altered() -> Iterator[None]:
    """Widen two columns, as a migration does, and narrow them again."""
    users, articles = User._meta.db_table, Article._meta.db_table

    def alter(names: str, amount: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {users} ALTER COLUMN names TYPE {names}")
            cursor.execute(f"ALTER TABLE {articles} ALTER COLUMN amount TYPE {amount}")

    alter("varchar(200)", "bigint")
    try:
        yield
    finally:
        alter("varchar(150)", "integer")


@pytest.mark.heavy
@pytest.mark.django_db(transaction=True)
class TestService:
    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[Server]:
        with serve(tmp_path / "log", WEB_THREADS="2", AUTH_RATE_LIMIT="1000/m") as server:
            yield server

    def test_a_migration_that_widens_columns_fails_no_request(self, server: Server) -> None:
        user = {"username": "alice", "email": "alice@example.com", "password": PASSWORD}
        assert server.post("/users", user)[0] == 201
        login = {"identity": "alice", "password": PASSWORD}
        lamp = {"title": "Lamp", "amount": 1}

        def use() -> list[int]:
            status, pair = server.post("/auth/login", login)
            bearer = {"Authorization": f"Bearer {pair['access_token']}"}
            created, article = server.post("/articles", lamp, **bearer)
            paths = ["/users/me", "/articles", f"/articles/{article['id']}", "/auth/sessions"]
            reads = [server.request("GET", f"{API}{p}", **bearer)[0].status for p in paths]
            again, _ = server.post("/auth/refresh", {"refresh_token": pair["refresh_token"]})
            return [status, created, *reads, again]

        expected = [200, 201, 200, 200, 200, 200, 200]
        assert [use() for _ in range(15)] == [expected] * 15
        with altered():
            assert [use() for _ in range(15)] == [expected] * 15
        assert [use() for _ in range(15)] == [expected] * 15

    def test_a_lock_that_takes_too_long_is_a_503_with_its_own_error_in_the_log(
        self, server: Server, tmp_path: Path
    ) -> None:
        login = {"identity": "nobody", "password": "wrong"}

        def processes() -> set[int]:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                    " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
                )
                return {pid for (pid,) in cursor.fetchall()}

        for _ in range(4):
            assert server.post("/auth/login", login)[0] == 401
        before = processes()
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {User._meta.db_table}")
            status, problem = server.post("/auth/login", login)

        assert (status, problem["code"]) == (503, "service_unavailable")
        log = (tmp_path / "log").read_text()
        assert "LockNotAvailable" in log
        assert "the connection is closed" not in log
        assert server.post("/auth/login", login)[0] == 401
        assert before <= processes()  # Another thread may have opened one more.
