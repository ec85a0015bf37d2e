"""Authentication by password, for the API and the console, with a limit on failures."""

from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.http import HttpRequest

from accounts.failures import LOGINS, FailuresExceededError, LoginFailures
from accounts.models import Event, User
from accounts.models.events import UNKNOWN_IDENTITY, WRONG_PASSWORD
from accounts.passwords import MAXIMUM_LENGTH, HashingBusyError, reject_when_full


class IdentityBackend(ModelBackend):
    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        *,
        staff_only: bool = False,
        **kwargs: Any,
    ) -> User | None:
        """
        Return the active user with this username or e-mail address and this password.

        With `staff_only` the right password of anybody else is recorded, and counts as a failure.

        One password is hashed whether or not the user exists, so that the time does not tell which.
        Raises FailuresExceededError and HashingBusyError.

        The attempt stays counted until the caller grants access (`User.clear_failures`).
        """
        try:
            user = self.verify(request, username, password, staff_only=staff_only)
        except (FailuresExceededError, HashingBusyError) as error:
            LOGINS.labels("busy" if isinstance(error, HashingBusyError) else "limited").inc()
            raise
        LOGINS.labels("accepted" if user else "refused").inc()
        return user

    def verify(
        self,
        request: HttpRequest | None,
        username: str | None,
        password: str | None,
        *,
        staff_only: bool,
    ) -> User | None:
        if not username or not password or len(password) > MAXIMUM_LENGTH:
            return None
        reject_when_full()
        identity, user = User.objects.identify(username)
        address = request.META.get("REMOTE_ADDR", "0.0.0.0") if request else "0.0.0.0"  # noqa: S104
        failures = LoginFailures(user, identity, address)
        failures.count()
        try:
            is_right = (user or unknown_user()).check_password(password)
        except HashingBusyError:
            failures.uncount()
            raise
        if user is None or not is_right or not self.user_can_authenticate(user):
            reason = "inactive" if is_right else WRONG_PASSWORD
            reason = reason if user else UNKNOWN_IDENTITY
            Event.objects.record_rejection(user, reason, account=failures.account)
            return None
        if staff_only and not user.is_staff:
            Event.objects.record_rejection(user, "not staff")
            return None
        user.failures = failures
        return user


def unknown_user() -> User:
    """Return a user whom no password fits; checking one takes as long as for a real user."""
    return User(password="!")  # noqa: S106 - Django's mark of an unusable password
