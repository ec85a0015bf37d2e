"""
Sessions: the devices on which users are signed in.

All times are the database's, so that instances with different clocks agree on what has expired. A
token has the times of its session, in whole seconds.
"""

import uuid
from datetime import datetime, timedelta
from typing import Self

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.postgres.fields import ArrayField
from django.db import connection, models
from django.db.models.functions import Least, Now
from django.utils import timezone

from accounts import tokens
from accounts.models.batches import BATCH, chunks
from accounts.models.events import Event, emit, event_context
from accounts.models.proofs import Proof
from accounts.models.sign_ins import SignInQuerySet


class SessionQuerySet(SignInQuerySet):
    def active(self) -> Self:
        return self.filter(ended_at=None, expires_at__gt=Now())

    def ended_before(self, age: timedelta) -> Self:
        """Select the sessions that ended or expired longer ago than `age`."""
        closed_at = Least("ended_at", "expires_at")
        return self.alias(closed_at=closed_at).filter(closed_at__lt=Now() - age)

    def end(self, reason: str) -> int:
        """
        End the sessions, record each, and return their number.

        Any number of them: a statement ends one batch. A session that has ended keeps its reason.
        """
        rows = self.filter(ended_at=None)
        ended = rows[:BATCH].end_batch(reason)
        return ended if ended < BATCH else ended + rows.end_by_keys(reason)

    def end_by_keys(self, reason: str) -> int:
        """End the sessions in batches of keys, which one query reads."""
        keys = chunks(list(self.values_list("pk", flat=True)))
        return sum(self.model.objects.filter(pk__in=batch).end_batch(reason) for batch in keys)

    def end_batch(self, reason: str) -> int:
        here = event_context()
        kind = ENDINGS.get(reason, Event.Kind.SESSION_ENDED)
        which, parameters = self.values("pk").query.sql_with_params()
        with connection.cursor() as cursor:
            cursor.execute(
                END.format(which=which, key=get_user_model()._meta.pk.rel_db_type(connection)),
                [
                    reason,
                    *parameters,
                    *(kind, reason),
                    *(here["actor"], here["actor_id"], here["ip_address"], here["request_id"]),
                ],
            )
            ended = cursor.fetchall()
        for user_id, session_id in ended:
            emit(kind, user_id, session_id, detail=reason, actor=here["actor"])
        return len(ended)

    def end_least_recently_used(self, *, keep: int) -> None:
        """End the active sessions except the `keep` that were used last."""
        surplus = self.active().order_by("-last_used_at", "-pk")[keep:]
        surplus.end_by_keys(Session.Reason.SESSION_LIMIT)


# An array, because a join with a subquery is planned by statistics that may not know the rows. The
# rows are locked, so one that ended meanwhile does not count: a batch that is not full is the last.
END = """
    WITH ended AS (
        UPDATE accounts_session SET ended_at = statement_timestamp(), end_reason = %s
         WHERE ended_at IS NULL
           AND id = ANY (ARRAY({which} FOR NO KEY UPDATE OF accounts_session))
     RETURNING id, user_id, device
    )
    INSERT INTO accounts_event (kind, detail, user_id, username, session_id, device,
                                actor, actor_id, ip_address, request_id, is_new_device)
    SELECT %s, %s, owner.id, owner.username, ended.id, ended.device,
           %s, %s::{key}, %s::inet, %s, false
      FROM ended JOIN accounts_user AS owner ON owner.id = ended.user_id
 RETURNING user_id, session_id
"""


def by_password() -> list[str]:
    return ["pwd"]


class Session(models.Model):
    """
    A device on which a user is signed in.

    The row has the identifiers of its current refresh token and of the previous one, which is
    accepted within the grace. Every other refresh token is spent. No token is stored.
    """

    class Reason(models.TextChoices):
        LOGOUT = "logout", "signed out"
        LOGOUT_ALL = "logout_all", "signed out everywhere"
        USER = "user", "ended by the user"
        STAFF = "staff", "ended by staff"
        PASSWORD = "password_changed", "password changed"
        ACCOUNT = "account_changed", "account deactivated"
        TOKEN_REUSE = "token_reuse", "refresh token used twice"
        PASSWORD_RESET = "password_reset", "password reset"
        EMAIL = "email_changed", "address changed"
        FACTOR = "factor_changed", "second factor changed"
        SESSION_LIMIT = "session_limit", "session limit reached"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, related_name="sessions", db_index=False
    )
    token_id = models.UUIDField(default=uuid.uuid4, editable=False)
    previous_token_id = models.UUIDField(null=True, editable=False)
    user_agent = models.CharField(max_length=512, editable=False)
    device = models.CharField(max_length=100, editable=False)
    ip_address = models.GenericIPAddressField("IP address", editable=False)
    created_at = models.DateTimeField(editable=False)
    last_used_at = models.DateTimeField(editable=False)
    expires_at = models.DateTimeField(editable=False)
    authenticated_at = models.DateTimeField(db_default=Now(), editable=False)
    # The values of `amr` (RFC 8176).
    methods = ArrayField(
        models.CharField(max_length=16), default=by_password, db_default=["pwd"], editable=False
    )
    # When the second factor was added that the user signed in with; null without one.
    factor_added_at = models.DateTimeField(null=True, editable=False)
    ended_at = models.DateTimeField(null=True, editable=False)
    end_reason = models.CharField(max_length=16, choices=Reason, blank=True, editable=False)

    objects = SessionQuerySet.as_manager()

    # The database's time, where a token pair is about to be issued.
    now: datetime | None = None
    # The claims of the access token that was presented.
    presented: tokens.Claims

    class Meta:
        indexes = [
            models.Index(
                "user",
                models.F("last_used_at").desc(),
                models.F("id").desc(),
                name="accounts_session_of_user",
            ),
            models.Index(Least("ended_at", "expires_at"), name="accounts_session_over"),
            models.Index(fields=["created_at", "id"], name="accounts_session_created_at"),
            models.Index(fields=["ip_address"], name="accounts_session_ip_address"),
            # Only ended sessions, so that a refresh does not update it.
            models.Index(
                fields=["end_reason", "created_at", "id"],
                condition=models.Q(ended_at__isnull=False),
                name="accounts_session_end_reason",
            ),
        ]
        permissions = [("end_session", "Can end session")]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(ended_at=None, end_reason="")
                | (models.Q(ended_at__isnull=False) & ~models.Q(end_reason="")),
                name="accounts_session_ended_with_reason",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.device} of {self.user}"

    @property
    def session_id(self) -> uuid.UUID:
        """The id, under its name in the log line of a request."""
        return self.pk

    @property
    def state(self) -> str:
        """Active, expired, or why the session ended."""
        if self.ended_at:
            return self.get_end_reason_display()
        return "active" if self.expires_at > timezone.now() else "expired"

    @property
    def outranks_mailbox(self) -> bool:
        return Proof(tuple(self.methods), self.factor_added_at).outranks_mailbox

    def renew(self, now: datetime, proof: Proof) -> None:
        """
        Record a new sign-in and replace the refresh token.

        The one before has no grace: a thief who has it would get the new sign-in time with it.
        """
        self.previous_token_id, self.token_id = None, uuid.uuid4()
        self.authenticated_at = self.last_used_at = now
        self.methods, self.factor_added_at = list(proof.methods), proof.factor_added_at
        end = self.created_at + settings.SESSION_MAX_AGE
        self.expires_at = min(now + settings.REFRESH_TOKEN_LIFETIME, end)
        names = ["previous_token_id", "token_id", "authenticated_at", "last_used_at"]
        self.save(update_fields=[*names, "methods", "factor_added_at", "expires_at"])


# The kinds of events of these reasons; of all others, SESSION_ENDED.
ENDINGS: dict[str, Event.Kind] = {
    Session.Reason.LOGOUT: Event.Kind.SIGNED_OUT,
    Session.Reason.LOGOUT_ALL: Event.Kind.SIGNED_OUT,
    Session.Reason.TOKEN_REUSE: Event.Kind.REPLAYED,
}
