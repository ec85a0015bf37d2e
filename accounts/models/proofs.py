"""How the caller has proven the account, and what a user with a second factor must prove."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.utils import timezone

from accounts.models.access import RejectedError

if TYPE_CHECKING:
    from accounts.models import User

MFA = "mfa"


class SecondFactorRequiredError(RejectedError):
    """The user has a second factor, which was not proven."""

    reason = "second factor required"


@dataclass(frozen=True)
class Proof:
    """
    What was proven: the values of `amr` (RFC 8176), and when the factor was added that was used.

    A subclass may prove something only when it is used.
    """

    methods: tuple[str, ...]
    factor_added_at: datetime | None = None

    @property
    def has_second_factor(self) -> bool:
        return MFA in self.methods

    @property
    def outranks_mailbox(self) -> bool:
        """
        Tell whether a factor older than UNDO_DAYS was used.

        A younger one may be a thief's, whose acts the owner of the mailbox can undo.
        """
        added_at = self.factor_added_at
        return added_at is not None and added_at < timezone.now() - settings.UNDO_LIFETIME

    def columns(self) -> dict[str, Any]:
        """Return what `use` needs of the user, as expressions for the query that locks the row."""
        return {}

    def use(self, user: "User") -> "Proof":
        """
        Return what is proven of a user whose row is locked, in the transaction of its effect.

        Raises SecondFactorRequiredError where the user has a factor that it lacks.
        """
        if user.has_second_factor and not self.has_second_factor:
            raise SecondFactorRequiredError
        return self


PASSWORD = Proof(("pwd",))
