from accounts.models.sessions import Session, SessionError, SessionQuerySet
from accounts.models.users import StaleLoginError, User, normalize, username_validator

__all__ = [
    "Session",
    "SessionError",
    "SessionQuerySet",
    "StaleLoginError",
    "User",
    "normalize",
    "username_validator",
]
