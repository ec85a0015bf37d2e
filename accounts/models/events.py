"""
Events: what happened that concerns security. A row is written once and never changed.

Who did it, from where and in which request is known to `origin`, which a middleware sets; so the
methods that change a state record it themselves, for every caller.
"""

import logging
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import DatabaseError, models, transaction
from django.db.models.functions import Now
from prometheus_client import Counter

from accounts.counting import count, network_of
from accounts.devices import device_name

if TYPE_CHECKING:
    from accounts.models import Session, User

logger = logging.getLogger(__name__)
EVENTS = Counter("latchkey_events", "Events that were recorded, by their kind.", ["kind"])

# Events in an hour. Each source has its own bound, so that a flood cannot silence what concerns
# somebody else: an account that is guessed at, a network, or who changes an account in what.
GUESSES_OF_AN_ACCOUNT = 20
UNKNOWN_IDENTITIES_OF_A_NETWORK = 100
LIMITS_OF_A_NETWORK = 20
CHANGES_OF_AN_ACCOUNT = 20
HOUR = 3600
WRONG_PASSWORD, UNKNOWN_IDENTITY = "wrong password", "unknown identity"
COMMAND = "manage.py"  # who did what came in no request


@dataclass
class Origin:
    """Where a change comes from; `user` is asked late, since a view may be what finds it out."""

    user: Callable[[], Any]
    address: str
    user_agent: str
    request_id: str


origin: ContextVar[Origin | None] = ContextVar("origin", default=None)


class EventQuerySet(models.QuerySet["Event"]):
    def record(
        self,
        kind: str,
        user: "User | None",
        *,
        session: "Session | None" = None,
        detail: str = "",
        is_new_device: bool = False,
    ) -> "Event":
        """Write what happened to a user, or to nobody who is known, and return the event."""
        event = self.create(
            kind=kind,
            user_id=user.pk if user else None,
            username=user.username if user else "",
            session_id=session.pk if session else None,
            detail=detail,
            is_new_device=is_new_device,
            **event_context(),
        )
        emit(event.kind, event.user_id, event.session_id, detail=detail, actor=event.actor)
        return event

    def record_rejection(self, user: "User | None", detail: str, *, account: str = "") -> None:
        """
        Record a rejected sign-in: each one with the right password, and so many guesses an hour.

        An identity that does not exist is recorded as well, or the time of a response would tell
        who exists; but not its text, since people type passwords there. `account` stands for
        either kind in the count of guesses.
        """
        account = account or f"user:{user.pk if user else None}"
        account_within = consume_quota(f"guesses:{account}", GUESSES_OF_AN_ACCOUNT)
        network_within = consume_quota(f"unknown:{network()}", UNKNOWN_IDENTITIES_OF_A_NETWORK)
        if detail == WRONG_PASSWORD and not account_within:
            return
        if detail == UNKNOWN_IDENTITY and not (account_within and network_within):
            return
        self.record(Event.Kind.REFUSED, user, detail=detail)

    def record_limit(self, name: str) -> None:
        """Record that a network reached a limit of requests."""
        if consume_quota(f"limits:{network()}", LIMITS_OF_A_NETWORK):
            self.record_limit_reached(None, name)

    def record_limit_reached(self, user: "User | None", name: str) -> "Event | None":
        """Record a limit, which holds without a database too."""
        try:
            return self.record(Event.Kind.LIMIT_REACHED, user, detail=name)
        except DatabaseError as error:
            logger.warning("A limit was reached, but recording it failed: %s", error)
            return None

    def record_change(self, user: "User", names: Iterable[str]) -> None:
        """Record which fields of an account were changed, so often an hour for each actor."""
        source = (str(user.pk), str(event_context()["actor_id"]), *names)
        if consume_quota(f"changes:{':'.join(source)}", CHANGES_OF_AN_ACCOUNT):
            self.record(Event.Kind.CHANGED, user, detail=", ".join(names)[:100])

    def older(self, age: timedelta) -> "EventQuerySet":
        return self.filter(created_at__lt=Now() - age)


def emit(kind: str, user_id: int | None, session_id: UUID | None, **more: Any) -> None:
    """Log an event and count it, after the transaction has committed."""
    fields = {"event": str(kind), "user_id": user_id, "session_id": session_id, **more}

    def write() -> None:
        EVENTS.labels(fields["event"]).inc()
        logger.info("event %(event)s", fields, extra=fields)

    transaction.on_commit(write)


def event_context() -> dict[str, Any]:
    """Return who did it, as far as anyone has signed in, and from where."""
    here = origin.get()
    if here is None:
        actor = {"actor": COMMAND, "actor_id": None}
        return {**actor, "ip_address": None, "device": "", "request_id": ""}
    user = here.user()
    return {
        "actor": user.get_username(),
        "actor_id": user.pk,
        "ip_address": here.address,
        "device": device_name(here.user_agent),
        "request_id": here.request_id,
    }


def network() -> str:
    """Return the network that this request comes from; a command comes from none."""
    here = origin.get()
    return str(network_of(here.address)) if here else ""


def consume_quota(name: str, quota: int) -> bool:
    """Count one more in this hour and tell whether it is within the quota."""
    return count(f"events:{name}", HOUR) <= quota


class Event(models.Model):
    """
    One thing that happened: to whom, by whom, from where. No secret is ever part of it.

    Users and sessions are named, not referenced, because an event is kept after both.
    """

    class Kind(models.TextChoices):
        SIGNED_IN = "signed_in", "signed in"
        REFUSED = "refused", "sign-in rejected"
        SIGNED_OUT = "signed_out", "signed out"
        SESSION_ENDED = "session_ended", "session ended"
        REPLAYED = "replayed", "refresh token used twice"
        PASSWORD_CHANGED = "password_changed", "password changed"
        PASSWORD_CHANGE_REQUIRED = "password_change_required", "password change required"
        CREATED = "account_created", "account created"
        CHANGED = "account_changed", "account changed"
        ACTIVATED = "account_activated", "account activated"
        DEACTIVATED = "account_deactivated", "account deactivated"
        DELETED = "account_deleted", "account deleted"
        REAUTHENTICATED = "reauthenticated", "signed in again"
        PASSWORD_RESET_ASKED = "password_reset_asked", "password reset requested"
        PASSWORD_RESET = "password_reset", "password reset"
        EMAIL_VERIFIED = "email_verified", "address verified"
        EMAIL_CHANGE_ASKED = "email_change_asked", "change of address requested"
        EMAIL_CHANGED = "email_changed", "address changed"
        EMAIL_RESTORED = "email_restored", "address restored"
        TOKEN_CREATED = "token_created", "API token created"
        TOKEN_ENDED = "token_ended", "API token ended"
        FACTOR_ADDED = "factor_added", "second factor added"
        FACTOR_REMOVED = "factor_removed", "second factor removed"
        FACTOR_RESET_BEGUN = "factor_reset_begun", "factor reset requested"
        FACTORS_RESET = "factors_reset", "second factors reset"
        RECOVERY_CODE_USED = "recovery_code_used", "recovery code used"
        RECOVERY_CODES_REPLACED = "recovery_codes_replaced", "recovery codes replaced"
        PASSKEY_CLONED = "passkey_cloned", "copied passkey rejected"
        INVITED = "invited", "invitation"
        EXPORTED = "exported", "data exported"
        MAIL_REQUESTED = "mail_requested", "email requested by staff"
        MAIL_FAILED = "mail_failed", "email not delivered"
        LIMIT_REACHED = "limit_reached", "limit reached"

    created_at = models.DateTimeField(db_default=Now(), editable=False)
    kind = models.CharField(max_length=32, choices=Kind, editable=False)
    detail = models.CharField(max_length=100, blank=True, editable=False)
    user_id = models.BigIntegerField(null=True, editable=False)
    username = models.CharField("user", max_length=50, blank=True, editable=False)
    session_id = models.UUIDField(null=True, editable=False)
    actor = models.CharField("done by", max_length=50, blank=True, editable=False)
    actor_id = models.BigIntegerField(null=True, editable=False)
    ip_address = models.GenericIPAddressField("IP address", null=True, editable=False)
    device = models.CharField(max_length=100, blank=True, editable=False)
    is_new_device = models.BooleanField("new device", default=False, editable=False)
    request_id = models.CharField("request", max_length=128, blank=True, editable=False)

    objects = EventQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["user_id", "-created_at", "-id"], name="accounts_event_of_user"),
            # A user who was deleted is found by name.
            models.Index(fields=["username", "-created_at", "-id"], name="accounts_event_of_name"),
            models.Index(
                fields=["ip_address", "-created_at", "-id"], name="accounts_event_ip_address"
            ),
            models.Index(fields=["kind", "created_at"], name="accounts_event_kind"),
            models.Index(fields=["created_at", "id"], name="accounts_event_created_at"),
            models.Index(
                fields=["session_id"],
                condition=models.Q(session_id__isnull=False),
                name="accounts_event_of_session",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.username}" if self.username else self.kind

    @property
    def is_own(self) -> bool:
        """Tell whether nobody else did it, as far as anyone had signed in."""
        if self.actor_id is None:  # An event of before the column, or nobody had signed in.
            return self.actor in {"", self.username}
        # By number: who renames an account must not hide where they did it from.
        return self.actor_id == self.user_id


# `rate` and `increase` need a sample before the first event, so each series starts at zero.
for kind in Event.Kind:
    EVENTS.labels(kind.value)
