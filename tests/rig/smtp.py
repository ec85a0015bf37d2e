"""A real SMTP server on loopback, workers, and Django's settings for a value of EMAIL_URL."""

import asyncio
import contextlib
import email
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from pytest_django import Settings

from config import settings as project
from tests.rig.gunicorn import database_url
from tests.rig.machine import ROOT, free_port

NAMES = ["MAILER", "EMAIL_ENABLED", "MAILBOX", "MAILERS", "EMAIL_BACKEND", "EMAIL_FILE_PATH"]
NAMES += ["EMAIL_HOST", "EMAIL_PORT", "EMAIL_HOST_USER", "EMAIL_HOST_PASSWORD"]
NAMES += ["EMAIL_USE_TLS", "EMAIL_USE_SSL", "EMAIL_TIMEOUT"]


def use_mailer(settings: Settings, url: str) -> None:
    """Give Django the settings that the project makes of this EMAIL_URL."""
    before = dict(os.environ)
    os.environ["EMAIL_URL"] = url
    try:
        made = runpy.run_path(str(project.__file__))
    finally:
        os.environ.clear()
        os.environ |= before
    for name in NAMES:
        if name in made:
            setattr(settings, name, made[name])


@contextlib.contextmanager
def worker(log: Path, *arguments: str, **variables: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a worker as an operator starts it, until SIGTERM at the end, which it obeys."""
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "DATABASE_URL": database_url(),
        **variables,
    }
    command = [sys.executable, "manage.py", "mailworker", *arguments]
    with log.open("a") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=70)
    lines = log.read_text()
    assert process.returncode in {0, -signal.SIGKILL}, lines
    if not variables.get("EMAIL_URL", "filemail").startswith("filemail"):
        from conftest import find_secrets, find_tickets  # require settings

        assert not find_secrets(lines) + find_tickets(lines)


class MailServer:
    """Accepts emails and keeps them, unless `replies` has another reply for the recipient."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"smtp://127.0.0.1:{self.port}"
        self.received: list[EmailMessage] = []
        self.replies: dict[str, str] = {}
        self.data_reply = "250 OK"
        self.delay = 0.0
        self.connections = 0
        self.arrival = threading.Condition()

    async def handle_EHLO(  # noqa: N802 - the names are aiosmtpd's.
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, lines: list[str]
    ) -> list[str]:
        session.host_name = hostname
        self.connections += 1
        return lines

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: Any
    ) -> str:
        reply = self.replies.get(address, "250 OK")
        if reply.startswith("250"):
            envelope.rcpt_tos.append(address)
        return reply

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        await asyncio.sleep(self.delay)
        if self.data_reply.startswith("250"):
            content = envelope.original_content or b""
            with self.arrival:
                self.received.append(email.message_from_bytes(content, policy=policy.default))
                self.arrival.notify_all()
        return self.data_reply

    def wait_for(self, count: int, *, seconds: float) -> bool:
        with self.arrival:
            return self.arrival.wait_for(lambda: len(self.received) >= count, seconds)

    @property
    def recipients(self) -> list[str]:
        return [str(message["To"]) for message in self.received]

    def start(self) -> None:
        self.controller = Controller(self, hostname="127.0.0.1", port=self.port)
        self.controller.start()

    def stop(self) -> None:
        self.controller.stop()

    def __enter__(self) -> "MailServer":
        self.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.stop()
