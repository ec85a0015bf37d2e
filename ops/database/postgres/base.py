"""
Django's PostgreSQL backend for processes with persistent connections.

It limits the wait for each response to `OPTIONS["longest_wait"]` seconds. The server's timeouts end
slow statements, but not if the server itself hangs. It also repeats prepared statements that fail
because a migration altered a column. It distinguishes a lost response to a statement that may have
been committed, which must not be repeated, from a failure that changed nothing.
"""

import contextlib
import re
import select
from collections.abc import Iterator
from datetime import UTC
from types import ModuleType
from typing import Any, Self

import psycopg
from django.db.backends.postgresql import base
from psycopg.abc import PQGen
from psycopg.postgres import types
from psycopg.pq import Format, TransactionStatus

# psycopg's loader in C. Django replaces it with one in Python, to convert time zones.
TIMES = types["timestamptz"].oid
# Statements that change nothing. Functions of a SELECT are expected to change nothing either.
READ = re.compile(r"\s*(SELECT|SHOW|SET)\b", re.IGNORECASE)
TIME_LOADER = psycopg.adapters.get_loader(TIMES, Format.TEXT)


@contextlib.contextmanager
def committing() -> Iterator[None]:
    """Raise StatementCompletionUnknown if the response to a statement that commits is lost."""
    try:
        yield
    except psycopg.OperationalError as error:
        if error.sqlstate is None:
            raise psycopg.errors.StatementCompletionUnknown(str(error)) from error
        raise


class Connection(psycopg.Connection[Any]):
    longest_wait: float | None = None

    def commit(self) -> None:
        with committing():
            super().commit()

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        """
        Wait for a response; psycopg calls this for every response.

        An error with an SQLSTATE is a response, such as a statement timeout or a deadlock. An error
        without one is a timeout of this wait or a lost connection.
        """
        try:
            return super().wait(gen, interval, timeout or self.longest_wait)
        except psycopg.OperationalError as error:
            if error.sqlstate is None:
                self.close()
            raise


class Cursor(base.ServerBindingCursor, psycopg.Cursor[Any]):
    def execute(
        self,
        query: Any,
        params: Any = None,
        *,
        prepare: bool | None = None,
        binary: bool | None = None,
    ) -> Self:
        """
        Execute a statement; prepare it only outside of a transaction.

        After ALTER TABLE, a prepared statement fails if its columns have changed ("cached plan must
        not change result type"). It was not executed, so it is repeated. A failed transaction
        would not allow that.
        """
        connection = self.connection
        if not (
            connection.autocommit and connection.pgconn.transaction_status == TransactionStatus.IDLE
        ):
            return super().execute(query, params, prepare=False, binary=binary)
        is_read = isinstance(query, str) and READ.match(query)
        with contextlib.nullcontext() if is_read else committing():
            return self.execute_prepared(query, params, prepare=prepare, binary=binary)

    def executemany(self, *args: Any, **options: Any) -> None:
        with committing():
            super().executemany(*args, **options)

    def execute_prepared(
        self, query: Any, params: Any, *, prepare: bool | None, binary: bool | None
    ) -> Self:
        try:
            return super().execute(query, params, prepare=prepare, binary=binary)
        except psycopg.errors.FeatureNotSupported:
            self.connection.execute("DEALLOCATE ALL")
            return super().execute(query, params, prepare=False, binary=binary)


class Driver(ModuleType):
    """The module psycopg as Django uses it, with `Connection` as its connection class."""

    def connect(self, **parameters: Any) -> Connection:
        return Connection.connect(**parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(psycopg, name)


class DatabaseWrapper(base.DatabaseWrapper):
    Database = Driver("psycopg")

    def get_new_connection(self, conn_params: dict[str, Any]) -> Connection:
        longest_wait = conn_params.pop("longest_wait", None)
        connection: Connection = super().get_new_connection(conn_params)
        connection.longest_wait = longest_wait
        return connection

    def get_connection_params(self) -> dict[str, Any]:
        params: dict[str, Any] = super().get_connection_params()
        if params["cursor_factory"] is base.ServerBindingCursor:
            params["cursor_factory"] = Cursor
        return params

    def is_usable(self) -> bool:
        """
        Return whether the connection is open, without a query in the usual case.

        A connection is readable if the server closed it or sent a notification. Only then a query
        tests it, as Django always does. `wait` handles a connection that hangs.
        """
        if self.connection.closed:
            return False
        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLIN)
        return super().is_usable() if poll.poll(0) else True

    def create_cursor(self, name: str | None = None) -> Any:
        cursor = super().create_cursor(name)
        if self.timezone is UTC:
            cursor.adapters.register_loader(TIMES, TIME_LOADER)
        return cursor
