"""The service as gunicorn serves it."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from django.db import connection

from tests.rig.machine import ROOT, free_port, wait_for

LIFTED = {"AUTH_RATE_LIMIT": "1000000/m", "LOGIN_FAILURE_LIMIT": "1000000/m"}


class Server:
    def __init__(self, port: int, process: "subprocess.Popen[bytes]") -> None:
        self.port = port
        self.process = process

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)

    def ask(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        with contextlib.closing(self.connect()) as client:
            client.request(method, path, body, headers)
            response = client.getresponse()
            return response, response.read()

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
        """Post JSON to the API and return the status and the JSON of the answer."""
        headers |= {"Content-Type": "application/json"}
        response, answer = self.ask("POST", f"/api/v1{path}", json.dumps(body), **headers)
        return response.status, json.loads(answer or b"{}")

    def say(self, data: bytes) -> bytes:
        """Send bytes as they are and return all that comes back until the server hangs up."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=15) as client:
            client.sendall(data)
            return b"".join(iter(lambda: client.recv(65536), b""))


def database_url(name: str = "") -> str:
    """Return the URL of the tests' database, or of another one of its server."""
    given = connection.settings_dict
    return (
        f"postgres://{given['USER']}:{given['PASSWORD']}@/{name or given['NAME']}"
        f"?host={given['HOST']}"
    )


@contextlib.contextmanager
def serve(log: Path, **variables: str) -> Iterator[Server]:
    """
    Run one gunicorn with cheap hashing, until SIGTERM at the end, which it obeys.

    Its database is the tests' unless the variables name another.
    """
    port = int(variables.get("PORT", 0)) or free_port()
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "DATABASE_URL": database_url(),
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "BCRYPT_ROUNDS": "4",
        "WEB_CONCURRENCY": "1",
        **variables,
    }
    command = [str(Path(sys.executable).with_name("gunicorn"))]
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        try:
            wait_for(port, log)
            yield Server(port, process)
        finally:
            process.terminate()
            assert process.wait(timeout=40) == 0
            from conftest import find_secrets  # which needs settings, as the rest here doesn't

            assert not find_secrets(log.read_text())


def workers(server: Server) -> list[psutil.Process]:
    return list(psutil.Process(server.process.pid).children())
