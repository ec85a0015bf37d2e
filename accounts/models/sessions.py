"""
Sessions: the devices on which users are signed in.

All times are the database's, so that instances with different clocks agree on what has expired. A
token has the times of its session, in whole seconds.
"""

import uuid
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Self

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.postgres.fields import ArrayField
from django.db import connection, models, transaction
from django.db.models import Exists
from django.db.models.functions import Least, Now
from django.utils import timezone

from accounts import tokens
from accounts.models.access import PasswordChangeRequiredError, granting_access
from accounts.models.batches import BATCH, chunks
from accounts.models.events import Event, emit, event_context
from accounts.models.outbox import OutgoingEmail
from accounts.models.proofs import PASSWORD, Proof
from accounts.models.session_tokens import SessionError, TokenQuerySet

if TYPE_CHECKING:
    from accounts.models import User


class SessionQuerySet(TokenQuerySet):
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

    def start(
        self, user: "User", *, address: str, user_agent: str, device: str, proof: Proof = PASSWORD
    ) -> "Session":
        """
        Start a session for a user who has just proven the account.

        Raises StaleLoginError where the user was deactivated or changed the password meanwhile,
        SecondFactorRequiredError where the proof lacks a factor, and PasswordChangeRequiredError
        where staff demand a new password: the row is locked, so such a change comes before (and is
        seen) or after (and ends this). A code that was right is used up in any case.
        """
        with granting_access(user):
            with transaction.atomic():
                verified, used = user.prove(proof)
                session = (
                    None
                    if verified.must_change_password
                    else self.begin(
                        user,
                        used,
                        verified.now,
                        ip_address=address,
                        user_agent=user_agent,
                        device=device,
                    )
                )
            if session is None:
                raise PasswordChangeRequiredError
        return session

    def begin(self, user: "User", proof: Proof, now: datetime, **origin: str) -> "Session":
        """Create a session; its user's row is locked."""
        device = origin["device"]
        is_known_device, has_signed_in = self.make_room(user, device)
        session = self.create(
            user=user,
            created_at=now,
            last_used_at=now,
            authenticated_at=now,
            methods=list(proof.methods),
            factor_added_at=proof.factor_added_at,
            expires_at=now + min(settings.REFRESH_TOKEN_LIFETIME, settings.SESSION_MAX_AGE),
            **origin,
        )
        event = Event.objects.record(
            Event.Kind.SIGNED_IN,
            user,
            session=session,
            detail=", ".join(proof.methods),
            is_new_device=not is_known_device,
        )
        if has_signed_in and not is_known_device:
            OutgoingEmail.objects.enqueue(OutgoingEmail.Kind.NEW_DEVICE, user, event=event)
        session.now = now
        return session

    def reauthenticate(
        self, session: "Session", user: "User", *, proof: Proof = PASSWORD
    ) -> "Session":
        """
        Return the session with a new sign-in time and refresh token, for a proven account.

        `session` is as it was read before the verification. If its sign-in time changed meanwhile,
        another request renewed it, and this one returns the same refresh token. Raises
        SessionError where the session changed meanwhile, and the errors of `start`.
        """
        with granting_access(user):
            with transaction.atomic():
                verified, used = user.prove(proof)
                renewed = self.lock_to_renew(session, user)
                if not verified.must_change_password:
                    renewed.now = verified.now
                    if renewed.authenticated_at == session.authenticated_at:
                        renewed.renew(verified.now, used)
                    Event.objects.record(Event.Kind.REAUTHENTICATED, user, session=renewed)
            if verified.must_change_password:
                raise PasswordChangeRequiredError
        return renewed

    def lock_to_renew(self, session: "Session", user: "User") -> "Session":
        rows = self.active().filter(
            pk=session.pk,
            user=user,
            # With a lowered SESSION_MAX_AGE an older session has expired.
            created_at__gt=Now() - settings.SESSION_MAX_AGE,
        )
        row = rows.select_for_update(no_key=True).first()
        if row is None:
            raise SessionError
        return row

    def make_room(self, user: "User", device: str) -> tuple[bool, bool]:
        """
        End what one session more would put above the limit.

        Returns whether the device is known, and whether the user has signed in before. One
        statement looks for all three.
        """
        sessions, limit = self.filter(user=user), settings.SESSION_LIMIT
        surplus = sessions.active()[limit - 1 : limit] if limit else sessions.none()
        sign_ins = Event.objects.filter(user_id=user.pk, kind=Event.Kind.SIGNED_IN)
        is_known, is_full, has_signed_in = (
            get_user_model()
            .objects.filter(pk=user.pk)
            .values_list(Exists(sessions.filter(device=device)), Exists(surplus), Exists(sign_ins))
            .get()
        )
        if is_full:
            sessions.end_least_recently_used(keep=limit - 1)
        return bool(is_known), bool(has_signed_in)


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
    def state(self) -> str:
        """Active, expired, or why the session ended."""
        if self.ended_at:
            return self.get_end_reason_display()
        return "active" if self.expires_at > timezone.now() else "expired"

    @property
    def outranks_mailbox(self) -> bool:
        """
        Tell whether the sign-in used a factor older than UNDO_DAYS.

        A younger one may be a thief's, whose acts the owner of the mailbox can undo.
        """
        added_at = self.factor_added_at
        return added_at is not None and added_at < timezone.now() - settings.UNDO_LIFETIME

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
