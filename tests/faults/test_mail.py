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
from tests.rig.gunicorn import NO_LIMITS, Server, serve
from tests.rig.machine import free_port, wait_until
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


@pytest.mark.parametrize("state", ["hangs", "is unavailable"])
def test_a_mail_server_without_replies_delays_no_request(
    postgres: Postgres, tmp_path: Path, figure: Figure, state: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if state == "hangs" else free_port()
        variables = NO_LIMITS | {"DATABASE_URL": postgres.url}
        mailing = variables | {"EMAIL_URL": f"smtp://127.0.0.1:{port}"}
        enqueue(postgres, 10)
        with (
            serve(tmp_path / "without", **variables, EMAIL_URL="none") as plain,
            serve(tmp_path / "with", **mailing) as server,
            worker(tmp_path / "worker", **mailing),
        ):
            name = state.rpartition(" ")[2]
            seconds, without = median_seconds(name, server, plain)
            readiness = Client(server.port).get("/health/ready").status

    figure(
        f"a mail server that {state}: the median registration and `forgot`, and readiness",
        demanded="at most 100 ms more than without email; 200",
        measured=f"{1000 * seconds:.0f} ms, {1000 * without:.0f} ms without; {readiness}",
        met=seconds - without < 0.1 and readiness == 200,
    )


def median_seconds(name: str, *servers: Server) -> list[float]:
    """Return each server's median for a registration and a `forgot`, asked in turns."""
    clients = [Client(server.port) for server in servers]
    seconds: list[list[float]] = [[] for _ in servers]
    for number in range(40):
        for place, client in enumerate(clients):
            username = f"{name}-{place}-{number}"
            user = {"username": username, "email": f"{username}@example.com"}
            registered = client.post(f"{API}/users", user | {"password": PASSWORD})
            asked = client.post(f"{API}/auth/password/forgot", {"identity": username})
            assert (registered.status, asked.status) == (201, 404 if place else 202)
            seconds[place].append(registered.seconds + asked.seconds)
    return [statistics.median(times) for times in seconds]
