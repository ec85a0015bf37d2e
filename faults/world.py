"""What the faults happen to: a PostgreSQL that may be killed, gunicorns, and the shipped proxy."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from config import embedded_postgres
from config.tests.serving import ROOT, Server, free_port, wait_for
from conftest import API, PASSWORD

needs_redis = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="redis-server is not installed"
)
needs_proxy = pytest.mark.skipif(
    shutil.which("nginx") is None or os.geteuid() != 0,
    reason="nginx is not installed, or may not be started without being root",
)
TRUSTING = ssl._create_unverified_context()  # noqa: S323 - of a certificate that is our own
LIFTED = {"AUTH_RATE_LIMIT": "1000000/m", "LOGIN_FAILURE_LIMIT": "1000000/m"}
LIFTED |= {"AUTH_READ_LIMIT": "1000000/m", "SESSION_LIMIT": "0", "REFRESH_GRACE_SECONDS": "0"}


@dataclass
class Answer:
    """What came back; the status is 0 where nothing did."""

    status: int
    seconds: float
    headers: Any = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def is_unavailable(self) -> bool:
        """Tell whether this is the 503 that the contract describes."""
        return (
            self.status == 503
            and self.headers["Content-Type"] == "application/problem+json"
            and int(self.headers["Retry-After"]) >= 1
            and self.json["code"] == "service_unavailable"
        )


class Client:
    """One client on one kept-alive connection, opened again where it was closed."""

    def __init__(self, port: int, *, tls: bool = False, address: str = "127.0.0.1") -> None:
        options: Any = {"timeout": 40, "source_address": (address, 0)}
        self.connection = http.client.HTTPConnection("127.0.0.1", port, **options)
        if tls:
            options["context"] = TRUSTING
            self.connection = http.client.HTTPSConnection("127.0.0.1", port, **options)
        self.access = ""
        self.refresh_token = ""

    def __del__(self) -> None:
        self.connection.close()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send a body as JSON."""
        if body is not None:
            body = json.dumps(body)
            headers["Content-Type"] = "application/json"
        return self.send(method, path, body, **headers)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        if self.access:
            headers.setdefault("Authorization", f"Bearer {self.access}")
        started = time.monotonic()
        try:
            self.connection.request(method, path, body, headers)
            response = self.connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            return Answer(0, time.monotonic() - started)
        return Answer(response.status, time.monotonic() - started, response.headers, content)

    def get(self, path: str) -> Answer:
        return self.ask("GET", path)

    def post(self, path: str, body: Any = None) -> Answer:
        return self.ask("POST", path, body)

    def sign_in(self, username: str = "") -> "Client":
        """Log in as this user, or as a new one."""
        if not username:
            username = f"user-{uuid.uuid4().hex[:12]}"
            user = {"username": username, "email": f"{username}@example.com", "password": PASSWORD}
            assert self.post(f"{API}/users", user).status == 201
        self.take(self.post(f"{API}/auth/login", {"identity": username, "password": PASSWORD}))
        self.username = username
        return self

    def refresh(self) -> Answer:
        answer = self.ask(
            "POST", f"{API}/auth/refresh", {"refresh_token": self.refresh_token}, Authorization=""
        )
        if answer.status == 200:
            self.take(answer)
        return answer

    def take(self, answer: Answer) -> None:
        assert answer.status == 200, answer
        self.access, self.refresh_token = answer.json["access_token"], answer.json["refresh_token"]


class Postgres:
    """A server of the faults' own, with a role that is no superuser."""

    PASSWORD = "latchkey"  # noqa: S105 - of a role that lives as long as a test

    def __init__(self, directory: Path) -> None:
        self.server = embedded_postgres.Server(directory)
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


@contextlib.contextmanager
def proxy(
    directory: Path, *instances: int, origins: str | None = None, changes: Mapping[str, str] = {}
) -> Iterator[int]:
    """Run the shipped nginx.conf before the instances at these ports; yield its own, with TLS."""
    port = free_port()
    certify = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    certify += ["-keyout", f"{directory}/key.pem", "-out", f"{directory}/certificate.pem"]
    subprocess.run(certify, check=True, capture_output=True)
    if origins is not None:
        template = (ROOT / "deploy/allowed_origins.conf.template").read_text()
        (directory / "allowed_origins.conf").write_text(
            template.replace("${CORS_ALLOWED_ORIGINS}", origins)
        )
    text = (ROOT / "deploy/nginx.conf").read_text()
    here_instead = {
        "server web:3000 max_fails=0;": "".join(
            f"server 127.0.0.1:{p} max_fails=0;" for p in instances
        ),
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "/etc/nginx/tls": str(directory),
        "/run/allowed_origins.conf": f"{directory}/allowed_origins.conf",
        **changes,
    }
    for shipped, here in here_instead.items():
        assert shipped in text
        text = text.replace(shipped, here)
    (directory / "nginx.conf").write_text(text)
    log = directory / "nginx.log"
    command = ["nginx", "-c", f"{directory}/nginx.conf", "-e", f"{log}"]
    command += ["-g", f"daemon off; pid {directory}/nginx.pid;"]
    process = subprocess.Popen(command)
    try:
        wait_for(port, log)
        yield port
    finally:
        process.terminate()
        assert process.wait(timeout=20) == 0, log.read_text()


def workers(server: Server) -> list[psutil.Process]:
    return list(psutil.Process(server.process.pid).children())


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Make all these calls at the same instant, each in a thread, and return their results."""
    barrier = threading.Barrier(len(calls))
    with ThreadPoolExecutor(len(calls)) as pool:

        def wait_and(call: Callable[[], Any]) -> Any:
            barrier.wait()
            return call()

        return list(pool.map(wait_and, calls))


class Load:
    """Calls made again and again by threads, until the `with` block ends; `results` has them."""

    def __init__(self, *calls: Callable[[], Any], pause: float = 0.0) -> None:
        self.results: list[Any] = []
        self.errors: list[Exception] = []
        self.over = threading.Event()
        self.pause = pause
        self.threads = [threading.Thread(target=self.repeat, args=(call,)) for call in calls]

    def repeat(self, call: Callable[[], Any]) -> None:
        while not self.over.is_set():
            try:
                self.results.append(call())
            except Exception as error:  # noqa: BLE001 - raised where the block ends
                self.errors.append(error)
                return
            self.over.wait(self.pause)

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()
        if self.errors:
            raise self.errors[0]


def wait_until(condition: Callable[[], bool], *, seconds: float) -> float:
    """Return how many seconds it took, or infinity where it took longer than `seconds`."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        if condition():
            return time.monotonic() - started
        time.sleep(0.05)
    return float("inf")


def p99(seconds: Sequence[float]) -> float:
    """Return the 99th percentile, in milliseconds."""
    ordered = sorted(seconds)
    return 1000 * ordered[int(len(ordered) * 0.99)]
