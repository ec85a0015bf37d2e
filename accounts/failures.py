"""Failed attempts at one account: how many are allowed, how they are counted and reported."""

import contextlib
import hashlib
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import cast

from django.conf import settings
from django.core.cache import cache
from django.utils import timezone
from prometheus_client import Counter
from rest_framework.exceptions import Throttled

from accounts.counting import count, network_of
from accounts.models import (
    Event,
    OutgoingEmail,
    Proof,
    Session,
    SessionQuerySet,
    Ticket,
    User,
    WrongCodeError,
)
from accounts.models.codes import Code

ADDRESS_MEMORY = timedelta(days=30)
STRANGERS = "strangers"
LOGINS = Counter(
    "latchkey_logins", "Passwords that were presented, in the API and the admin.", ["outcome"]
)
CODES = Counter(
    "latchkey_codes", "Codes of second factors that were presented, by outcome.", ["outcome"]
)
# `rate` and `increase` need a sample before the first event, so each series starts at zero.
for outcome in ("accepted", "refused", "limited"):
    LOGINS.labels(outcome)
    CODES.labels(outcome)
LOGINS.labels("busy")


class FailuresExceededError(Throttled):
    """Too many failures for one account; `wait` is in seconds."""

    def __init__(self, name: str, rate: tuple[int, int], wait: float) -> None:
        super().__init__(wait=wait)
        self.limit = name, rate


class FailureCount:
    """A count of failures in the cache, in a window that begins with the first one."""

    def __init__(self, name: str, rate: tuple[int, int], key: str) -> None:
        self.name, self.rate, self.key = name, rate, key
        self.until = 0.0

    def add(self) -> int:
        """Count one more and return the number in this window."""
        window = self.rate[1]
        end = time.time() + window
        until = cache.get_or_set(self.key, end, window)
        if not isinstance(until, float):  # A cache that lost the key, or has one of another origin.
            until = end
            cache.set(self.key, until, window)
        self.until = until
        # It expires after its window, so that it cannot expire between `add` and `incr`.
        return count(self.counter, window + 60)

    @property
    def counter(self) -> str:
        return f"{self.key}:{self.until}"

    def take_back(self) -> None:
        """Take back the one that was counted last."""
        with contextlib.suppress(ValueError):
            cache.decr(self.counter)

    def exceeded(self) -> FailuresExceededError:
        # The cache keeps its own time: where a clock has jumped, nobody waits longer than this.
        wait = min(max(1, self.until - time.time()), self.rate[1])
        return FailuresExceededError(self.name, self.rate, wait)


class LoginFailures:
    """
    The count of failed logins for one account, whether there is one or not.

    An address from which the user has had a session lately counts by itself, so that a stranger's
    failures never shut the user out there. `identity` is in lower case, as `identify` returns it.
    `source` is given where an earlier step of the same sign-in has found it.
    """

    def __init__(
        self, user: User | None, identity: str, address: str, *, source: str | None = None
    ) -> None:
        self.user, self.address = user, address
        account = account_of(user, identity)
        self.account = digest(account)
        self.source = source or source_of(user, address)
        rate = settings.LOGIN_FAILURE_LIMIT
        self.failures = FailureCount("login-failures", rate, key_of(account, self.source))

    def count(self) -> None:
        """Count an attempt, before it is verified; raise where it is one too many."""
        quota, number = self.failures.rate[0], self.failures.add()
        if number == quota + 1:
            self.report()
        if number > quota:
            raise self.failures.exceeded()

    def report(self) -> None:
        """
        Record the lockout, and send its user a notice.

        The statements are the same for an identity that does not exist: no username is "?".
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
        self.failures.take_back()

    def clear(self) -> None:
        cache.delete(self.failures.key)


def source_of(user: User | None, address: str) -> str:
    """Return what the attempts from an address are counted by."""
    network = network_of(address)
    # The same statement for an identity that does not exist, or the time would tell.
    addresses = (str(network[0]), str(network[-1]))
    is_known = recent_sessions(user).filter(ip_address__range=addresses).exists()
    return str(network) if is_known else STRANGERS


def clear_login_failures(user: User) -> None:
    """Clear the counts of every address, where the user has proven the account otherwise."""
    addresses = recent_sessions(user).order_by().values_list("ip_address", flat=True).distinct()
    sources = {STRANGERS, *(str(network_of(address)) for address in addresses)}
    cache.delete_many([key_of(account_of(user), source) for source in sources])


def recent_sessions(user: User | None) -> SessionQuerySet:
    since = timezone.now() - ADDRESS_MEMORY
    return Session.objects.filter(user=user.pk if user else 0, last_used_at__gt=since)


def count_completion(ticket: Ticket, address: str) -> User:
    """Count an attempt to complete a sign-in like one by password, and return its user."""
    user = cast("User", ticket.user)
    user.failures = LoginFailures(user, "", address, source=ticket.data["source"])
    user.failures.count()
    return user


def counting(user: User, proof: Proof) -> contextlib.AbstractContextManager[None]:
    """Count the use of a code; passwords and passkeys are counted before they are verified."""
    return counting_codes(user) if isinstance(proof, Code) else contextlib.nullcontext()


@contextlib.contextmanager
def counting_codes(user: User) -> Iterator[None]:
    """
    Count a wrong code of one account: after so many a day every code is rejected.

    A success does not reset the count, so nobody guesses between two sign-ins of the user. A code
    is counted before it is verified, and not any more if it was right.
    """
    rate = settings.CODE_FAILURE_LIMIT
    failures = FailureCount("code-failures", rate, f"code-failures:{digest(account_of(user))}")
    number = failures.add()
    if number > rate[0] + 1:
        CODES.labels("limited").inc()
        raise failures.exceeded()
    try:
        yield
    except WrongCodeError as error:
        CODES.labels("refused").inc()
        if number > rate[0]:
            report_code_failures(user)
            raise failures.exceeded() from error
        raise
    except BaseException:
        failures.take_back()
        raise
    CODES.labels("accepted").inc()
    failures.take_back()


@contextlib.contextmanager
def counting_enrolment(user: User, address: str) -> Iterator[None]:
    """
    Count a code that confirms an authenticator app as long as it is not right.

    A right one does not clear the failures: each enrolment would give as many guesses again.
    """
    failures = LoginFailures(user, "", address)
    failures.count()
    with counting_codes(user):
        yield
    failures.uncount()


def report_code_failures(user: User) -> None:
    """Record the lockout and send a notice: somebody may know the password."""
    if event := Event.objects.record_limit_reached(user, "code-failures"):  # pragma: no branch
        OutgoingEmail.objects.enqueue(OutgoingEmail.Kind.LOGIN_FAILURES, user, event=event)


def account_of(user: User | None, identity: str = "") -> str:
    return f"user:{user.pk}" if user else f"name:{identity}"


def key_of(account: str, source: str) -> str:
    return f"login-failures:{digest(account, source)}"


def digest(*parts: str) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
