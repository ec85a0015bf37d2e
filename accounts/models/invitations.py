"""Invitations: `invite` tickets that staff send to addresses without an account."""

from typing import TYPE_CHECKING, ClassVar

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts.models.addresses import EMAIL_TAKEN
from accounts.models.events import Event, event_context
from accounts.models.outbox import OutgoingEmail
from accounts.models.tickets import Ticket, TicketQuerySet, lifetime, lock_address

if TYPE_CHECKING:
    from accounts.models import User

DISABLED = _("Email is disabled (EMAIL_URL=none), so nobody can be invited.")
HELD_BACK = _("EMAIL_LIMIT is reached for invitations to this address. Try again later.")


class InvitationManager(models.Manager.from_queryset(TicketQuerySet)):  # type: ignore[misc]  # stubs
    def get_queryset(self) -> TicketQuerySet:
        tickets: TicketQuerySet = super().get_queryset()
        # The index of tickets by user and purpose serves both conditions.
        return tickets.filter(user=None, purpose=Ticket.Purpose.INVITE)

    @transaction.atomic
    def send(self, address: str) -> "Invitation":
        """
        Send an invitation, which works for seven days, and record it without the address.

        One that was sent before keeps working. Raises ValidationError if the address is invalid or
        taken, email is disabled, or EMAIL_LIMIT is reached by invitations to this address.
        """
        users: type[User] = get_user_model()
        address = users._meta.get_field("email").clean(address, None)
        if not settings.EMAIL_ENABLED:
            raise ValidationError(DISABLED, code="disabled")
        lock_address(address)
        if users.objects.with_identity(address) or Ticket.objects.reserves(address):
            raise ValidationError(EMAIL_TAKEN, code="unique")
        email = OutgoingEmail.objects.enqueue(
            OutgoingEmail.Kind.INVITATION, address=address, by=event_context()["actor"]
        )
        if email is None:
            raise ValidationError(HELD_BACK, code="held_back")
        Event.objects.record(Event.Kind.INVITED, None)
        invitation: Invitation = self.get(emails=email)
        return invitation


class Invitation(Ticket):
    objects: ClassVar[InvitationManager] = InvitationManager()

    class Meta:
        proxy = True
        default_permissions = ()  # It belongs to `accounts.add_user`.

    @property
    def by(self) -> str:
        """The username of the staff member who sent it."""
        return str(self.data["by"])

    @property
    def state(self) -> str:
        """Pending, accepted, expired, or ended earlier."""
        if self.used_at:
            return "accepted"
        if self.expires_at > timezone.now():
            return "pending"
        return "ended" if self.lifetime < lifetime(self.purpose) else "expired"

    @transaction.atomic
    def withdraw(self) -> int:
        """
        End every open invitation to this address and return their number.

        The address may have been invited more than once, and each link would create the account.
        """
        lock_address(self.address)
        number: int = Invitation.objects.with_address(self.address).end()
        if number:
            Event.objects.record(Event.Kind.INVITED, None, detail="withdrawn")
        return number
