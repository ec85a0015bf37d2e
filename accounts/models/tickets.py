"""
Tickets: permission to do one thing once, sent in an email, a challenge or a response.

A ticket is a row. Its token is derived from the row's id and SECRET and is stored nowhere, so a
stolen database opens nothing. All times are those of the database.
"""

import base64
import uuid
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection, models, transaction
from django.db.models.functions import Least, Lower, Now
from django.utils.crypto import constant_time_compare, salted_hmac

if TYPE_CHECKING:
    from accounts.models import User

TOKEN_LENGTH = 43  # base64url of 32 bytes, without padding
SIGNATURE_LENGTH = 16
KEPT_AFTER_END = timedelta(days=1)


class TicketError(Exception):
    """The token belongs to no ticket that can be used here; it does not say why."""


def sign(purpose: str, ticket_id: uuid.UUID, secret: str) -> bytes:
    message = purpose.encode() + ticket_id.bytes
    mac = salted_hmac("accounts.ticket", message, secret=secret, algorithm="sha256")
    return mac.digest()[:SIGNATURE_LENGTH]


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def read_token(token: object, purposes: Iterable[str]) -> tuple[str, uuid.UUID]:
    """
    Return the purpose and the id of a token that was signed for one of these purposes.

    Raises TicketError for anything else, before any query: strangers may send what they like.
    """
    if not isinstance(token, str) or len(token) != TOKEN_LENGTH:
        raise TicketError
    try:
        data = base64.urlsafe_b64decode(f"{token}=")
    except ValueError as error:
        raise TicketError from error
    if encode(data) != token:  # The decoder skips characters outside its alphabet.
        raise TicketError
    ticket_id, signature = uuid.UUID(bytes=data[:16]), data[16:]
    secrets = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    for purpose in purposes:
        if any(constant_time_compare(signature, sign(purpose, ticket_id, s)) for s in secrets):
            return purpose, ticket_id
    raise TicketError


def lock_address(address: str) -> None:
    """Serialize transactions about an address, whether or not it has an account."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(lower(%s), 0))", [address])


def lock_active(user_id: int) -> None:
    """Lock the row of an active user, which orders concurrent changes; raises TicketError."""
    users = get_user_model().objects.select_for_update(no_key=True)
    if not users.filter(pk=user_id, is_active=True).exists():
        raise TicketError


class TicketQuerySet(models.QuerySet["Ticket"]):
    def open(self) -> "TicketQuerySet":
        return self.filter(used_at=None, expires_at__gt=Now())

    def ended(self, since: timedelta) -> "TicketQuerySet":
        """Select the tickets that were used, or expired, longer ago than `since`."""
        ended_at = Least("used_at", "expires_at")
        return self.alias(ended_at=ended_at).filter(ended_at__lt=Now() - since)

    def with_address(self, address: str) -> "TicketQuerySet":
        """Select by address, in any letter case; the database folds the case."""
        folded: Any = Lower(models.Value(address))
        return self.alias(folded=Lower("address")).filter(folded=folded)

    def reserves(self, address: str, *, except_for: int | None = None) -> bool:
        """
        Tell whether an undo can restore this address, so that no user but `except_for` may take it.

        Call it in the transaction that takes the address and after the write: the unique index has
        then ordered the two changes.
        """
        undos = self.open().filter(purpose=Ticket.Purpose.UNDO).with_address(address)
        return (undos.exclude(user=except_for) if except_for else undos).exists()

    def issue(
        self, purpose: str, user: "User | None" = None, *, address: str = "", **data: Any
    ) -> "Ticket":
        """
        Return a new ticket; a `change` ends the user's older ones.

        Raises TicketError where the user is not active: deactivation has ended all tickets, and
        none may appear behind it.
        """
        with transaction.atomic():
            if user is not None:
                lock_active(user.pk)
            if purpose == Ticket.Purpose.CHANGE:
                self.filter(user=user, purpose=purpose).end()
            expires_at: Any = Now() + lifetime(purpose)
            ticket = self.create(
                purpose=purpose, user=user, address=address, data=data, expires_at=expires_at
            )
            ticket.refresh_from_db(fields=["created_at", "expires_at"])
        return ticket

    def find(self, token: object, *purposes: str, user: "User | None" = None) -> "Ticket":
        """Return the open ticket of a token, only this user's if one is given, or raise."""
        purpose, ticket_id = read_token(token, purposes)
        tickets = self.open().filter(pk=ticket_id, purpose=purpose)
        if user is not None:
            tickets = tickets.filter(user=user)
        ticket = tickets.select_related("user").first()
        if ticket is None:
            raise TicketError
        return ticket

    def end(self) -> int:
        """End the open tickets among these and return how many."""
        return self.open().update(expires_at=Now())

    def end_all_of(self, user: "User") -> int:
        """End every ticket of a user who is deactivated."""
        return self.filter(user=user).end()

    def end_after_password_change(self, user: "User") -> int:
        purposes = [Ticket.Purpose.RESET, Ticket.Purpose.FORCE, Ticket.Purpose.MFA]
        return self.filter(user=user, purpose__in=purposes).end()

    def end_after_address_change(self, user: "User") -> int:
        """End all but the undos: a thief could otherwise end the owner's undo by a change."""
        return self.filter(user=user).exclude(purpose=Ticket.Purpose.UNDO).end()

    def end_after_factor_change(self, user: "User") -> int:
        return self.filter(user=user, purpose=Ticket.Purpose.MFA).end()


# The clock is read again when the UPDATE has waited for another one: a ticket that the other one
# ended meanwhile is then rejected.
USE = """
    UPDATE accounts_ticket SET used_at = clock_timestamp()
     WHERE id = %s AND used_at IS NULL AND expires_at > clock_timestamp()
 RETURNING used_at
"""


class Ticket(models.Model):
    class Purpose(models.TextChoices):
        VERIFY = "verify", "verify the address"
        CHANGE = "change", "change the address"
        RESET = "reset", "reset the password"
        UNDO = "undo", "undo a change"
        REGISTER = "register", "register"
        INVITE = "invite", "accept an invitation"
        FORCE = "force", "replace a password that must be changed"
        MFA = "mfa", "complete a sign-in"
        PASSKEY = "passkey", "complete a passkey challenge"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    purpose = models.CharField(max_length=16, choices=Purpose, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.CASCADE,
        null=True,
        related_name="tickets",
        db_index=False,
        editable=False,
    )
    address = models.EmailField(blank=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(editable=False)
    used_at = models.DateTimeField(null=True, editable=False)
    # Of an `mfa` ticket: the codes and credentials that were tried with it.
    tries = models.PositiveSmallIntegerField(default=0, db_default=0, editable=False)
    data = models.JSONField(default=dict, editable=False)

    objects = TicketQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["user", "purpose"], name="accounts_ticket_of_user"),
            models.Index(
                Lower("address"),
                condition=models.Q(purpose__in=["undo", "register", "invite"]),
                name="accounts_ticket_of_address",
            ),
            models.Index(Least("used_at", "expires_at"), name="accounts_ticket_ended_at"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(user__isnull=False)
                | models.Q(purpose__in=["register", "invite", "passkey"]),
                name="accounts_ticket_has_user",
            ),
            models.CheckConstraint(
                condition=~models.Q(address="") | models.Q(purpose__in=["force", "mfa", "passkey"]),
                name="accounts_ticket_has_address",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_purpose_display()}: {self.user or self.address}"

    @property
    def token(self) -> str:
        """The same string each time, so that an email that is sent again carries the same link."""
        return encode(self.pk.bytes + sign(self.purpose, self.pk, settings.SECRET_KEY))

    @property
    def lifetime(self) -> timedelta:
        return self.expires_at - self.created_at

    def use(self) -> None:
        """
        Use the ticket, in the transaction of its effect, and end the tickets that this ends.

        Of several uses at once one succeeds. The user's row is locked first, so of two changes of
        one account the second finds its ticket ended. Raises TicketError.
        """
        with transaction.atomic():
            if self.user_id is not None:
                lock_active(self.user_id)
            elif self.address:
                lock_address(self.address)
            self.use_locked()
            self.superseded().end()

    def use_locked(self) -> None:
        """Use the ticket, while what it is about is locked; raises TicketError."""
        with connection.cursor() as cursor:
            cursor.execute(USE, [self.pk])
            row = cursor.fetchone()
        if row is None:
            raise TicketError
        self.used_at = row[0]

    def superseded(self) -> TicketQuerySet:
        """Select the tickets that the use of this one ends."""
        purposes, tickets = Ticket.Purpose, Ticket.objects.exclude(pk=self.pk)
        if self.purpose in {purposes.REGISTER, purposes.INVITE}:
            return tickets.filter(purpose=self.purpose).with_address(self.address)
        if self.purpose in {purposes.MFA, purposes.PASSKEY}:
            return tickets.none()
        tickets = tickets.filter(user=self.user_id)
        if self.purpose == purposes.VERIFY:
            return tickets.filter(purpose=self.purpose)
        if self.purpose == purposes.UNDO:
            # An older undo stays: a newer one, which a thief can cause, must not end it.
            newer = models.Q(created_at__gt=self.created_at)
            return tickets.filter(newer | ~models.Q(purpose=self.purpose))
        return tickets.exclude(purpose=purposes.UNDO)


def lifetime(purpose: str) -> timedelta:
    purposes = Ticket.Purpose
    return {
        purposes.VERIFY: timedelta(hours=24),
        purposes.CHANGE: timedelta(minutes=60),
        purposes.RESET: settings.RESET_LIFETIME,
        purposes.UNDO: settings.UNDO_LIFETIME,
        purposes.REGISTER: timedelta(minutes=60),
        purposes.INVITE: timedelta(days=7),
        purposes.FORCE: timedelta(minutes=10),
        purposes.MFA: timedelta(minutes=5),
        purposes.PASSKEY: timedelta(minutes=5),
    }[purposes(purpose)]
