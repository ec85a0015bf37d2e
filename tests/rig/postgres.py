"""A PostgreSQL server that tests can stop and kill."""

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


class Cluster:
    """A separate server with PostgreSQL's default configuration and additions."""

    def __init__(self, directory: Path, configuration: str = "") -> None:
        self.server = embedded.Server(directory)
        # A fixed path to the socket, which changes at each start.
        self.host = directory.with_name("socket")
        self.start()
        if configuration:
            self.stop()
            with (self.server.files / "postgresql.conf").open("a") as file:
                file.write(configuration)
            self.start()

    def connect(self, user: str = "postgres", **options: str) -> Any:
        options = {"dbname": "postgres", "password": self.server.password, **options}
        return psycopg.connect(host=str(self.host), user=user, autocommit=True, **options)

    def execute(self, statement: Any, parameters: Any = None, **options: str) -> list[Any]:
        with self.connect(**options) as connection:
            cursor = connection.execute(statement, parameters)
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
        """Stop the server with a fast shutdown."""
        self.server.stop()

    def kill(self) -> None:
        processes = self.processes()
        self.send(signal.SIGKILL)
        psutil.wait_procs(processes, timeout=20)

    def start(self) -> None:
        self.server.start()
        self.host.unlink(missing_ok=True)
        self.host.symlink_to(self.server.socket_directory)


class Postgres(Cluster):
    """A cluster with a migrated database and a role that is not a superuser."""

    PASSWORD = "latchkey"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.url = self.url_of("latchkey")
        self.execute(f"CREATE ROLE latchkey LOGIN PASSWORD '{self.PASSWORD}'")
        self.execute("CREATE DATABASE latchkey OWNER latchkey TEMPLATE template0 ENCODING 'UTF8'")
        variables = {"DJANGO_SETTINGS_MODULE": "tests.rig.settings", "DATABASE_URL": self.url}
        migrate = [sys.executable, "manage.py", "migrate", "--verbosity=0"]
        subprocess.run(migrate, cwd=ROOT, env=os.environ | variables, check=True)

    def connect(self, user: str = "postgres", **options: str) -> Any:
        password = {} if user == "postgres" else {"password": self.PASSWORD}
        return super().connect(user, **password, **options)

    def url_of(self, database: str) -> str:
        return f"postgres://latchkey:{self.PASSWORD}@/{database}?host={self.host}"
