"""
PostgreSQL 18 from a wheel, in `.data/postgres`, for development and tests.

The server starts with the first process that connects and stops with the last one. Each process
holds a shared lock, which the kernel releases in any case, so a crash needs no cleanup. A process
that can get the exclusive lock at its exit is the last one and stops the server.
"""

import atexit
import contextlib
import fcntl
import functools
import os
from pathlib import Path
from typing import IO

import psycopg
from psycopg import sql

from ops.database.embedded.server import Server, programs

__all__ = ["Server", "programs", "serve", "start"]

DATA = Path(__file__).resolve().parents[3] / ".data" / "postgres"
DATABASE = "latchkey"


@functools.cache
def start() -> Server:
    """Start the server if necessary and register this process as a user of it."""
    DATA.parent.mkdir(exist_ok=True)
    with DATA.with_name("postgres.starting").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        server = Server(DATA)
        lock = server.files.with_name(f"{server.files.name}.lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_SH)
        server.start()
        create_database(server)
    atexit.register(leave, server, lock, os.getpid())
    return server


def serve(directory: Path) -> Server:
    """Start a server that the caller stops."""
    server = Server(directory)
    server.start()
    return server


def create_database(server: Server) -> None:
    """Create the database, or rename it if the project has been renamed."""
    query = (
        "SELECT datname FROM pg_database WHERE NOT datistemplate"
        r" AND datname <> 'postgres' AND datname NOT LIKE 'test\_%'"
    )
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        names = [name for (name,) in connection.execute(query)]
        if DATABASE in names:
            return
        create = "CREATE DATABASE {}"
        if len(names) == 1:
            create = "ALTER DATABASE {1} RENAME TO {0}"
        identifiers = [sql.Identifier(name) for name in (DATABASE, *names)]
        connection.execute(sql.SQL(create).format(*identifiers))


def leave(server: Server, lock: IO[str], owner: int) -> None:
    """Stop the server if no other process uses it; a forked child did not register."""
    if os.getpid() != owner:
        return
    with lock, contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        server.stop()
