"""Sessions by their tokens: authentication of a request, and rotation of refresh tokens."""

import functools
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import DEFAULT_DB_ALIAS, connection, models, transaction
from django.db.models.expressions import RawSQL
from django.db.models.functions import Now
from prometheus_client import Counter

from accounts import tokens
from accounts.models.compiled import CompiledQuery
from accounts.models.events import Event
from accounts.models.outbox import OutgoingEmail

if TYPE_CHECKING:
    from accounts.models import Session, User

REFRESHES = Counter(
    "latchkey_refreshes", "Unexpired refresh tokens that were presented, by outcome.", ["outcome"]
)
# `rate` and `increase` need a sample before the first event, so each series starts at zero.
for outcome in ("rotated", "grace", "replayed", "refused"):
    REFRESHES.labels(outcome)


class SessionError(Exception):
    """The token belongs to no active session."""


ROTATE = """
    UPDATE accounts_session AS session
       SET token_id = %(next)s, previous_token_id = session.token_id,
           last_used_at = statement_timestamp(),
           expires_at = LEAST(statement_timestamp() + %(lifetime)s,
                              session.created_at + %(maximum_age)s)
      FROM accounts_user AS owner
     WHERE session.id = %(id)s AND session.user_id = %(user_id)s
       AND session.token_id = %(presented)s
       AND session.ended_at IS NULL AND session.expires_at > statement_timestamp()
       AND session.created_at > statement_timestamp() - %(maximum_age)s
       AND owner.id = session.user_id AND owner.is_active
 RETURNING session.id, session.user_id, session.token_id, session.last_used_at,
           session.expires_at, session.authenticated_at, session.methods, statement_timestamp()
"""
# What it returns, but for the time: all that a pair of tokens says.
ROTATED = ["id", "user_id", "token_id", "last_used_at", "expires_at"]
ROTATED += ["authenticated_at", "methods"]
# What the authentication of a request reads of a session.
AUTHENTICATED = ["id", "authenticated_at"]


class TokenQuerySet(models.QuerySet["Session"]):
    if TYPE_CHECKING:

        def active(self) -> Self: ...
        def end(self, reason: str) -> int: ...

    def authenticate(self, claims: tokens.Claims) -> "Session":
        """
        Return the active session of an access token, with its active user, in one query.

        Of the session it reads the identifier and the sign-in time; others are read on access.
        """
        query = authentication_query(self.model)
        given: dict[Any, Any] = {"session_id": claims.session_id, "user_id": claims.user_id}
        with connection.cursor() as cursor:
            cursor.execute(query.statement, [given[name] for name in query.parameters])
            row = cursor.fetchone()
        if row is None:
            raise SessionError
        values = query.values(row)
        read = len(AUTHENTICATED)
        session: Session = self.model.from_db(DEFAULT_DB_ALIAS, AUTHENTICATED, values[:read])
        session.user = load_user(values[read:])
        return session

    def rotate(self, claims: tokens.Claims) -> "Session":
        """
        Spend a refresh token and return its session, which has a new one.

        One conditional UPDATE: of several at once PostgreSQL lets one through and shows the others
        the row that it left. A token that was spent before ends its session, unless it was spent
        last and within the grace. That write is outside any transaction, so that the 401
        that follows cannot roll it back. Raises SessionError.
        """
        parameters: Any = {
            "id": claims.session_id,
            "user_id": claims.user_id,
            "presented": claims.token_id,
            "next": uuid.uuid4(),
            "lifetime": settings.REFRESH_TOKEN_LIFETIME,
            "maximum_age": settings.SESSION_MAX_AGE,
        }
        with connection.cursor() as cursor:
            cursor.execute(ROTATE, parameters)
            row = cursor.fetchone()
        if row is None:
            return self.replay(claims)
        REFRESHES.labels("rotated").inc()
        session: Session = self.model.from_db(DEFAULT_DB_ALIAS, ROTATED, row[:-1])
        session.now = row[-1]
        return session

    def replay(self, claims: tokens.Claims) -> "Session":
        """Return the session of a token spent within the grace, or end the session of a replay."""
        active = self.active().filter(
            pk=claims.session_id,
            user_id=claims.user_id,
            # With a lowered SESSION_MAX_AGE an older session has expired; this is no replay.
            created_at__gt=Now() - settings.SESSION_MAX_AGE,
        )
        grace = active.annotate(now=Now()).filter(  # type: ignore[no-redef]
            previous_token_id=claims.token_id,
            last_used_at__gt=Now() - settings.REFRESH_GRACE,
            user__is_active=True,
        )
        if settings.REFRESH_GRACE and (session := grace.first()):
            REFRESHES.labels("grace").inc()
            return session
        replayed = active.end_replayed()
        REFRESHES.labels("replayed" if replayed else "refused").inc()
        raise SessionError

    @transaction.atomic
    def end_replayed(self) -> int:
        """End the session of a token that was used twice, and send its user a notice."""
        session = self.select_related("user").first()
        ended = self.end(self.model.Reason.TOKEN_REUSE)
        if session and ended:
            events = Event.objects.filter(session_id=session.pk, kind=Event.Kind.REPLAYED)
            OutgoingEmail.objects.enqueue(
                OutgoingEmail.Kind.TOKEN_REUSE, session.user, event=events.first()
            )
        return ended


@functools.cache
def authentication_query(session_model: Any) -> CompiledQuery:
    """Compile the query of an access token; its parameters are the names of the claims."""
    session_id, user_id = (RawSQL("%s", [name]) for name in ("session_id", "user_id"))
    sessions = session_model.objects.active().filter(
        pk=session_id, user_id=user_id, user__is_active=True
    )
    names = [*AUTHENTICATED, *(f"user__{name}" for name in user_fields())]
    return CompiledQuery(sessions.values_list(*names))


@functools.cache
def user_fields() -> list[str]:
    return [field.attname for field in get_user_model()._meta.concrete_fields]


def load_user(values: Sequence[Any]) -> "User":
    """Return the user of these values, which are in the order of `user_fields`."""
    user: User = get_user_model().from_db(DEFAULT_DB_ALIAS, user_fields(), values)
    return user
