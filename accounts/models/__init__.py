from accounts.models.events import Event
from accounts.models.outbox import OutgoingEmail
from accounts.models.sessions import (
    PasswordChangeRequiredError,
    Session,
    SessionError,
    SessionQuerySet,
)
from accounts.models.tickets import Ticket, TicketError
from accounts.models.users import PasswordUnchangedError, StaleLoginError, User, UserQuerySet

__all__ = [
    "Event",
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
