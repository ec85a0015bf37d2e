"""Email while its worker is killed, and while the mail server is unavailable or hangs."""

import socket
import statistics
import time
from collections import Counter
from pathlib import Path

import pytest

from conftest import API, PASSWORD
from tests.faults.conftest import Figure
from tests.rig.client import Client
from tests.rig.gunicorn import NO_LIMITS, serve
from tests.rig.machine import wait_until
from tests.rig.postgres import Postgres
from tests.rig.smtp import MailServer, worker

pytestmark = pytest.mark.slow
EMAILS = 150
KILLS = 10
UNAVAILABLE = 12  # seconds
ENQUEUE = """
    INSERT INTO accounts_outgoingemail (id, kind, identity, address, error)
    SELECT gen_random_uuid(), 'email_changed', '', 'user-' || n || '@example.com', ''
      FROM generate_series(1, {count}) n
"""
WAITING = "SELECT count(*) FROM accounts_outgoingemail WHERE sent_at IS NULL"


def enqueue(postgres: Postgres, count: int) -> None:
    postgres.execute("DELETE FROM accounts_outgoingemail", dbname="latchkey")
    postgres.execute(ENQUEUE.format(count=count), dbname="latchkey")


def all_sent(postgres: Postgres) -> bool:
    return postgres.execute(WAITING, dbname="latchkey") == [(0,)]


def test_workers_are_killed_while_they_send(
    postgres: Postgres, tmp_path: Path, figure: Figure
) -> None:
    enqueue(postgres, EMAILS)
    variables = {"DATABASE_URL": postgres.url}
    with MailServer() as mail:
        mail.delay = 0.02
        for kill in range(1, KILLS + 1):
            with worker(tmp_path / "log", EMAIL_URL=mail.url, **variables) as process:
                assert mail.wait_for(kill * EMAILS // (KILLS + 1), seconds=60)
                process.kill()
        with worker(tmp_path / "log", EMAIL_URL=mail.url, **variables):
            # What a killed worker had claimed is due again after a minute.
            assert wait_until(lambda: all_sent(postgres), seconds=180) < 180
    sent = Counter(str(message["Message-ID"]) for message in mail.received)
    recipients = set(mail.recipients)

    figure(
        f"{EMAILS} emails, their worker killed {KILLS} times: lost",
        demanded="0",
        measured=str(EMAILS - len(recipients)),
        met=len(recipients) == EMAILS,
    )
    repeats = sent.total() - len(sent)
    figure(
        f"{EMAILS} emails, their worker killed {KILLS} times: sent twice, with the same Message-ID",
        demanded=f"at most {KILLS}",
        measured=str(repeats),
        met=repeats <= KILLS and len(sent) == EMAILS and max(sent.values()) <= 2,
    )


def test_the_mail_server_is_unavailable(postgres: Postgres, tmp_path: Path, figure: Figure) -> None:
    enqueue(postgres, 0)
    mail = MailServer()
    with worker(tmp_path / "log", EMAIL_URL=mail.url, DATABASE_URL=postgres.url):
        enqueue(postgres, EMAILS)
        time.sleep(UNAVAILABLE)
        with mail:
            seconds = wait_until(lambda: all_sent(postgres), seconds=60)

    figure(
        f"the mail server unavailable for {UNAVAILABLE} s: emails delivered, once each",
        demanded=f"{EMAILS} within 60 s",
        measured=f"{len(set(mail.recipients))} within {seconds:.0f} s",
        met=len(mail.received) == len(set(mail.recipients)) == EMAILS,
    )


def test_a_mail_server_that_hangs_delays_no_request(
    postgres: Postgres, tmp_path: Path, figure: Figure
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        variables = NO_LIMITS | {"DATABASE_URL": postgres.url}
        without, _ = register(tmp_path / "without", "without", variables | {"EMAIL_URL": "none"})
        variables["EMAIL_URL"] = f"smtp://127.0.0.1:{silent.getsockname()[1]}"
        enqueue(postgres, 10)
        with worker(tmp_path / "worker", **variables):
            hanging, readiness = register(tmp_path / "hanging", "hanging", variables)

    figure(
        "a mail server that hangs: the median registration, and readiness",
        demanded="at most 100 ms more than without email; 200",
        measured=f"{1000 * hanging:.0f} ms, {1000 * without:.0f} ms without; {readiness}",
        met=hanging - without < 0.1 and readiness == 200,
    )


def register(log: Path, name: str, variables: dict[str, str]) -> tuple[float, int]:
    """Return the median seconds of forty registrations, and the status of readiness."""
    with serve(log, **variables) as server:
        client, seconds = Client(server.port), []
        for number in range(40):
            user = {"username": f"{name}-{number}", "email": f"{name}-{number}@example.com"}
            response = client.post(f"{API}/users", user | {"password": PASSWORD})
            assert response.status == 201
            seconds.append(response.seconds)
        return statistics.median(seconds), client.get("/health/ready").status
