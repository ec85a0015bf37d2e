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

    def record(self, user: "User") -> None:
        Event.objects.record_rejection(user, self.reason)


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
        with suppress(DatabaseError):
            if isinstance(error, RejectedError):
                error.record(user)
            else:
                Event.objects.record_rejection(user, "not completed")
        raise
    user.clear_failures()
