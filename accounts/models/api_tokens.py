"""
API tokens: access for machines, by a secret that its user creates and ends.

A token that ends is deleted; only expired ones stay until they are pruned. All times are the
database's.
"""

import functools
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import DEFAULT_DB_ALIAS, connection, models, transaction
from django.db.models.expressions import RawSQL
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from accounts import api_tokens
from accounts.models.addresses import EmailNotVerifiedError
from accounts.models.compiled import CompiledQuery
from accounts.models.credentials import StaleLoginError
from accounts.models.events import Event
from accounts.models.outbox import OutgoingEmail
from accounts.models.session_tokens import load_user, user_fields
from accounts.models.sessions import Session
from accounts.tokens import TokenError
from api.text import LineField

if TYPE_CHECKING:
    from accounts.models import User

TOKEN_LIMIT = 20  # active tokens of a user
LONGEST_LIFETIME = timedelta(days=365)
USE_RECORDED_EVERY = timedelta(minutes=1)


class ApiTokenLimitError(Exception):
    """The user has as many API tokens as a user may have."""


class ApiTokenQuerySet(models.QuerySet["ApiToken"]):
    def active(self) -> Self:
        return self.filter(expires_at__gt=Now())

    def expired_before(self, age: timedelta) -> Self:
        return self.filter(expires_at__lt=Now() - age)

    def authenticate(self, text: str) -> "ApiToken":
        """
        Return the active token of this text, with its active user, in one query.

        Of the token it reads the id and the scope. Once a minute a second statement records the
        use. Raises TokenError; without a query where the form or the checksum is wrong.
        """
        presented = api_tokens.read(text)
        query = authentication_query(self.model)
        with connection.cursor() as cursor:
            cursor.execute(query.statement, [presented.id])
            row = cursor.fetchone()
        if row is None:
            raise TokenError
        token_id, scope, digest, unrecorded_for, *values = query.values(row)
        if not constant_time_compare(digest, presented.digest):
            raise TokenError
        if unrecorded_for is None or unrecorded_for >= USE_RECORDED_EVERY:
            self.filter(pk=token_id).record_use()
        token: ApiToken = self.model.from_db(DEFAULT_DB_ALIAS, ["id", "scope"], [token_id, scope])
        token.user = load_user(values)
        return token

    def record_use(self) -> None:
        """Record that the tokens are used now, unless another request has just done so."""
        recently = models.Q(last_used_at__gt=Now() - USE_RECORDED_EVERY)
        self.exclude(recently).update(last_used_at=Now())

    @transaction.atomic
    def issue(
        self, user: "User", *, name: str, scope: str, lifetime: timedelta, session: Session
    ) -> "ApiToken":
        """
        Return a new token, whose `text` is stored nowhere.

        The user's row is locked, so a reset or a deactivation comes before (and is seen) or after
        (and ends this). Raises StaleLoginError where the session or the account has ended,
        SecondFactorRequiredError, EmailNotVerifiedError, and ApiTokenLimitError.
        """
        owner = lock_owner(user, session)
        if not owner.email_verified:
            raise EmailNotVerifiedError
        if self.filter(user=owner).active().count() >= TOKEN_LIMIT:
            raise ApiTokenLimitError
        secret, expires_at = api_tokens.new_secret(), Now() + lifetime
        token = self.create(
            user=owner,
            name=name,
            scope=scope,
            digest=api_tokens.digest_of(secret),
            expires_at=expires_at,
        )
        token.refresh_from_db(fields=["created_at", "expires_at"])
        token.text = api_tokens.write(token.pk, secret)
        event = Event.objects.record(Event.Kind.TOKEN_CREATED, owner, detail=token.pk)
        OutgoingEmail.objects.enqueue(OutgoingEmail.Kind.TOKEN_CREATED, owner, event=event)
        return token

    @transaction.atomic
    def end(self, reason: str) -> int:
        """End the active tokens for a reason of sessions, record each, and return their number."""
        rows = self.active().select_for_update(of=("self",)).select_related("user").order_by("pk")
        tokens = list(rows)
        self.model.objects.filter(pk__in=[token.pk for token in tokens]).delete()
        for token in tokens:
            detail = f"{token.pk}: {reason}"
            Event.objects.record(Event.Kind.TOKEN_ENDED, token.user, detail=detail)
        return len(tokens)


def lock_owner(user: "User", session: Session) -> "User":
    """
    Lock and return an active user whose session is active, or raise StaleLoginError.

    Raises SecondFactorRequiredError where the session lacks the factor.
    """
    users = get_user_model().objects.select_for_update(no_key=True)
    owner = users.filter(pk=user.pk, is_active=True).first()
    if owner is None:
        raise StaleLoginError
    owner.check_session(session)
    return owner


@functools.cache
def authentication_query(model: Any) -> CompiledQuery:
    """Compile the query of a presented token; its parameter is the id."""
    tokens = model.objects.active().filter(pk=RawSQL("%s", ["id"]), user__is_active=True)
    age = models.ExpressionWrapper(
        Now() - models.F("last_used_at"), output_field=models.DurationField()
    )
    columns: Iterable[Any] = ("pk", "scope", "digest", age)
    return CompiledQuery(tokens.values_list(*columns, *(f"user__{name}" for name in user_fields())))


class ApiToken(models.Model):
    """A secret with which a machine acts as its user; the secret is stored as SHA-256 only."""

    class Scope(models.TextChoices):
        READ = "read", "read"
        WRITE = "write", "read and write"

    id = models.CharField(
        primary_key=True, max_length=api_tokens.ID_LENGTH, default=api_tokens.new_id, editable=False
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.CASCADE,
        related_name="api_tokens",
        db_index=False,
        editable=False,
    )
    name = LineField(max_length=50)
    scope = models.CharField(max_length=8, choices=Scope, editable=False)
    digest = models.CharField(max_length=64, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)

    objects = ApiTokenQuerySet.as_manager()

    # The token itself, where it was just issued.
    text: str | None = None

    class Meta:
        verbose_name = "API token"
        indexes = [
            models.Index(fields=["user", "-created_at", "-id"], name="accounts_apitoken_of_user"),
            models.Index(fields=["expires_at"], name="accounts_apitoken_expires_at"),
            models.Index(fields=["created_at", "id"], name="accounts_apitoken_created_at"),
        ]
        permissions = [("end_apitoken", "Can end API token")]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(scope__in=["read", "write"]), name="accounts_apitoken_scope"
            ),
            models.CheckConstraint(
                condition=models.Q(expires_at__lte=models.F("created_at") + LONGEST_LIFETIME),
                name="accounts_apitoken_lifetime",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} of {self.user}"

    @property
    def api_token_id(self) -> str:
        """The id, under its name in the log line of a request."""
        return self.pk

    @property
    def is_active(self) -> bool:
        return self.expires_at > timezone.now()

    @property
    def may_write(self) -> bool:
        return self.scope == ApiToken.Scope.WRITE
