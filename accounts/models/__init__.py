from accounts.models.events import Event
from accounts.models.sessions import Session, SessionError, SessionQuerySet
from accounts.models.users import StaleLoginError, User

__all__ = [
    "Event",
    "Session",
    "SessionError",
    "SessionQuerySet",
    "StaleLoginError",
    "User",
]
