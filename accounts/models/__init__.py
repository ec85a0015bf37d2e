from accounts.models.access import PasswordChangeRequiredError
from accounts.models.addresses import AddressReservedError, EmailNotVerifiedError
from accounts.models.api_tokens import ApiToken, ApiTokenLimitError, ApiTokenQuerySet
from accounts.models.codes import WrongCodeError
from accounts.models.credentials import PasswordUnchangedError, StaleLoginError
from accounts.models.events import Event
from accounts.models.invitations import Invitation
from accounts.models.managers import UserQuerySet
from accounts.models.outbox import OutgoingEmail
from accounts.models.passkeys import (
    Passkey,
    PasskeyLimitError,
    PasskeyProof,
    PasskeyQuerySet,
    WrongPasskeyError,
)
from accounts.models.proofs import Proof, SecondFactorRequiredError
from accounts.models.recovery_codes import RecoveryCode
from accounts.models.session_tokens import SessionError
from accounts.models.sessions import Session, SessionQuerySet
from accounts.models.tickets import Ticket, TicketError
from accounts.models.totp import TOTPDevice
from accounts.models.users import User

__all__ = [
    "AddressReservedError",
    "ApiToken",
    "ApiTokenLimitError",
    "ApiTokenQuerySet",
    "EmailNotVerifiedError",
    "Event",
    "Invitation",
    "OutgoingEmail",
    "Passkey",
    "PasskeyLimitError",
    "PasskeyProof",
    "PasskeyQuerySet",
    "PasswordChangeRequiredError",
    "PasswordUnchangedError",
    "Proof",
    "RecoveryCode",
    "SecondFactorRequiredError",
    "Session",
    "SessionError",
    "SessionQuerySet",
    "StaleLoginError",
    "TOTPDevice",
    "Ticket",
    "TicketError",
    "User",
    "UserQuerySet",
    "WrongCodeError",
    "WrongPasskeyError",
]
