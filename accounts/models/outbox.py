"""
The outbox: emails that are to be sent, each a row written in the transaction that it reports.

A rollback removes the row with what it reports. `manage.py mailworker` sends: it claims a row with
one UPDATE and marks it sent with a second. After a crash or a failure the row is due again.
"""

import contextlib
import uuid
from collections.abc import Collection
from datetime import timedelta
from typing import TYPE_CHECKING

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import models, transaction
from django.db.models.functions import Lower, Now

from accounts.counting import count, network_of
from accounts.models.email_kinds import LIMITED, PURPOSES, Kind, may_receive, purpose_of
from accounts.models.events import Event
from accounts.models.tickets import Ticket, TicketError, lock_active, lock_address

if TYPE_CHECKING:
    from accounts.models import User

ATTEMPTS = 12
DAY = timedelta(days=1)
HOUR = 3600
# Rows with an entered identity that one client network may cause in an hour.
ENTERED_BY_A_NETWORK = 20

CLAIM = """
    UPDATE accounts_outgoingemail
       SET attempts = attempts + 1,
           due_at = statement_timestamp()
                    + LEAST(interval '1 minute' * 2 ^ attempts, interval '4 hours')
     WHERE id = (SELECT id FROM accounts_outgoingemail
                  WHERE sent_at IS NULL AND failed_at IS NULL AND due_at <= statement_timestamp()
                  ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
 RETURNING *
"""


class NoRecipientError(Exception):
    """No email is to be sent for what was entered."""


class OutgoingEmailQuerySet(models.QuerySet["OutgoingEmail"]):
    def waiting(self) -> "OutgoingEmailQuerySet":
        return self.filter(sent_at=None, failed_at=None)

    def due(self) -> "OutgoingEmailQuerySet":
        return self.waiting().filter(due_at__lte=Now())

    def late(self) -> "OutgoingEmailQuerySet":
        """Select the emails that were not sent at the last attempt and wait for the next one."""
        return self.waiting().exclude(error="")

    def failed(self) -> "OutgoingEmailQuerySet":
        return self.filter(failed_at__isnull=False)

    def with_address(self, address: str) -> "OutgoingEmailQuerySet":
        folded: object = Lower(models.Value(address))
        return self.alias(folded=Lower("address")).filter(folded=folded)

    def is_limited(self, address: str, kinds: Collection[str]) -> bool:
        """
        Tell whether EMAIL_LIMIT is reached for a recipient, over all of these kinds.

        The caller's transaction holds the address or the user: of two at once one is counted first.
        """
        quota, window = settings.EMAIL_LIMIT
        recent = Now() - timedelta(seconds=window)
        counted = self.filter(
            models.Q(sent_at=None, failed_at=None)
            | models.Q(sent_at__gt=recent)
            | models.Q(failed_at__gt=recent),
            kind__in=kinds,
        )
        return counted.with_address(address).count() >= quota

    def enqueue(
        self,
        kind: str,
        user: "User | None" = None,
        *,
        address: str = "",
        event: Event | None = None,
        with_undo: bool = False,
        **data: object,
    ) -> "OutgoingEmail | None":
        """
        Write an email and the ticket that it carries, or return None where none is to be sent.

        It goes to `address`, or else to the user's. A notice needs the user's address to be
        verified, unless its kind is exempt. `data` is kept with the ticket.
        """
        if not settings.EMAIL_ENABLED:
            return None
        if not may_receive(kind, user):
            return None
        address = address or user.email  # type: ignore[union-attr]
        purpose = purpose_of(kind, with_undo=with_undo)
        with transaction.atomic(), contextlib.suppress(TicketError):
            if purpose and user:
                lock_active(user.pk)  # Always before the address: the other order would deadlock.
            if self.is_held_back(kind, user, address):
                return None
            ticket = (
                Ticket.objects.issue(purpose, user, address=address, **data) if purpose else None
            )
            if kind == OutgoingEmail.Kind.ACCOUNT_DELETED:
                user = None  # The row must outlive the user.
            return self.create(kind=kind, user=user, address=address, ticket=ticket, event=event)
        return None

    def is_held_back(self, kind: str, user: "User | None", address: str) -> bool:
        """Tell whether a limit on emails to this recipient is reached; hold the address."""
        if kind in LIMITED:
            lock_address(address)
            return self.is_limited(address, LIMITED)
        if kind == OutgoingEmail.Kind.EMAIL_CHANGE_ASKED:
            # Anybody can register with a stranger's address and cause these. For a verified address
            # there is no limit: a thief could use it up, and the owner would not get this notice.
            return not (user and user.email_verified) and self.is_limited(address, {kind})
        if kind in {OutgoingEmail.Kind.EMAIL_CHANGED, OutgoingEmail.Kind.INVITATION}:
            # Each by itself: strangers could use up a shared limit, and hold an invitation back.
            return self.is_limited(address, {kind})
        if kind == OutgoingEmail.Kind.LOGIN_FAILURES:
            lock_address(address)
            return self.filter(kind=kind, user=user, created_at__gt=Now() - DAY).exists()
        return False

    def enqueue_entered(
        self, kind: str, identity: str, *, client_address: str, event: Event | None = None
    ) -> None:
        """
        Write a row with an identity as a stranger entered it; the worker looks the account up.

        It runs the same statements for every identity. Above the hourly number for the client's
        network nothing is written.
        """
        if not settings.EMAIL_ENABLED:
            return
        # A lockout has a bound of its own: an attacker could use up the other one first.
        name = "lockouts" if kind == OutgoingEmail.Kind.LOGIN_FAILURES else "emails"
        if count(f"{name}:{network_of(client_address)}", HOUR) <= ENTERED_BY_A_NETWORK:
            self.create(kind=kind, identity=identity, event=event)

    def claim(self) -> "OutgoingEmail | None":
        """Return the next due email, which is due again after 1, 2, 4 … minutes, at most 4 h."""
        return next(iter(self.raw(CLAIM)), None)

    def retry(self) -> int:
        """Make the emails that failed or wait due now, and reset their attempts."""
        return self.filter(sent_at=None).update(attempts=0, due_at=Now(), failed_at=None, error="")

    def older(self, age: timedelta) -> "OutgoingEmailQuerySet":
        return self.filter(created_at__lt=Now() - age)


class OutgoingEmail(models.Model):
    """
    One email: its kind, its recipient and what it reports; neither its text nor its token.

    `identity` is what a stranger entered and may be a password: it is never logged or shown, and
    the worker clears it when it looks the account up.
    """

    Kind = Kind

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=32, choices=Kind, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,  # The row counts for EMAIL_LIMIT after the account is deleted.
        null=True,
        related_name="emails",
        db_index=False,
        editable=False,
    )
    identity = models.CharField(max_length=254, blank=True, editable=False)
    address = models.EmailField(blank=True, editable=False)
    ticket = models.ForeignKey(
        Ticket, models.SET_NULL, null=True, related_name="emails", editable=False
    )
    event = models.ForeignKey(Event, models.SET_NULL, null=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    due_at = models.DateTimeField(db_default=Now(), editable=False)
    attempts = models.PositiveSmallIntegerField(db_default=0, default=0, editable=False)
    sent_at = models.DateTimeField(null=True, editable=False)
    failed_at = models.DateTimeField(null=True, editable=False)
    error = models.CharField(max_length=200, blank=True, editable=False)

    objects = OutgoingEmailQuerySet.as_manager()

    class Meta:
        verbose_name = "email"
        indexes = [
            models.Index(
                fields=["due_at"],
                condition=models.Q(sent_at=None, failed_at=None),
                name="accounts_email_due_at",
            ),
            models.Index(Lower("address"), name="accounts_email_address"),
            models.Index(fields=["user", "-created_at"], name="accounts_email_of_user"),
            models.Index(fields=["created_at"], name="accounts_email_created_at"),
            models.Index(
                fields=["failed_at"],
                condition=models.Q(failed_at__isnull=False),
                name="accounts_email_failed_at",
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(models.Q(identity=""), ~models.Q(address=""))
                | models.Q(~models.Q(identity=""), address=""),
                name="accounts_email_has_recipient",
            ),
            models.CheckConstraint(
                condition=models.Q(sent_at=None) | models.Q(failed_at=None),
                name="accounts_email_sent_or_failed",
            ),
        ]

    def __str__(self) -> str:
        return str(self.get_kind_display())  # The recipient may be what a stranger entered.

    @property
    def is_to_stranger(self) -> bool:
        """Tell whether the recipient is what a stranger entered, which may be a password."""
        return self.user_id is None and self.kind != self.Kind.INVITATION

    @property
    def is_pointless(self) -> bool:
        """Tell whether the link that the email is about has been used or has expired."""
        return self.kind in PURPOSES and not Ticket.objects.open().filter(emails=self).exists()

    def resolve(self) -> bool:
        """
        Look up the account of the entered identity and keep its address instead.

        Deletes the row and returns False if there is no active account, or if its address has
        reached EMAIL_LIMIT.
        """
        try:
            with transaction.atomic():
                self.set_recipient()
        except (NoRecipientError, TicketError):
            self.delete()
            return False
        return True

    def set_recipient(self) -> None:
        self.kind, self.user, self.address = self.recipient()
        if not may_receive(self.kind, self.user):
            raise NoRecipientError
        if self.user:
            lock_active(self.user.pk)
        if OutgoingEmail.objects.is_held_back(self.kind, self.user, self.address):
            raise NoRecipientError
        if purpose := purpose_of(self.kind):
            self.ticket = Ticket.objects.issue(purpose, self.user, address=self.address)
        self.identity = ""
        self.save(update_fields=["kind", "user", "identity", "address", "ticket"])
        if self.kind == OutgoingEmail.Kind.RESET_PASSWORD:
            Event.objects.record(Event.Kind.PASSWORD_RESET_ASKED, self.user)

    def recipient(self) -> "tuple[str, User | None, str]":
        """Return the kind, the account and the address for the entered identity, or raise."""
        user = get_user_model().objects.with_identity(self.identity)
        if self.kind != OutgoingEmail.Kind.REGISTRATION:
            if user is None:
                raise NoRecipientError
            return self.kind, user, user.email
        if user is not None:
            return OutgoingEmail.Kind.ALREADY_REGISTERED, user, user.email
        if Ticket.objects.reserves(self.identity):
            return OutgoingEmail.Kind.ALREADY_REGISTERED, None, self.identity
        return self.kind, None, self.identity

    def mark_sent(self) -> None:
        row = OutgoingEmail.objects.filter(pk=self.pk)
        row.update(sent_at=Now(), failed_at=None, error="")

    def fail(self, error: str) -> None:
        """Set the email aside for good, and record that it was not delivered."""
        with transaction.atomic():
            row = OutgoingEmail.objects.filter(pk=self.pk, sent_at=None, failed_at=None)
            if row.update(failed_at=Now(), error=error):
                Event.objects.record(Event.Kind.MAIL_FAILED, self.user, detail=self.kind)

    def defer(self, error: str) -> None:
        """Leave the email for its next attempt, or fail it after the last."""
        if self.attempts >= ATTEMPTS:
            self.fail(error)
        else:
            OutgoingEmail.objects.filter(pk=self.pk).update(error=error)
