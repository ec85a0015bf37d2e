"""The service in gunicorn on loopback."""

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

NO_LIMITS = {
    "AUTH_RATE_LIMIT": "1000000/m",
    "AUTH_READ_LIMIT": "1000000/m",
    "LOGIN_FAILURE_LIMIT": "1000000/m",
    "SESSION_LIMIT": "0",
    "REFRESH_GRACE_SECONDS": "0",
}


class Server:
    def __init__(self, port: int, process: "subprocess.Popen[bytes]") -> None:
        self.port = port
        self.process = process

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)

    def request(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        with contextlib.closing(self.connect()) as client:
            client.request(method, path, body, headers)
            response = client.getresponse()
            return response, response.read()

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
        """Post JSON to the API and return the status and the JSON of the response."""
        headers |= {"Content-Type": "application/json"}
        response, content = self.request("POST", f"/api/v1{path}", json.dumps(body), **headers)
        return response.status, json.loads(content or b"{}")

    def send_raw(self, data: bytes) -> bytes:
        """Send raw bytes and return all bytes until the server closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=15) as client:
            client.sendall(data)
            return b"".join(iter(lambda: client.recv(65536), b""))


def database_url(name: str = "") -> str:
    """Return the URL of the test database, or of another database on its server."""
    given = connection.settings_dict
    return (
        f"postgres://{given['USER']}:{given['PASSWORD']}@/{name or given['NAME']}"
        f"?host={given['HOST']}"
    )


@contextlib.contextmanager
def serve(log: Path, **variables: str) -> Iterator[Server]:
    """
    Run gunicorn with cheap hashing and stop it with SIGTERM at the end.

    It uses the test database unless the variables set another one.
    """
    port = int(variables.get("PORT", 0)) or free_port()
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.rig.settings",
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
            wait_for(port, log, environment["HOST"])
            yield Server(port, process)
        finally:
            process.terminate()
            assert process.wait(timeout=40) == 0
            from conftest import find_secrets, find_tickets  # require settings

            lines = log.read_text()
            assert not find_secrets(lines) + find_tickets(lines)


def workers(server: Server) -> list[psutil.Process]:
    return list(psutil.Process(server.process.pid).children())
