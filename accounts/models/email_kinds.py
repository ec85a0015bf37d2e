"""The kinds of emails: the ticket that each carries, who may receive it, and which are limited."""

from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models

from accounts.models.tickets import Ticket

if TYPE_CHECKING:
    from accounts.models import User


class Kind(models.TextChoices):
    VERIFY_EMAIL = "verify_email", "verify address"
    RESET_PASSWORD = "reset_password", "reset password"
    REGISTRATION = "registration", "registration"
    ALREADY_REGISTERED = "already_registered", "already registered"
    INVITATION = "invitation", "invitation"
    CONFIRM_EMAIL = "confirm_email", "confirm new address"
    EMAIL_CHANGE_ASKED = "email_change_asked", "change of address requested"
    EMAIL_CHANGED = "email_changed", "address changed"
    PASSWORD_CHANGED = "password_changed", "password changed"
    PASSWORD_RESET = "password_reset", "password reset"
    NEW_DEVICE = "new_device", "new device"
    TOKEN_REUSE = "token_reuse", "refresh token used twice"
    LOGIN_FAILURES = "login_failures", "failed sign-ins"
    FACTOR_ADDED = "factor_added", "second factor added"
    FACTOR_REMOVED = "factor_removed", "second factor removed"
    RECOVERY_CODE_USED = "recovery_code_used", "recovery code used"
    RECOVERY_CODES_REPLACED = "recovery_codes_replaced", "recovery codes replaced"
    FACTOR_RESET_BEGUN = "factor_reset_begun", "factor reset requested"
    PASSKEY_CLONED = "passkey_cloned", "copied passkey rejected"
    TOKEN_CREATED = "token_created", "API token created"
    ACCOUNT_DELETED = "account_deleted", "account deleted"


# Emails that carry a ticket in any case.
PURPOSES: dict[str, str] = {
    Kind.VERIFY_EMAIL: Ticket.Purpose.VERIFY,
    Kind.RESET_PASSWORD: Ticket.Purpose.RESET,
    Kind.REGISTRATION: Ticket.Purpose.REGISTER,
    Kind.INVITATION: Ticket.Purpose.INVITE,
    Kind.CONFIRM_EMAIL: Ticket.Purpose.CHANGE,
}
# The notices that may carry an undo link.
UNDOABLE = frozenset({Kind.EMAIL_CHANGED, Kind.FACTOR_ADDED, Kind.FACTOR_RESET_BEGUN})
# Emails that may go to an address that is not verified, or no longer.
UNVERIFIED = frozenset(
    {*PURPOSES, Kind.ALREADY_REGISTERED, Kind.EMAIL_CHANGE_ASKED, Kind.EMAIL_CHANGED}
)
# Emails that strangers can cause. CONFIRM_EMAIL needs an account, which anybody can register.
LIMITED = frozenset(
    {
        Kind.VERIFY_EMAIL,
        Kind.RESET_PASSWORD,
        Kind.REGISTRATION,
        Kind.ALREADY_REGISTERED,
        Kind.CONFIRM_EMAIL,
    }
)


def may_receive(kind: str, user: "User | None") -> bool:
    """Tell whether an email of this kind may go to this user: notices need a verified address."""
    return kind in UNVERIFIED or bool(user and user.email_verified)


def purpose_of(kind: str, *, with_undo: bool = False) -> str | None:
    """Return the purpose of the ticket that an email of this kind carries."""
    if with_undo and kind in UNDOABLE and settings.UNDO_LIFETIME:
        return Ticket.Purpose.UNDO
    return PURPOSES.get(kind)
