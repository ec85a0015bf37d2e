"""The email address of a user: how it is verified and changed, and who may take it."""

from collections.abc import Collection
from typing import TYPE_CHECKING, cast

from django.core.exceptions import ValidationError
from django.db import IntegrityError, models, transaction
from django.utils.translation import gettext_lazy as _

from accounts.identities import LONGEST_EMAIL, EmailAddressField
from accounts.models.changes import ChangesModel
from accounts.models.credentials import StaleLoginError
from accounts.models.events import Event
from accounts.models.outbox import OutgoingEmail
from accounts.models.sessions import Session
from accounts.models.tickets import Ticket, TicketError, lock_active

if TYPE_CHECKING:
    from accounts.models import SessionQuerySet, User

EMAIL_TAKEN = _("A user with this e-mail address already exists.")


class AddressReservedError(IntegrityError):
    """Another user had this address, and an undo link can restore it."""


class EmailNotVerifiedError(Exception):
    """An account whose address is not verified can add no factor, passkey or API token."""


class AddressModel(ChangesModel):
    email = EmailAddressField(max_length=LONGEST_EMAIL)
    email_verified_at = models.DateTimeField(null=True, editable=False)

    if TYPE_CHECKING:
        sessions: SessionQuerySet

    class Meta:
        abstract = True

    @property
    def email_verified(self) -> bool:
        return self.email_verified_at is not None

    @property
    def pending_email(self) -> str | None:
        """The address that the user asked to change to and has not confirmed yet."""
        changes = Ticket.objects.open().filter(user=self.pk, purpose=Ticket.Purpose.CHANGE)
        address: str | None = changes.values_list("address", flat=True).first()
        return address

    @property
    def email_is_reserved(self) -> bool:
        """Tell whether an undo link can restore this address to another user."""
        return Ticket.objects.reserves(self.email, except_for=self.pk)

    def validate_constraints(self, exclude: Collection[str] | None = None) -> None:
        super().validate_constraints(exclude)
        if "email" not in (exclude or ()) and self.email_is_reserved:
            raise ValidationError({"email": ValidationError(EMAIL_TAKEN, code="unique")})

    def request_email_verification(self) -> None:
        """Send a `verify` ticket to the user's address, unless it is verified."""
        if not self.email_verified:
            OutgoingEmail.objects.enqueue(OutgoingEmail.Kind.VERIFY_EMAIL, cast("User", self))

    @transaction.atomic
    def request_email_change(self, address: str, *, session: Session | None = None) -> None:
        """
        Send a notice to the present address and a `change` ticket to the new one.

        If the new address has an account, its owner gets a notice, and nobody the ticket. The
        change can be undone, unless the session was signed in with a factor that outranks the
        mailbox. Raises TicketError where the user was deactivated or deleted meanwhile.
        """
        can_undo = not (session and session.outranks_mailbox)
        user, kinds, emails = cast("User", self), OutgoingEmail.Kind, OutgoingEmail.objects
        lock_active(user.pk)
        event = Event.objects.record(Event.Kind.EMAIL_CHANGE_ASKED, user)
        emails.enqueue(kinds.EMAIL_CHANGE_ASKED, user, event=event)
        owner = type(user).objects.with_identity(address)
        if owner or Ticket.objects.reserves(address, except_for=user.pk):
            # As the owner wrote it: the letter case of the local part may matter to its server.
            recipient = owner.email if owner else address
            emails.enqueue(kinds.ALREADY_REGISTERED, owner, address=recipient)
            is_sent = False
        else:
            email = emails.enqueue(kinds.CONFIRM_EMAIL, user, address=address, can_undo=can_undo)
            is_sent = email is not None
        if not is_sent:  # `pending_email` would tell whether the address has an account.
            Ticket.objects.issue(Ticket.Purpose.CHANGE, user, address=address, can_undo=can_undo)

    @transaction.atomic
    def confirm_email(self, ticket: Ticket, *, session: Session) -> None:
        """
        Verify the address with a `verify` ticket, or change it with a `change` ticket.

        A change ends the user's other sessions. Raises TicketError where the ticket has ended
        meanwhile, StaleLoginError where the session has, and IntegrityError where another user has
        taken the address.
        """
        ticket.use()
        self.refresh_from_db()
        if not self.sessions.active().filter(pk=session.pk).exists():
            raise StaleLoginError
        self.take_address(ticket)
        cast("User", self).save(keep=session, ticket=ticket)

    def take_address(self, ticket: Ticket) -> None:
        """
        Set the address that a used ticket proves; it is verified.

        A ticket to verify, or to reset the password, was meant for the address of its time, which
        may have changed before the ticket was issued. Raises TicketError in this case.
        """
        if ticket.address != self.email:
            if ticket.purpose not in {Ticket.Purpose.CHANGE, Ticket.Purpose.UNDO}:
                raise TicketError
            self.email, self.email_verified_at = ticket.address, None
        if not self.email_verified:
            self.email_verified_at = ticket.used_at

    def announce_email_change(self, former: str, event: Event, ticket: Ticket | None) -> None:
        """
        Send a notice to both addresses; the former one's can undo the change.

        `ticket` is what permitted the change, if it was not made by staff.
        """
        user, kind = cast("User", self), OutgoingEmail.Kind.EMAIL_CHANGED
        emails, since = OutgoingEmail.objects, (ticket or event).created_at.isoformat()
        can_undo = ticket.data.get("can_undo", True) if ticket else True
        emails.enqueue(kind, user, address=former, event=event, with_undo=can_undo, since=since)
        if ticket:
            emails.enqueue(kind, user, event=event)
        else:
            self.request_email_verification()
