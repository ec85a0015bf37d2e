"""Users, and every change of their state."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.contrib.auth.hashers import check_password, make_password
from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.contrib.auth.password_validation import validate_password
from django.contrib.postgres.indexes import GinIndex, OpClass
from django.core.validators import MinLengthValidator
from django.db import DEFAULT_DB_ALIAS, connection, models, transaction
from django.db.models.functions import Lower, Now, Upper
from django.utils import timezone

from accounts.identities import (
    LONGEST_EMAIL,
    STORED_EMAIL,
    STORED_USERNAME,
    EmailAddressField,
    lookup_form,
    username_validator,
)
from accounts.models.events import Event
from accounts.models.sessions import Session, field_names, owner_columns
from accounts.passwords import MAXIMUM_LENGTH
from api.text import LineField

# What an event says has changed, by its name; never to what.
RECORDED = frozenset(
    {"username", "email", "names", "is_active", "is_staff", "is_superuser", "must_change_password"}
)


class StaleLoginError(Exception):
    """The user was deactivated, deleted or given another password while this one was verified."""


class UserManager(BaseUserManager["User"]):
    def with_identity(self, identity: str) -> "User | None":
        """Return the user with this username or e-mail address, in any letter case."""
        return self.identify(identity)[1]

    def identify(self, identity: str) -> tuple[str, "User | None"]:
        """
        Return an identity in lower case, and the user that it names, if any.

        It is one statement, and the same one whether or not there is such a user.
        """
        form = lookup_form(identity)
        field = "email" if "@" in form else "username"
        statement = IDENTIFY.format(columns=owner_columns(self.model), field=field)
        with connection.cursor() as cursor:
            cursor.execute(statement, [form])
            folded, is_known, *row = cursor.fetchone()
        if not is_known:
            return folded, None
        return folded, self.model.from_db(DEFAULT_DB_ALIAS, field_names(self.model), row)

    def create_user(self, username: str, email: str, password: str, **fields: Any) -> "User":
        """
        Create a user; raises ValidationError, or IntegrityError where an identity is taken.

        The password's rules are for a form or a serializer to check first.
        """
        user = self.model(username=username, email=email, **fields)
        user.clean_fields(exclude=["password"])
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, username: str, email: str, password: str, **fields: Any) -> "User":
        """Create a user who may do everything; raises ValidationError."""
        user = self.model(username=username, email=email, **fields)
        user.is_staff = user.is_superuser = True
        user.full_clean(exclude=["password"])
        validate_password(password, user)
        user.set_password(password)
        user.save(using=self._db)
        return user


# The ORM has no join from a value. Both sides are lower-cased by the database.
IDENTIFY = """
    SELECT identity.folded, owner.id IS NOT NULL, {columns}
      FROM (SELECT lower(%s::text) AS folded) AS identity
      LEFT JOIN accounts_user AS owner ON lower(owner.{field}) = identity.folded
"""


class User(AbstractBaseUser, PermissionsMixin):
    username = models.CharField(
        max_length=50, validators=[MinLengthValidator(3), username_validator]
    )
    email = EmailAddressField(max_length=LONGEST_EMAIL)
    names = LineField(max_length=150, blank=True, default="")
    is_staff = models.BooleanField("staff", default=False)
    is_active = models.BooleanField("active", default=True)
    date_joined = models.DateTimeField(default=timezone.now, editable=False)
    password_changed_at = models.DateTimeField(default=timezone.now, editable=False)
    must_change_password = models.BooleanField(
        default=False,
        db_default=False,
        help_text="The next sign-in is refused until the user has chosen a new password.",
    )

    objects = UserManager()

    EMAIL_FIELD = "email"
    USERNAME_FIELD = "username"
    REQUIRED_FIELDS = ["email"]

    class Meta:
        indexes = [
            # Staff search for a part of a name; Django's icontains compares in upper case.
            GinIndex(
                *(OpClass(Upper(name), "gin_trgm_ops") for name in ("username", "email", "names")),
                name="accounts_user_words",
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                Lower("username"),
                name="accounts_user_username_unique",
                violation_error_code="unique",
                violation_error_message="A user with this username already exists.",
            ),
            models.UniqueConstraint(
                Lower("email"),
                name="accounts_user_email_unique",
                violation_error_code="unique",
                violation_error_message="A user with this e-mail address already exists.",
            ),
            models.CheckConstraint(
                condition=models.Q(username__regex=STORED_USERNAME),
                name="accounts_user_username_ascii",
            ),
            models.CheckConstraint(
                condition=models.Q(email__regex=STORED_EMAIL), name="accounts_user_email_ascii"
            ),
        ]

    def __str__(self) -> str:
        return self.username

    def clean(self) -> None:
        """Keep the username as it is: Django's NFKC would make another one of it."""

    def save(self, *args: Any, keep: Session | None = None, **kwargs: Any) -> None:
        """
        Save; a new password or a deactivation ends the sessions in the same transaction.

        All ways lead here: the API, the admin, `manage.py changepassword`. `keep` is the session
        that a new password leaves alive.
        """
        new_user = self._state.adding
        new_password = self._password is not None  # type: ignore[attr-defined]
        if new_password:
            self.password_changed_at = timezone.now()
            if kwargs.get("update_fields") is not None:
                kwargs["update_fields"] = {*kwargs["update_fields"], "password_changed_at"}
        with transaction.atomic():
            changes = self.changes(kwargs.get("update_fields"))
            super().save(*args, **kwargs)
            if new_user:
                Event.objects.record(Event.Kind.CREATED, self)
                return
            self.record(changes | ({"password"} if new_password else set()))
            if not self.is_active:
                self.sessions.active().end(Session.Reason.ACCOUNT)
            elif new_password:
                others = self.sessions.exclude(pk=keep.pk) if keep else self.sessions
                others.active().end(Session.Reason.PASSWORD)

    def changes(self, update_fields: Iterable[str] | None) -> set[str]:
        """Return the names of the recorded fields that a save is about to change."""
        fields = RECORDED if update_fields is None else RECORDED & set(update_fields)
        stored = User.objects.filter(pk=self.pk).values(*fields).first() if fields else None
        return {name for name, value in (stored or {}).items() if value != getattr(self, name)}

    def record(self, changes: set[str]) -> None:
        """Record what was changed: a kind of event for what has one, its name for the rest."""
        kinds = {
            "password": Event.Kind.PASSWORD_CHANGED,
            "is_active": Event.Kind.ACTIVATED if self.is_active else Event.Kind.DEACTIVATED,
        }
        if self.must_change_password:
            kinds["must_change_password"] = Event.Kind.PASSWORD_CHANGE_REQUIRED
        for name in sorted(changes & kinds.keys()):
            Event.objects.record(kinds[name], self)
        if rest := sorted(changes - kinds.keys() - {"must_change_password"}):
            Event.objects.record(Event.Kind.CHANGED, self, detail=", ".join(rest)[:100])

    def check_password(self, raw_password: str | None) -> bool:
        """Check a password; a hash that is upgraded doesn't undo a change made meanwhile."""
        if raw_password is None or len(raw_password) > MAXIMUM_LENGTH:
            return False

        def upgrade(raw_password: str) -> None:
            upgraded = make_password(raw_password)
            User.objects.filter(pk=self.pk, password=self.password).update(password=upgraded)
            self.password = upgraded

        return check_password(raw_password, self.password, upgrade)

    def lock_verified(self) -> datetime:
        """
        Lock the row of a user whose password was just verified and return the database's time.

        Raises StaleLoginError where it has become another password, or the user inactive or gone.
        """
        row = (
            User.objects.select_for_update(no_key=True)
            .filter(pk=self.pk, is_active=True, password_changed_at=self.password_changed_at)
            .annotate(now=Now())
            .first()
        )
        if row is None:
            raise StaleLoginError
        return row.now

    def change_password(self, password: str, *, session: Session | None) -> None:
        """
        Set a new password and end the user's sessions, but for the one that asked, if any.

        Raises StaleLoginError where the old password, just verified, is the password no longer.
        """
        self.set_password(password)
        self.must_change_password = False
        with transaction.atomic():
            self.lock_verified()
            if session and not self.sessions.active().filter(pk=session.pk).exists():
                raise StaleLoginError
            self.save(update_fields=["password", "must_change_password"], keep=session)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Delete with all that is the user's; the lock makes whoever adds to it wait, and fail."""
        with transaction.atomic():
            User.objects.select_for_update().filter(pk=self.pk).first()
            Event.objects.record(Event.Kind.DELETED, self)
            return super().delete(*args, **kwargs)
