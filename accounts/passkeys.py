"""The user of a sign-in by passkey, whose attempts are counted like those by password."""

from django.http import HttpRequest

from accounts import webauthn
from accounts.failures import LoginFailures
from accounts.models import Event, User
from accounts.models.events import UNKNOWN_IDENTITY


def identify(request: HttpRequest, data: object) -> User | None:
    """
    Count an attempt, and return the user whom a credential names: nothing of it is proven.

    User handles are random, and known only to the devices of their users. Raises
    FailuresExceededError. The attempt stays counted until access is granted.
    """
    try:
        handle = webauthn.read(data).user_handle
    except webauthn.CredentialError:
        return None
    user = User.objects.filter(passkey_handle=handle).first() if handle else None
    failures = count_attempt(request, user, f"passkey:{handle}")
    if user is None or not user.is_active:
        reason = "inactive" if user else UNKNOWN_IDENTITY
        Event.objects.record_rejection(user, reason, account=failures.account)
        return None
    return user


def count_attempt(request: HttpRequest, user: User | None, identity: str = "") -> LoginFailures:
    """Count an attempt by passkey like one by password; raises FailuresExceededError."""
    failures = LoginFailures(user, identity, request.META["REMOTE_ADDR"])
    failures.count()
    if user:
        user.failures = failures
    return failures
