"""The service behind PgBouncer in transaction mode, with verified TLS."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.db import connection

from accounts.models import OutgoingEmail, User
from config import checks
from conftest import API, PASSWORD
from ops.management.commands import doctor
from tests.articles.models import Article
from tests.rig.client import Client
from tests.rig.gunicorn import Server, database_url, serve
from tests.rig.machine import free_port, wait_for
from tests.rig.smtp import MailServer, worker

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")

needs_pgbouncer = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")

# Two connections for all threads, so that state of one request would affect others.
CONFIGURATION = """
[databases]
{name} = host={host} dbname={name} user=pooled password=word
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
client_tls_sslmode = require
client_tls_cert_file = {directory}/certificate.pem
client_tls_key_file = {directory}/key.pem
"""
ROLE = """
    DROP ROLE IF EXISTS pooled;
    CREATE ROLE pooled LOGIN SUPERUSER PASSWORD 'word';
    ALTER ROLE pooled SET statement_timeout = '2500ms';
    ALTER ROLE pooled SET lock_timeout = '2000ms';
    ALTER ROLE pooled SET idle_in_transaction_session_timeout = '10000ms';
"""
CERTIFY = (
    "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    " -addext subjectAltName=DNS:localhost -keyout key.pem -out certificate.pem"
)


@pytest.fixture(scope="module")
def pooled(django_db_setup: None, django_db_blocker: Any) -> Iterator[dict[str, str]]:
    """Start PgBouncer in front of the test database and return the variables for it."""
    with django_db_blocker.unblock():
        connection.ensure_connection()
    host, name = connection.settings_dict["HOST"], connection.settings_dict["NAME"]
    with psycopg.connect(database_url(), autocommit=True) as admin:
        admin.execute(ROLE)
    with tempfile.TemporaryDirectory() as directory:
        place, port = Path(directory), free_port()
        subprocess.run(CERTIFY.split(), cwd=place, check=True, capture_output=True)
        variables = {"host": host, "name": name, "port": port, "directory": directory}
        (place / "ini").write_text(CONFIGURATION.format(**variables))
        for path in (place, *place.iterdir()):  # PgBouncer does not run as root.
            path.chmod(0o755)
        user = ["-u", Path(host).owner()] if os.geteuid() == 0 else []
        process = subprocess.Popen([str(PGBOUNCER), "-q", *user, str(place / "ini")])
        try:
            wait_for(port, place / "ini")
            yield {
                "DATABASE_URL": f"postgres://pooled@localhost:{port}/{name}",
                "DB_PGBOUNCER": "true",
                "PGSSLMODE": "verify-full",
                "PGSSLROOTCERT": str(place / "certificate.pem"),
            }
        finally:
            process.terminate()
            process.wait(timeout=10)


@needs_pgbouncer
@pytest.mark.django_db(transaction=True)
def test_the_main_flow(pooled: dict[str, str], tmp_path: Path) -> None:
    with serve(tmp_path / "log", **pooled, AUTH_RATE_LIMIT="1000/m", WEB_THREADS="20") as server:
        assert server.request("GET", "/health/ready")[0].status == 200
        with ThreadPoolExecutor(12) as clients:
            list(clients.map(live, [server] * 12, range(1, 13)))


@needs_pgbouncer
@pytest.mark.django_db(transaction=True)
def test_workers_send_each_email_once(
    pooled: dict[str, str], make_user: Callable[..., User], tmp_path: Path
) -> None:
    """Two connections for all: what one worker left on one, another would find."""
    user, addresses = make_user(), [f"user-{number}@example.com" for number in range(30)]
    for address in addresses:
        OutgoingEmail.objects.enqueue("email_changed", user, address=address)
    for identity in ("alice", "nobody"):
        OutgoingEmail.objects.enqueue_entered(
            "reset_password", identity, client_address="192.0.2.1"
        )
    with (
        MailServer() as mail,
        worker(tmp_path / "one", EMAIL_URL=mail.url, **pooled),
        worker(tmp_path / "two", EMAIL_URL=mail.url, **pooled),
    ):
        assert mail.wait_for(31, seconds=60)
        time.sleep(1)

    assert sorted(mail.recipients) == sorted([*addresses, "alice@example.com"])
    assert not OutgoingEmail.objects.filter(sent_at=None).exists()


def live(server: Server, number: int) -> None:
    """Do what a client does, at the same time as others on the same two connections."""
    user = {"username": f"user-{number}", "email": f"{number}@example.com", "password": PASSWORD}
    assert server.post("/users", user)[0] == 201
    login = {"identity": user["username"], "password": PASSWORD}
    status, pair = server.post("/auth/login", login)
    assert status == 200
    for amount in range(5):
        bearer = {"Authorization": f"Bearer {pair['access_token']}"}
        body = {"title": f"Lamp of {number}", "amount": amount}
        assert server.post("/articles", body, **bearer)[0] == 201
        found, _ = server.request("GET", f"/searched?search=lamp&owner={number}", **bearer)
        assert found.status == 200
        status, pair = server.post("/auth/refresh", {"refresh_token": pair["refresh_token"]})
        assert status == 200
    bearer = {"Authorization": f"Bearer {pair['access_token']}"}
    assert server.post("/auth/logout-all", {}, **bearer) == (200, {"revoked": 1})


@needs_pgbouncer
@pytest.mark.django_db(transaction=True)
def test_a_slow_export_keeps_no_connection(pooled: dict[str, str], tmp_path: Path) -> None:
    """The two connections serve others between the batches of two exports."""
    with serve(tmp_path / "log", **pooled, AUTH_RATE_LIMIT="1000/m") as server:
        device = Client(server.port).sign_in()
        owner = User.objects.get()
        Article.objects.bulk_create(
            Article(owner=owner, title=f"Lamp {n}", description="x" * 5_000, amount=n)
            for n in range(4_000)
        )
        headers = {"Authorization": f"Bearer {device.access}"}
        with (
            contextlib.closing(server.connect()) as one,
            contextlib.closing(server.connect()) as two,
        ):
            for client in (one, two):
                client.request("GET", f"{API}/users/me/export", headers=headers)
            responses = [client.getresponse() for client in (one, two)]
            first = [response.read(1000) for response in responses]
            assert all(device.get(f"{API}/articles").status == 200 for _ in range(20))
            for start, response in zip(first, responses, strict=True):
                assert len(json.loads(start + response.read())["articles"]) == 4_000


@needs_pgbouncer
@pytest.mark.django_db(transaction=True)
def test_without_the_certificate_nothing_is_sent(pooled: dict[str, str], tmp_path: Path) -> None:
    elsewhere = {**pooled, "PGSSLROOTCERT": "/etc/ssl/certs/ca-certificates.crt"}
    with serve(tmp_path / "log", **elsewhere) as server:
        assert server.request("GET", "/health/ready")[0].status == 503


@pytest.mark.django_db
def test_the_doctor_misses_a_timeout_and_counts_no_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settings, "DB_PGBOUNCER", True)
    monkeypatch.setattr(settings, "WEB_THREADS", 1000)
    monkeypatch.setattr(settings, "MEDIA_ROOT", "")

    assert checks.check_connections(databases=["default"]) == []
    with pytest.raises(doctor.CheckError, match="ALTER ROLE postgres SET statement_timeout"):
        doctor.check_database()
    with contextlib.closing(connection.cursor()) as cursor:
        cursor.execute("SET LOCAL statement_timeout = '2500ms'")
    assert doctor.check_database().startswith("PostgreSQL 18")
