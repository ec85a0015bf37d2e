"""The worker against a real SMTP server: what it sends, retries, sets aside and survives."""

import io
import os
import signal
import smtplib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, transaction
from django.db.models.functions import Now
from pytest_django import Settings

from accounts import delivery
from accounts.emails import open_mailer
from accounts.models import Event, OutgoingEmail, Ticket, User
from accounts.models.outbox import ATTEMPTS
from tests.rig.gunicorn import database_url
from tests.rig.machine import ROOT
from tests.rig.smtp import MailServer, use_mailer, worker

Kind = OutgoingEmail.Kind
emails = OutgoingEmail.objects


@pytest.fixture
def server(settings: Settings) -> Iterator[MailServer]:
    with MailServer() as server:
        use_mailer(settings, server.url)
        yield server


def enqueue(user: User, *addresses: str, kind: str = Kind.EMAIL_CHANGED) -> list[Any]:
    return [emails.enqueue(kind, user, address=address) for address in addresses]


def work() -> None:
    call_command("mailworker", once=True, stdout=io.StringIO())


def make_due() -> None:
    emails.update(due_at=Now())


class TestOnce:
    def test_it_sends_what_is_due_and_exits(self, user: User, server: MailServer) -> None:
        enqueue(user, "a@example.com", "b@example.com")
        work()
        work()

        assert sorted(server.recipients) == ["a@example.com", "b@example.com"]
        assert not emails.waiting()
        assert server.connections == 1

    def test_a_rolled_back_transaction_sends_nothing(self, user: User, server: MailServer) -> None:
        with transaction.atomic():
            enqueue(user, "a@example.com")
            transaction.set_rollback(True)
        work()

        assert server.received == []

    def test_a_rejected_recipient_is_set_aside_and_the_others_get_theirs(
        self, user: User, server: MailServer
    ) -> None:
        server.replies["b@example.com"] = "550 No such user"
        _, rejected, _ = enqueue(user, "a@example.com", "b@example.com", "c@example.com")
        work()
        make_due()
        work()

        assert sorted(server.recipients) == ["a@example.com", "c@example.com"]
        assert list(emails.failed().values_list("pk", "error")) == [
            (rejected.pk, "550 No such user")
        ]
        assert Event.objects.get(kind="mail_failed").detail == "email_changed"

    @pytest.mark.parametrize(
        "address", ["=?utf-8?q?admin?=@x.example", "=?utf-8?b?!?=@x.example", "=?@x.example"]
    )
    def test_an_address_that_mail_programs_decode_is_set_aside(
        self, user: User, server: MailServer, address: str
    ) -> None:
        [email, _] = enqueue(user, address, "b@example.com")
        work()
        emails.failed().retry()
        work()

        assert server.recipients == ["b@example.com"]
        assert list(emails.failed().values_list("pk", "error")) == [(email.pk, "invalid address")]
        assert Event.objects.filter(kind="mail_failed").count() == 2

    def test_what_a_server_says_is_kept_as_one_line(self, user: User, server: MailServer) -> None:
        server.replies["a@example.com"] = "550 No\0such\tuser \x1b[31m" + "x" * 400
        enqueue(user, "a@example.com")
        work()

        assert emails.get().error.startswith("550 No such user [31mxx")
        assert len(emails.get().error) <= 200

    def test_a_deferred_recipient_is_tried_again(self, user: User, server: MailServer) -> None:
        server.replies["a@example.com"] = "451 Try again later"
        enqueue(user, "a@example.com")
        work()
        assert list(emails.late().values_list("attempts", "error")) == [(1, "451 Try again later")]

        work()
        assert emails.get().attempts == 1  # It is not due yet.
        del server.replies["a@example.com"]
        make_due()
        work()
        assert server.recipients == ["a@example.com"]
        assert emails.get().error == ""

    def test_an_email_whose_content_is_rejected_stops_no_other_and_fails_in_the_end(
        self, user: User, server: MailServer
    ) -> None:
        server.data_reply = "554 Looks like spam"
        enqueue(user, "a@example.com")
        for _ in range(ATTEMPTS + 3):
            work()
            make_due()

        email = emails.get()
        assert (email.attempts, email.error[:15]) == (ATTEMPTS, "SMTPDataError: ")
        assert email.failed_at
        assert Event.objects.filter(kind="mail_failed").count() == 1

    def test_a_worker_that_died_at_the_last_attempt_leaves_no_email_due(
        self, user: User, server: MailServer
    ) -> None:
        enqueue(user, "a@example.com")
        emails.update(attempts=ATTEMPTS)
        work()

        assert emails.get().error == "no attempt left"
        assert server.received == []

    def test_a_server_that_is_unavailable_uses_no_attempt_up(
        self, user: User, settings: Settings, server: MailServer
    ) -> None:
        enqueue(user, "a@example.com")
        server.stop()
        with pytest.raises(CommandError, match="unavailable: ConnectionRefusedError"):
            work()
        assert emails.get().attempts == 0

        server.start()
        work()
        assert server.recipients == ["a@example.com"]

    def test_a_server_that_is_too_slow_gets_the_email_again(
        self,
        user: User,
        settings: Settings,
        server: MailServer,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("config.mailers.SMTP_TIMEOUT", 0.5)
        use_mailer(settings, server.url)
        server.delay = 2
        enqueue(user, "a@example.com")
        work()
        assert "timed out" in emails.get().error
        assert emails.get().sent_at is None

        server.delay = 0
        make_due()
        work()
        assert emails.get().sent_at

    def test_a_text_that_cannot_be_written_stops_no_other(
        self, user: User, server: MailServer
    ) -> None:
        poison, _ = enqueue(user, "a@example.com", "b@example.com")
        emails.filter(pk=poison.pk).update(kind="no_such_kind")
        work()

        assert server.recipients == ["b@example.com"]
        assert emails.get(pk=poison.pk).error.startswith("TemplateDoesNotExist")

    @pytest.mark.parametrize(
        "address",
        ["a@example.com\r\nBcc: b@example.com", "a@example.com\nRCPT TO:<b@example.com>"],
    )
    def test_an_address_with_a_line_break_is_never_sent_to(
        self, user: User, server: MailServer, address: str
    ) -> None:
        enqueue(user, address)
        work()

        assert server.received == []
        assert emails.get().sent_at is None

    def test_an_email_whose_link_has_ended_is_not_sent(
        self, user: User, server: MailServer
    ) -> None:
        email = emails.enqueue(Kind.VERIFY_EMAIL, user)
        Ticket.objects.find(email.ticket.token, Ticket.Purpose.VERIFY).use()
        work()

        assert server.received == []
        assert not emails.exists()

    def test_an_entered_identity_is_looked_up(self, user: User, server: MailServer) -> None:
        for identity in ("nobody", "alice", "someone@example.com"):
            emails.enqueue_entered(Kind.RESET_PASSWORD, identity, client_address="192.0.2.1")
        work()

        assert server.recipients == ["alice@example.com"]
        assert emails.count() == 1

    def test_an_email_that_is_sent_again_is_the_same(self, user: User, server: MailServer) -> None:
        emails.enqueue(Kind.VERIFY_EMAIL, user)
        work()
        emails.update(sent_at=None, due_at=Now())
        work()

        first, second = server.received
        assert first["Message-ID"] == second["Message-ID"]
        assert first.get_body().get_content() == second.get_body().get_content()

    def test_the_real_sender_checks_the_certificate(
        self, user: User, settings: Settings, server: MailServer
    ) -> None:
        use_mailer(settings, server.url.replace("smtp://", "smtp+tls://"))
        enqueue(user, "a@example.com")
        with pytest.raises(CommandError, match=smtplib.SMTPNotSupportedError.__name__):
            work()

        assert server.received == []

    def test_without_email_what_is_due_waits(
        self, user: User, settings: Settings, server: MailServer
    ) -> None:
        enqueue(user, "a@example.com")
        use_mailer(settings, "none")
        work()

        assert emails.get().attempts == 0


def wait_until(condition: Callable[[], Any], seconds: float = 60) -> bool:
    until = time.monotonic() + seconds
    while not (result := condition()) and time.monotonic() < until:
        time.sleep(0.05)
    return bool(result)


@pytest.mark.django_db(transaction=True)
class TestProcess:
    def test_it_sends_as_emails_are_written_and_stops_at_sigterm(
        self, user: User, server: MailServer, tmp_path: Path
    ) -> None:
        with worker(tmp_path / "log", EMAIL_URL=server.url):
            enqueue(user, "a@example.com")
            assert server.wait_for(1, seconds=20)
            enqueue(user, "b@example.com")
            assert server.wait_for(2, seconds=5)
            assert wait_until(lambda: not emails.waiting().exists())

    def test_it_finishes_the_email_that_it_sends_before_it_stops(
        self, user: User, server: MailServer, tmp_path: Path
    ) -> None:
        enqueue(user, "a@example.com")
        server.delay = 2
        with worker(tmp_path / "log", EMAIL_URL=server.url):
            assert wait_until(lambda: emails.get().attempts == 1)

        assert server.recipients == ["a@example.com"]
        assert emails.get().sent_at

    def test_two_workers_send_nothing_twice(
        self, user: User, server: MailServer, tmp_path: Path
    ) -> None:
        addresses = [f"user-{number}@example.com" for number in range(40)]
        enqueue(user, *addresses)
        with (
            worker(tmp_path / "one", EMAIL_URL=server.url),
            worker(tmp_path / "two", EMAIL_URL=server.url),
        ):
            assert wait_until(lambda: not emails.waiting().exists(), seconds=40)

        assert sorted(server.recipients) == sorted(addresses)

    def test_a_mail_server_that_comes_back_gets_everything(
        self, user: User, server: MailServer, tmp_path: Path
    ) -> None:
        server.stop()
        with worker(tmp_path / "log", EMAIL_URL=server.url):
            enqueue(user, "a@example.com", "b@example.com")
            assert wait_until(lambda: "mail server is unavailable" in read(tmp_path / "log"))
            server.start()
            assert server.wait_for(2, seconds=20)

        assert read(tmp_path / "log").count("unavailable") == 1
        assert set(emails.values_list("attempts", flat=True)) == {1}

    def test_a_database_that_comes_back_is_used_again(
        self, user: User, server: MailServer, tmp_path: Path
    ) -> None:
        with worker(tmp_path / "log", EMAIL_URL=server.url, PGAPPNAME="worker"):
            assert wait_until(lambda: kill_connections("worker"))
            enqueue(user, "a@example.com")
            assert server.wait_for(1, seconds=20)

        assert "database is unavailable" in read(tmp_path / "log")

    def test_an_email_is_not_sent_again_because_the_database_was_unavailable(
        self, user: User, server: MailServer, tmp_path: Path
    ) -> None:
        server.delay = 1
        enqueue(user, "a@example.com")
        with worker(tmp_path / "log", EMAIL_URL=server.url, PGAPPNAME="worker"):
            assert wait_until(lambda: emails.get().attempts == 1)
            assert kill_connections("worker")
            assert wait_until(lambda: emails.get().sent_at)

        assert server.recipients == ["a@example.com"]
        assert emails.get().attempts == 1

    def test_it_uses_one_connection(self, user: User, server: MailServer, tmp_path: Path) -> None:
        server.delay = 0.2
        with worker(tmp_path / "log", EMAIL_URL=server.url, PGAPPNAME="worker"):
            enqueue(user, *[f"user-{number}@example.com" for number in range(10)])
            counts = set()
            while server.recipients[9:] == []:
                counts.add(connections("worker"))
                time.sleep(0.05)

        assert max(counts) == 1

    def test_it_stops_when_its_parent_has_ended(self, server: MailServer, tmp_path: Path) -> None:
        """As `make run` starts it; what ends the service may leave it no time for a signal."""
        shell = (
            f"{sys.executable} manage.py mailworker --parent $$ > {tmp_path}/log 2>&1 &"
            f" echo $! > {tmp_path}/pid; exec sleep 60"
        )
        environment = os.environ | {"DATABASE_URL": database_url(), "EMAIL_URL": server.url}
        environment |= {"DJANGO_SETTINGS_MODULE": "config.settings", "PGAPPNAME": "worker"}
        parent = subprocess.Popen(["sh", "-c", shell], cwd=ROOT, env=environment)
        try:
            assert wait_until(lambda: connections("worker"))
            orphan = psutil.Process(int((tmp_path / "pid").read_text()))
        finally:
            parent.kill()
            parent.wait()

        psutil.wait_procs([orphan], timeout=10)
        assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE

    def test_a_signal_to_the_whole_group_stops_it(self, server: MailServer, tmp_path: Path) -> None:
        log = tmp_path / "log"
        with worker(log, EMAIL_URL=server.url, PGAPPNAME="worker") as process:
            assert wait_until(lambda: connections("worker"))
            process.send_signal(signal.SIGINT)

            assert process.wait(timeout=20) == 0
        assert "Traceback" not in read(log)


def read(path: Path) -> str:
    return path.read_text()


# Other test processes have databases of their own in the same server.
OF_A_PROGRAM = "FROM pg_stat_activity WHERE application_name = %s AND datname = current_database()"


def kill_connections(name: str) -> int:
    return count(f"SELECT count(pg_terminate_backend(pid)) {OF_A_PROGRAM}", name)


def connections(name: str) -> int:
    return count(f"SELECT count(*) {OF_A_PROGRAM}", name)


def count(statement: str, *parameters: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return int(cursor.fetchone()[0])


@pytest.mark.django_db(transaction=True)
def test_a_database_that_is_lost_in_the_middle_of_an_email_defers_nothing(
    make_user: Callable[..., User], server: MailServer
) -> None:
    enqueue(make_user(), "a@example.com", kind=Kind.VERIFY_EMAIL)
    sender = delivery.Worker(threading.Event())
    email = emails.claim()
    sender.mailer = open_mailer()
    with psycopg_connection() as admin:
        pid = connection.connection.info.backend_pid
        admin.execute("SELECT pg_terminate_backend(%s)", [pid])

    with pytest.raises(OperationalError):
        sender.send(email)
    sender.wait_for_database(OperationalError("terminated"))

    assert emails.get().error == ""
    assert server.received == []


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_stops_does_not_wait_for_the_database(
    make_user: Callable[..., User], server: MailServer
) -> None:
    enqueue(make_user(), "a@example.com")
    sender = delivery.Worker(threading.Event())
    email = emails.claim()
    sender.stop.set()
    with psycopg_connection() as admin:
        pid = connection.connection.info.backend_pid
        admin.execute("SELECT pg_terminate_backend(%s)", [pid])

    with pytest.raises(OperationalError):
        sender.mark_sent(email)


def psycopg_connection() -> Any:
    """Connect beside Django, to end Django's own connection."""
    return psycopg.connect(database_url(), autocommit=True)


def test_pauses_grow_to_half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    sender, pauses = delivery.Worker(threading.Event()), []
    monkeypatch.setattr(sender, "rest", pauses.append)
    for _ in range(7):
        sender.back_off("The mail server is unavailable: %s", OSError("no route"))

    assert pauses == [1, 2, 4, 8, 16, 30, 30]
