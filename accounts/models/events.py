"""
Events: what happened that concerns security. A row is written once and never changed.

Who did it, from where and in which request is known to `origin`, which a middleware sets; so the
methods that change a state record it themselves, whoever calls them.
"""

import logging
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.core.cache import cache
from django.db import DatabaseError, models, transaction
from django.db.models.functions import Now
from prometheus_client import Counter

from accounts.devices import device_name

if TYPE_CHECKING:
    from accounts.models import Session, User

logger = logging.getLogger(__name__)
EVENTS = Counter("latchkey_events", "Events that were recorded, by their kind.", ["kind"])

# In an hour: what strangers can cause is bounded, for each user, and for all others together.
REFUSALS_OF_A_USER = 20
REFUSALS_OF_NOBODY = 1000
LIMITS_REACHED = 1000
HOUR = 3600
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
    ) -> None:
        """Write what happened to a user, or to nobody who is known."""
        event = self.create(
            kind=kind,
            user_id=user.pk if user else None,
            username=user.username if user else "",
            session_id=session.pk if session else None,
            detail=detail,
            is_new_device=is_new_device,
            **circumstances(),
        )
        announce(event.kind, event.user_id, event.session_id, detail=detail, actor=event.actor)

    def record_refusal(self, user: "User | None", detail: str) -> None:
        """
        Record that a sign-in was refused, so many an hour.

        What named nobody is recorded as well, or the time of an answer would tell who exists; but
        not the name, since people type passwords there.
        """
        if user is None:
            name, quota = "refusals", REFUSALS_OF_NOBODY
        else:
            name, quota = f"refusals:{user.pk}", REFUSALS_OF_A_USER
        if is_within(name, quota):
            self.record(Event.Kind.REFUSED, user, detail=detail)

    def record_limit(self, name: str, user: "User | None" = None) -> None:
        """Record that a limit was reached, once for its window; it holds without a database too."""
        if not is_within("limits", LIMITS_REACHED):
            return
        try:
            self.record(Event.Kind.LIMIT_REACHED, user, detail=name)
        except DatabaseError as error:
            logger.warning("A limit was reached, which is not on record: %s", error)

    def older(self, age: timedelta) -> "EventQuerySet":
        return self.filter(created_at__lt=Now() - age)

    def prune(self, age: timedelta, *, batch: int = 500) -> Iterable[int]:
        """Delete what is older than `age`, and yield how many rows went with each batch."""
        while True:
            rows = self.older(age).order_by("created_at")[:batch]
            deleted, _ = self.filter(pk__in=list(rows.values_list("pk", flat=True))).delete()
            if not deleted:
                return
            yield deleted


def announce(kind: str, user_id: int | None, session_id: UUID | None, **more: Any) -> None:
    """Write an event's line and count it, once it stands."""
    fields = {"event": str(kind), "user_id": user_id, "session_id": session_id, **more}

    def write() -> None:
        EVENTS.labels(fields["event"]).inc()
        logger.info("event %(event)s", fields, extra=fields)

    transaction.on_commit(write)


def circumstances() -> dict[str, str | None]:
    """Say who did it, as far as anyone has signed in, and from where."""
    here = origin.get()
    if here is None:
        return {"actor": COMMAND, "ip_address": None, "device": "", "request_id": ""}
    return {
        "actor": here.user().get_username(),
        "ip_address": here.address,
        "device": device_name(here.user_agent),
        "request_id": here.request_id,
    }


def is_within(name: str, quota: int) -> bool:
    """Count one more in this hour and tell whether it is within the quota."""
    key = f"events:{name}"
    cache.add(key, 0, HOUR)
    try:
        return bool(cache.incr(key) <= quota)
    except ValueError:  # The hour ended, or the shared cache went, just now.
        return True


class Event(models.Model):
    """
    One thing that happened: to whom, by whom, from where. No secret is ever part of it.

    Users and sessions are named, not referenced: an event outlives both, as it was written.
    """

    class Kind(models.TextChoices):
        SIGNED_IN = "signed_in", "signed in"
        REFUSED = "refused", "sign-in refused"
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
        LIMIT_REACHED = "limit_reached", "limit reached"

    created_at = models.DateTimeField(db_default=Now(), editable=False)
    kind = models.CharField(max_length=32, choices=Kind, editable=False)
    detail = models.CharField(max_length=100, blank=True, editable=False)
    user_id = models.BigIntegerField(null=True, editable=False)
    username = models.CharField("user", max_length=50, blank=True, editable=False)
    session_id = models.UUIDField(null=True, editable=False)
    actor = models.CharField("done by", max_length=50, blank=True, editable=False)
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
        return self.actor in {"", self.username}
