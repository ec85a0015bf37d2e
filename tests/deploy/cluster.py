"""A PostgreSQL that is created as by the entry point of its image."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ops.database import embedded
from tests.rig.machine import free_port


class Cluster:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.user = ["setpriv", "--reuid=nobody", "--clear-groups"] if os.geteuid() == 0 else []
        programs = {"PATH": f"{embedded.programs()}:{os.environ['PATH']}"}
        self.environment = os.environ | programs | {"PGPORT": str(free_port())}
        self.environment["PGDATA"] = str(self.data)

    def initialize(self, user: str, arguments: str) -> str:
        return self.run("initdb", "--no-sync", "--username", user, *arguments.split())

    def run(self, *command: str) -> str:
        """Return the output of a command, which must succeed."""
        result = subprocess.run(
            [*self.user, *command],
            env=self.environment,
            text=True,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert result.returncode == 0, result.stdout
        return result.stdout

    def exit_code(self, *command: str) -> int:
        return subprocess.run([*self.user, *command], env=self.environment, check=False).returncode

    @contextlib.contextmanager
    def serve(self, *, addresses: str) -> Iterator[None]:
        options = f"-c listen_addresses={addresses} -k {self.directory}"
        command = ["pg_ctl", "--wait", f"--log={self.directory}/log", f"--options={options}"]
        subprocess.run([*self.user, *command, "start"], env=self.environment, check=True)
        try:
            yield
        finally:
            self.run("pg_ctl", "--wait", "--mode=fast", "stop")


def superuser(service: dict[str, Any]) -> str:
    """Return the role that the entry point of the image creates."""
    return str(service["environment"].get("POSTGRES_USER", "postgres"))
