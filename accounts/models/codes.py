"""Codes of second factors, as proofs of an account."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models import F, FilteredRelation

from accounts.models.access import RejectedError
from accounts.models.proofs import MFA, Proof
from accounts.models.tickets import Ticket

if TYPE_CHECKING:
    from accounts.models import User


class WrongCodeError(RejectedError):
    """The code is wrong, was used before, or is malformed."""

    reason = "wrong code"


@dataclass(frozen=True, kw_only=True)
class Code(Proof):
    """The password, and a code of a factor, which is used up together with the ticket."""

    methods: tuple[str, ...] = ("pwd", "otp", MFA)
    code: str
    ticket: Ticket | None = None

    def columns(self) -> dict[str, Any]:
        is_confirmed = models.Q(totp_devices__confirmed_at__isnull=False)
        return {
            "device": FilteredRelation("totp_devices", condition=is_confirmed),
            "totp_id": F("device__id"),
            "totp_secret": F("device__secret"),
            "totp_confirmed_at": F("device__confirmed_at"),
        }

    def use(self, user: "User") -> Proof:
        """Raises WrongCodeError, and TicketError where the ticket has ended meanwhile."""
        added_at = user.use_code(self.code)
        if self.ticket:
            self.ticket.use_locked()
        return Proof(self.methods, added_at)
