from accounts.models.access import PasswordChangeRequiredError
from accounts.models.addresses import AddressReservedError
from accounts.models.credentials import PasswordUnchangedError, StaleLoginError
from accounts.models.events import Event
from accounts.models.invitations import Invitation
from accounts.models.managers import UserQuerySet
from accounts.models.outbox import OutgoingEmail
from accounts.models.session_tokens import SessionError
from accounts.models.sessions import Session, SessionQuerySet
from accounts.models.tickets import Ticket, TicketError
from accounts.models.users import User

__all__ = [
    "AddressReservedError",
    "Event",
    "Invitation",
    "OutgoingEmail",
    "PasswordChangeRequiredError",
    "PasswordUnchangedError",
    "Session",
    "SessionError",
    "SessionQuerySet",
    "StaleLoginError",
    "Ticket",
    "TicketError",
    "User",
    "UserQuerySet",
]
