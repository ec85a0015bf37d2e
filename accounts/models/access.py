"""Access after a correct password, and why it is not granted."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from django.db import DatabaseError

from accounts.models.events import Event

if TYPE_CHECKING:
    from accounts.models import User


class RejectedError(Exception):
    """Access was not granted although the password was right."""

    reason: str


class PasswordChangeRequiredError(RejectedError):
    """The user must choose another password before signing in."""

    reason = "password change required"


@contextmanager
def granting_access(user: "User") -> Iterator[None]:
    """
    Grant access after a correct password, and clear the count of failures.

    If access is not granted, the rejection is recorded outside the transaction that was rolled
    back, and the count of failures is kept.
    """
    try:
        yield
    except Exception as error:
        reason = error.reason if isinstance(error, RejectedError) else "not completed"
        with suppress(DatabaseError):
            Event.objects.record_rejection(user, reason)
        raise
    user.clear_failures()
