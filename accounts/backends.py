"""Authentication by password, for the API and the console, with a limit on failures."""

import contextlib
import hashlib
import time
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.backends import ModelBackend
from django.core.cache import cache
from django.http import HttpRequest
from django.utils import timezone
from prometheus_client import Counter
from rest_framework.exceptions import Throttled

from accounts.counting import count, network_of
from accounts.models import Event, OutgoingEmail, Session, SessionQuerySet, User
from accounts.models.events import UNKNOWN_IDENTITY, WRONG_PASSWORD
from accounts.passwords import MAXIMUM_LENGTH, HashingBusyError, reject_when_full

LOGINS = Counter(
    "latchkey_logins", "Passwords that were presented, in the API and the admin.", ["outcome"]
)
# `rate` and `increase` need a sample before the first event, so each series starts at zero.
for outcome in ("accepted", "refused", "limited", "busy"):
    LOGINS.labels(outcome)
ADDRESS_MEMORY = timedelta(days=30)
STRANGERS = "strangers"


class LoginFailuresExceededError(Throttled):
    """Too many failures for one account; `wait` is in seconds."""

    def __init__(self, wait: float) -> None:
        super().__init__(wait=wait)
        self.limit = "login-failures", settings.LOGIN_FAILURE_LIMIT


class LoginFailures:
    """
    The count of failed logins for one account, whether there is one or not.

    An address from which the user has had a session lately counts by itself, so that a stranger's
    failures never shut the user out there. `identity` is in lower case, as `identify` returns it.
    """

    def __init__(self, user: User | None, identity: str, address: str) -> None:
        self.user, self.address = user, address
        account = account_of(user, identity)
        self.account = digest(account)
        network = network_of(address)
        # The same statement for an identity that does not exist, or the time would tell.
        addresses = (str(network[0]), str(network[-1]))
        is_known = recent_sessions(user).filter(ip_address__range=addresses).exists()
        self.key = key_of(account, str(network) if is_known else STRANGERS)

    def count(self) -> None:
        """Count an attempt, before the password is verified; raise where it is one too many."""
        quota, window = settings.LOGIN_FAILURE_LIMIT
        end = time.time() + window
        until = cache.get_or_set(self.key, end, window)
        if not isinstance(until, float):  # A cache that lost the key, or has one of another origin.
            until = end
            cache.set(self.key, until, window)
        self.counter = f"{self.key}:{until}"
        # It expires after its window, so that it cannot expire between `add` and `incr`.
        failures = count(self.counter, window + 60)
        if failures == quota + 1:
            self.report()
        if failures > quota:
            # The cache keeps its own time: where a clock has jumped, nobody waits longer than this.
            wait = min(max(1, until - time.time()), window)
            raise LoginFailuresExceededError(wait)

    def report(self) -> None:
        """
        Record the lockout, and send its user a notice.

        The statements are the same for an identity that does not exist: nobody is called "?".
        """
        event = Event.objects.record_limit_reached(self.user, "login-failures")
        if event:  # pragma: no branch - without a database there is none
            OutgoingEmail.objects.enqueue_entered(
                OutgoingEmail.Kind.LOGIN_FAILURES,
                self.user.username if self.user else "?",
                client_address=self.address,
                event=event,
            )

    def uncount(self) -> None:
        with contextlib.suppress(ValueError):
            cache.decr(self.counter)

    def clear(self) -> None:
        cache.delete(self.key)


def clear_login_failures(user: User) -> None:
    """Clear the counts of every address, where the user has proven the account otherwise."""
    addresses = recent_sessions(user).order_by().values_list("ip_address", flat=True).distinct()
    sources = {STRANGERS, *(str(network_of(address)) for address in addresses)}
    cache.delete_many([key_of(account_of(user), source) for source in sources])


def recent_sessions(user: User | None) -> SessionQuerySet:
    since = timezone.now() - ADDRESS_MEMORY
    return Session.objects.filter(user=user.pk if user else 0, last_used_at__gt=since)


def account_of(user: User | None, identity: str = "") -> str:
    return f"user:{user.pk}" if user else f"name:{identity}"


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
        Raises LoginFailuresExceededError and HashingBusyError.

        The attempt stays counted until the caller grants access (`User.clear_failures`).
        """
        try:
            user = self.verify(request, username, password, staff_only=staff_only)
        except (LoginFailuresExceededError, HashingBusyError) as error:
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


def key_of(account: str, source: str) -> str:
    return f"login-failures:{digest(account, source)}"


def digest(*parts: str) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def unknown_user() -> User:
    """Return a user whom no password fits; checking one takes as long as for a real user."""
    return User(password="!")  # noqa: S106 - Django's mark of an unusable password
