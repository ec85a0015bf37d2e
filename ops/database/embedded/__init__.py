"""
A real PostgreSQL 18 for development and tests, from a wheel, in `.data/postgres`.

It starts when the first process connects and stops with the last. Each process that uses it holds
a shared lock, which the kernel drops however the process ends, so a crash leaves nothing to repair:
the process that gets the lock for itself when it ends is the last one, and stops the server.
"""

import atexit
import contextlib
import fcntl
import functools
import os
from pathlib import Path
from typing import IO

import psycopg

from ops.database.embedded.server import Server, programs

__all__ = ["Server", "programs", "serve", "start"]

DATA = Path(__file__).resolve().parents[3] / ".data" / "postgres"
DATABASE = "latchkey"


@functools.cache
def start() -> Server:
    """Start the server, or join the processes that use it."""
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
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        query = "SELECT FROM pg_database WHERE datname = %s"
        if connection.execute(query, [DATABASE]).rowcount == 0:
            connection.execute(f"CREATE DATABASE {DATABASE}")


def leave(server: Server, lock: IO[str], owner: int) -> None:
    """Stop the server if no other process uses it; a forked child is not the one that joined."""
    if os.getpid() != owner:
        return
    with lock, contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        server.stop()
