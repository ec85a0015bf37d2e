"""A real PostgreSQL that tests may stop and kill."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import psycopg

from ops.database import embedded
from tests.rig.machine import ROOT


class Postgres:
    """A server of the faults' own, with a role that is no superuser."""

    PASSWORD = "latchkey"

    def __init__(self, directory: Path) -> None:
        self.server = embedded.Server(directory)
        # The socket of each start, at a place that stays.
        self.host = directory.with_name("socket")
        self.start()
        self.url = self.url_of("latchkey")
        self.execute(f"CREATE ROLE latchkey LOGIN PASSWORD '{self.PASSWORD}'")
        self.execute("CREATE DATABASE latchkey OWNER latchkey TEMPLATE template0 ENCODING 'UTF8'")
        variables = {"DJANGO_SETTINGS_MODULE": "config.settings", "DATABASE_URL": self.url}
        migrate = [sys.executable, "manage.py", "migrate", "--verbosity=0"]
        subprocess.run(migrate, cwd=ROOT, env=os.environ | variables, check=True)

    def connect(self, user: str = "postgres", **options: str) -> Any:
        password = self.server.password if user == "postgres" else self.PASSWORD
        options = {"host": str(self.host), "dbname": "postgres", "password": password, **options}
        return psycopg.connect(user=user, autocommit=True, **options)

    def url_of(self, database: str) -> str:
        return f"postgres://latchkey:{self.PASSWORD}@/{database}?host={self.host}"

    def execute(self, statement: str, **options: str) -> list[Any]:
        with self.connect(**options) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def processes(self) -> list[psutil.Process]:
        postmaster = psutil.Process(self.server.pid)
        return [postmaster, *postmaster.children(recursive=True)]

    def send(self, number: int) -> None:
        """Send a signal to every process of the server."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def stop(self) -> None:
        """Stop it as an operator does: at once, but in order."""
        self.server.stop()

    def kill(self) -> None:
        processes = self.processes()
        self.send(signal.SIGKILL)
        psutil.wait_procs(processes, timeout=20)

    def start(self) -> None:
        self.server.start()
        self.host.unlink(missing_ok=True)
        self.host.symlink_to(self.server.socket_directory)
