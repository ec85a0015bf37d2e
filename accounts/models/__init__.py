from accounts.models.events import Event
from accounts.models.sessions import (
    PasswordChangeRequiredError,
    Session,
    SessionError,
    SessionQuerySet,
)
from accounts.models.users import PasswordUnchangedError, StaleLoginError, User, UserQuerySet

__all__ = [
    "Event",
    "PasswordChangeRequiredError",
    "PasswordUnchangedError",
    "Session",
    "SessionError",
    "SessionQuerySet",
    "StaleLoginError",
    "User",
    "UserQuerySet",
]
