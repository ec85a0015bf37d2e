"""Responses to a right password that is not enough, with the token that continues the sign-in."""

from django.conf import settings
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied

from accounts.models import Proof, SecondFactorRequiredError, Ticket, TicketError, User, mfa_tickets
from accounts.models.passkeys import second_factor_options
from accounts.models.tickets import lifetime


class PasswordChangeRequired(PermissionDenied):
    """The password was right and must be replaced; `reset_token` permits that once."""

    default_code = "password_change_required"

    def __init__(self, user: User) -> None:
        super().__init__()
        try:
            ticket = Ticket.objects.issue(Ticket.Purpose.FORCE, user)
        except TicketError as error:
            raise AuthenticationFailed(code="invalid_credentials") from error
        self.members = {"reset_token": ticket.token}


class SecondFactorRequired(PermissionDenied):
    """The password was right and a factor is missing; `mfa_token` continues the sign-in."""

    default_code = "mfa_required"

    def __init__(self, user: User) -> None:
        super().__init__()
        methods = user.factor_methods()
        has_passkey = "passkey" in methods and settings.WEBAUTHN_RP_ID
        try:
            ticket = mfa_tickets.issue(user, user.failures.source)
            options = {"passkey_options": second_factor_options(user)} if has_passkey else {}
        except TicketError as error:
            raise AuthenticationFailed(code="invalid_credentials") from error
        self.members = {
            "mfa_token": ticket.token,
            "expires_in": int(lifetime(ticket.purpose).total_seconds()),
            "methods": methods,
            **options,
        }


def require_factor(user: User, proof: Proof) -> None:
    """Raise SecondFactorRequired where the user has a factor that the proof lacks."""
    try:
        user.check_proof(proof)
    except SecondFactorRequiredError as error:
        raise SecondFactorRequired(user) from error
