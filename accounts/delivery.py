"""
The worker that sends the emails of the outbox, one at a time, at least once each.

Any number of workers may run. Each has one connection to the database, which has no open
transaction while the mail server is called.
"""

import contextlib
import logging
import os
import re
import smtplib
import threading
import time

from django.conf import settings
from django.core.mail.backends.base import BaseEmailBackend
from django.db import DatabaseError, InterfaceError, InternalError, OperationalError, connection

from accounts.emails import build, open_mailer
from accounts.identities import ENCODED_WORD
from accounts.models import OutgoingEmail
from accounts.models.outbox import ATTEMPTS

logger = logging.getLogger(__name__)

POLL = 1.0  # seconds between looks at an empty outbox
LONGEST_PAUSE = 30.0  # seconds between attempts to reach a database or a mail server
# InternalError: a database that takes no writes.
DATABASE_UNAVAILABLE = (OperationalError, InterfaceError, InternalError)


class Worker:
    """Sends due emails until `stop` is set or the process `parent` has ended."""

    def __init__(self, stop: threading.Event, parent: int | None = None) -> None:
        self.stop = stop
        self.parent = parent
        self.mailer: BaseEmailBackend | None = None
        self.pause = 0.0

    def run(self) -> None:
        while not self.is_stopping():
            try:
                if not self.deliver_next():
                    self.rest(POLL)
                self.pause = 0.0
            except (DatabaseError, InterfaceError) as error:
                self.wait_for_database(error)
            except OSError as error:
                self.back_off("The mail server is unavailable: %s", error)
        self.close()

    def is_stopping(self) -> bool:
        return self.stop.is_set() or bool(self.parent and os.getppid() != self.parent)

    def deliver_next(self) -> bool:
        """
        Send one due email, or return False where none is due.

        The mail server is reached before an email is claimed: while it is unavailable no email
        uses an attempt up, and all are sent as soon as it is back. Raises OSError.
        """
        if self.mailer is None:
            # With EMAIL_URL=none what is due waits; a backend that sends nothing would lose it.
            if not (settings.EMAIL_ENABLED and OutgoingEmail.objects.due().exists()):
                return False
            self.mailer = open_mailer()
        email = OutgoingEmail.objects.claim()
        if email is None:
            self.close()
            return False
        self.deliver(email)
        return True

    def deliver(self, email: OutgoingEmail) -> None:
        if email.attempts > ATTEMPTS:  # The worker of the last attempt did not live to say so.
            email.fail("no attempt left")
        elif email.identity and not email.resolve():
            return
        elif email.is_pointless:
            email.delete()
        elif ENCODED_WORD in email.address:  # Written by an earlier release.
            email.fail("invalid address")
        elif self.send(email):
            self.mark_sent(email)

    def send(self, email: OutgoingEmail) -> bool:
        """Send an email, or note why that failed; one that cannot be sent stops no other."""
        try:
            self.mailer.send_messages([build(email)])  # type: ignore[union-attr]
        except (DatabaseError, InterfaceError):
            raise
        except smtplib.SMTPRecipientsRefused as error:
            self.note_rejection(email, *next(iter(error.recipients.values())))
        except Exception as error:  # noqa: BLE001 - whatever it is, the next email may be fine.
            logger.warning("Email %s was not sent: %s", email.pk, describe(error))
            email.defer(describe(error))
            self.close()
        else:
            return True
        return False

    def note_rejection(self, email: OutgoingEmail, code: int, reply: bytes) -> None:
        text = one_line(f"{code} {reply.decode(errors='replace')}")
        logger.warning("Email %s was rejected for its recipient: %s", email.pk, code)
        (email.fail if code >= 500 else email.defer)(text)
        self.close()

    def mark_sent(self, email: OutgoingEmail) -> None:
        """Mark an email as sent, however long the database takes; it must not be sent again."""
        while True:
            try:
                email.mark_sent()
            except DATABASE_UNAVAILABLE as error:
                self.wait_for_database(error)
                if self.is_stopping():
                    raise
            else:
                return

    def wait_for_database(self, error: Exception) -> None:
        with contextlib.suppress(DatabaseError, InterfaceError):
            connection.close()
        self.back_off("The database is unavailable: %s", error)

    def back_off(self, message: str, error: Exception) -> None:
        self.close()
        if not self.pause:
            logger.warning(message, describe(error))
        self.pause = min(LONGEST_PAUSE, 2 * self.pause or 1.0)
        self.rest(self.pause)

    def rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.is_stopping() and time.monotonic() < until:
            self.stop.wait(POLL)

    def close(self) -> None:
        if self.mailer is not None:
            with contextlib.suppress(OSError):
                self.mailer.close()
            self.mailer = None


def empty_outbox() -> int:
    """Send all that is due and return how many emails were tried; raises OSError."""
    worker, count = Worker(threading.Event()), 0
    try:
        while worker.deliver_next():
            count += 1
    finally:
        worker.close()
    return count


def describe(error: Exception) -> str:
    """Say what went wrong in one line, without the text of the email."""
    return one_line(f"{type(error).__name__}: {error}")


def one_line(text: str) -> str:
    """Return the beginning of what a mail server said, as it can be stored and logged."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f]", " ", text[:200]).split())
