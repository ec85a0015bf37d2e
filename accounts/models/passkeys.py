"""Passkeys: the credentials of WebAuthn that a user has added, and their ceremonies."""

import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.postgres.fields import ArrayField
from django.db import IntegrityError, models, transaction
from django.db.models.functions import Now
from prometheus_client import Counter

from accounts import webauthn
from accounts.models.access import RejectedError
from accounts.models.events import Event
from accounts.models.outbox import OutgoingEmail
from accounts.models.proofs import MFA, Proof
from accounts.models.tickets import Ticket, TicketError
from accounts.webauthn import CredentialError
from api.text import LineField

if TYPE_CHECKING:
    from accounts.models import Session, User

MAXIMUM = 20  # of one user
USES = Counter("latchkey_passkeys", "Passkeys that were presented, by outcome.", ["outcome"])
# `rate` and `increase` need a sample before the first event, so each series starts at zero.
for outcome in ("accepted", "refused", "cloned"):
    USES.labels(outcome)

# What a challenge is for: a credential for one ceremony completes no other one.
REGISTRATION, SIGN_IN, SECOND_FACTOR = "registration", "sign_in", "second_factor"


class WrongPasskeyError(RejectedError):
    """The credential does not prove the account, or its challenge was used or has expired."""

    reason = "wrong passkey"


class PasskeyClonedError(WrongPasskeyError):
    """The counter of a device-bound passkey did not grow: there is a copy of it."""

    def __init__(self, challenge: Ticket) -> None:
        super().__init__()
        self.challenge = challenge

    def record(self, user: "User") -> None:
        """Use up the challenge, which the rollback has opened again, and send one notice of it."""
        super().record(user)
        with suppress(TicketError), transaction.atomic():
            self.challenge.use_locked()
            event = Event.objects.record(Event.Kind.PASSKEY_CLONED, user)
            OutgoingEmail.objects.enqueue(OutgoingEmail.Kind.PASSKEY_CLONED, user, event=event)


class PasskeyLimitError(Exception):
    """The user has as many passkeys as allowed."""


class PasskeyQuerySet(models.QuerySet["Passkey"]):
    def described(self) -> list[tuple[bytes, list[str]]]:
        """Return the passkeys as the options for a browser describe them, the oldest first."""
        rows = self.order_by("created_at", "pk").values_list("credential_id", "transports")
        return [(bytes(credential_id), transports) for credential_id, transports in rows]

    @transaction.atomic
    def begin_registration(self, user: "User") -> dict[str, Any]:
        """
        Return the options with which a browser creates a passkey of this user.

        Raises PasskeyLimitError, and TicketError where the user is not active any more.
        """
        ticket = issue_challenge(REGISTRATION, user)
        passkeys = self.filter(user=user).described()
        if len(passkeys) >= MAXIMUM:
            raise PasskeyLimitError
        return webauthn.creation_options(
            ticket.token,
            handle=handle_of(user),
            name=user.username,
            display_name=user.names or user.username,
            passkeys=passkeys,
        )

    def register(
        self, user: "User", data: object, name: str, *, session: "Session | None"
    ) -> "Passkey":
        """
        Add the passkey that a browser created; it has `recovery_codes` if it is the first factor.

        Raises CredentialError, PasskeyLimitError, StaleLoginError and EmailNotVerifiedError.
        """
        credential = webauthn.read(data)
        try:
            challenge = find_challenge(credential, REGISTRATION, user)
            registered = webauthn.verify_registration(credential)
            with transaction.atomic():
                locked = user.lock_verified()
                challenge.use_locked()
                user.check_addition(locked, session)
                if self.filter(user=locked).count() >= MAXIMUM:
                    raise PasskeyLimitError
                passkey = self.create(user=locked, name=name, **vars(registered))
                passkey.recovery_codes = user.add_factor(locked, "passkey", session=session)
        except (TicketError, IntegrityError) as error:  # Another user has a passkey of this id.
            raise CredentialError from error
        passkey.refresh_from_db(fields=["created_at"])
        return passkey

    @transaction.atomic
    def remove(self, user: "User", passkey_id: uuid.UUID, *, session: "Session | None") -> bool:
        """Remove a passkey of this user, and return whether there was one."""
        locked = user.lock_to_change_factors(session)
        removed, _ = self.filter(pk=passkey_id, user=locked).delete()
        if removed:
            user.remove_factor(locked, "passkey", session=session)
        return bool(removed)


class Passkey(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.CASCADE,
        related_name="passkeys",
        db_index=False,
        editable=False,
    )
    name = LineField(max_length=50)
    credential_id = models.BinaryField(max_length=webauthn.LONGEST_ID, unique=True)
    public_key = models.BinaryField()
    sign_count = models.BigIntegerField()  # of 32 bits, without a sign
    synced = models.BooleanField()
    transports = ArrayField(models.CharField(max_length=16), default=list, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)

    objects = PasskeyQuerySet.as_manager()

    # Of the user, if this was just added as the first factor.
    recovery_codes: list[str] | None = None

    class Meta:
        indexes = [
            models.Index(fields=["user", "created_at", "id"], name="accounts_passkey_of_user")
        ]

    def __str__(self) -> str:
        return f"{self.name} of {self.user}"

    def verify(self, credential: webauthn.Credential) -> int:
        """Return the counter that a use of this passkey presents; raises CredentialError."""
        asserted = webauthn.verify_assertion(credential, bytes(self.public_key))
        if asserted.synced != self.synced:  # It never changes (WebAuthn, section 7.2).
            raise CredentialError
        return asserted.sign_count

    def use(self, challenge: Ticket, sign_count: int) -> None:
        """
        Record a use, while the row of the user is locked; raises TicketError, PasskeyClonedError.

        Synced passkeys do not count, or each device does by itself.
        """
        challenge.use_locked()
        grows = sign_count > self.sign_count or sign_count == self.sign_count == 0
        if not (self.synced or grows):
            raise PasskeyClonedError(challenge)
        uses = Passkey.objects.filter(pk=self.pk)
        uses.update(sign_count=sign_count, last_used_at=Now())


def issue_challenge(ceremony: str, user: "User | None" = None) -> Ticket:
    return Ticket.objects.issue(Ticket.Purpose.PASSKEY, user, ceremony=ceremony)


def find_challenge(
    credential: webauthn.Credential, ceremony: str, user: "User | None" = None
) -> Ticket:
    """Return the open ticket of a credential's challenge; raises TicketError."""
    ticket = Ticket.objects.find(credential.challenge, Ticket.Purpose.PASSKEY, user=user)
    if ticket.data != {"ceremony": ceremony}:
        raise TicketError
    return ticket


def handle_of(user: "User") -> uuid.UUID:
    """Return the user handle of WebAuthn, which says nothing about the user."""
    if user.passkey_handle is None:
        rows = get_user_model().objects.filter(pk=user.pk)
        rows.filter(passkey_handle=None).update(passkey_handle=uuid.uuid4())
        user.refresh_from_db(fields=["passkey_handle"])
    handle: uuid.UUID = user.passkey_handle  # type: ignore[assignment]  # set above
    return handle


def sign_in_options() -> dict[str, Any]:
    """Return the options with which a browser signs in with any passkey of this service."""
    return webauthn.request_options(issue_challenge(SIGN_IN).token)


def second_factor_options(user: "User") -> dict[str, Any]:
    """Return the options with which a browser proves a second factor of a user who has passkeys."""
    passkeys = Passkey.objects.filter(user=user).described()
    return webauthn.request_options(issue_challenge(SECOND_FACTOR, user).token, passkeys)


@dataclass(frozen=True, kw_only=True)
class PasskeyProof(Proof):
    """
    A credential of a passkey, which is verified and used up when the proof is used.

    By itself it proves two factors, because the authenticator has verified its user. As a second
    factor it comes with the ticket of a sign-in.
    """

    methods: tuple[str, ...] = ("pop", "user", MFA)
    data: object = None
    ticket: Ticket | None = None

    def use(self, user: "User") -> Proof:
        """Raises WrongPasskeyError, and TicketError where the sign-in's ticket has ended."""
        try:
            passkey = self.use_passkey(user)
        except PasskeyClonedError:
            USES.labels("cloned").inc()
            raise
        except (CredentialError, TicketError, Passkey.DoesNotExist) as error:
            USES.labels("refused").inc()
            raise WrongPasskeyError from error
        USES.labels("accepted").inc()
        if self.ticket is None:
            return Proof(self.methods, passkey.created_at)
        self.ticket.use_locked()
        return Proof(("pwd", *self.methods), passkey.created_at)

    def use_passkey(self, user: "User") -> Passkey:
        credential = webauthn.read(self.data)
        if self.ticket:
            challenge = find_challenge(credential, SECOND_FACTOR, user)
        else:
            challenge = find_challenge(credential, SIGN_IN)
        passkey = Passkey.objects.get(user=user, credential_id=credential.credential_id)
        if credential.user_handle not in {None, user.passkey_handle}:
            raise CredentialError
        sign_count = passkey.verify(credential)
        passkey.use(challenge, sign_count)
        return passkey
