"""
Django's PostgreSQL backend for a web process that keeps its connections.

It ends the wait for a server that hangs: the server's own timeouts end slow statements, but not
where the server itself has stopped. `OPTIONS["longest_wait"]` is in seconds, for each response.
And a migration that alters a column makes no prepared statement fail.
"""

import select
from datetime import UTC
from types import ModuleType
from typing import Any, Self

import psycopg
from django.db.backends.postgresql import base
from psycopg.abc import PQGen
from psycopg.postgres import types
from psycopg.pq import Format, TransactionStatus

# psycopg's own, which is C; Django puts one in Python in its place, for time zones that differ.
TIMES = types["timestamptz"].oid
TIME_LOADER = psycopg.adapters.get_loader(TIMES, Format.TEXT)


class Connection(psycopg.Connection[Any]):
    longest_wait: float | None = None

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        """
        Wait for a response; psycopg waits here for all of them.

        An error with an SQLSTATE is a response: a statement that took too long, a lock, a deadlock.
        One without is a response that did not come in time, or a connection that was lost.
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
        Execute a statement, prepared only outside of a transaction.

        After ALTER TABLE a prepared statement whose columns changed fails ("cached plan must not
        change result type"). Nothing was executed, so it is executed again, which a transaction
        that has failed would not allow.
        """
        connection = self.connection
        if not (
            connection.autocommit and connection.pgconn.transaction_status == TransactionStatus.IDLE
        ):
            return super().execute(query, params, prepare=False, binary=binary)
        try:
            return super().execute(query, params, prepare=prepare, binary=binary)
        except psycopg.errors.FeatureNotSupported:
            connection.execute("DEALLOCATE ALL")
            return super().execute(query, params, prepare=False, binary=binary)


class Driver(ModuleType):
    """The module psycopg, as Django refers to it, with connections of our own class."""

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
        Look whether the server has closed the connection, which costs nothing where it hasn't.

        A connection that the server closed can be read from, and so can one with a notification;
        each of these is tested by a query, as Django tests all. One that hangs ends in `wait`.
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
