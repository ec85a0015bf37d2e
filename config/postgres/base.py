"""
Django's PostgreSQL backend, with an end to waiting for a server that hangs.

The server's own timeouts end what is slow; they are no help where the server itself has stopped.
`OPTIONS["longest_wait"]` is in seconds, and for each answer.
"""

import functools
import select
from collections.abc import Callable
from datetime import UTC
from typing import Any

import psycopg
from django.db.backends.postgresql import base
from psycopg.postgres import types
from psycopg.pq import Format

# psycopg's own, which is C; Django puts one in Python in its place, for time zones that differ.
TIMES = types["timestamptz"].oid
TIME_LOADER = psycopg.adapters.get_loader(TIMES, Format.TEXT)


class DatabaseWrapper(base.DatabaseWrapper):
    def is_usable(self) -> bool:
        """
        Look whether the server has hung up, which costs nothing where it hasn't.

        A connection that is closed can be read from, and so can one on which something was said;
        either is asked, as Django asks each. One that hangs is met by the wait for its answer.
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

    def get_new_connection(self, conn_params: dict[str, Any]) -> "psycopg.Connection[Any]":
        longest_wait = conn_params.pop("longest_wait", None)
        connection: psycopg.Connection[Any] = super().get_new_connection(conn_params)
        if longest_wait is not None:
            # Everything that psycopg asks of the server passes through this method.
            wait = functools.partial(wait_or_close, connection, connection.wait, longest_wait)
            connection.wait = wait  # type: ignore[method-assign]
        return connection


def wait_or_close(
    connection: "psycopg.Connection[Any]",
    wait: Callable[..., Any],
    longest_wait: float,
    generator: Any,
    interval: float = 0.1,
    timeout: float | None = None,
) -> Any:
    """Wait for an answer; one that does not come in time closes the connection."""
    try:
        return wait(generator, interval, timeout or longest_wait)
    except psycopg.OperationalError:
        connection.close()
        raise
