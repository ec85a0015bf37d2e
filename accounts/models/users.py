"""Users, and every change of their state."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.contrib.auth.hashers import check_password, make_password
from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.contrib.auth.password_validation import validate_password
from django.contrib.postgres.indexes import GinIndex, OpClass
from django.core.validators import MinLengthValidator
from django.db import DEFAULT_DB_ALIAS, connection, models, transaction
from django.db.models import F
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
from accounts.models.batches import delete_referring_rows, key_batches
from accounts.models.changes import ChangesModel, RowDeletedError
from accounts.models.events import Event
from accounts.models.sessions import (
    RejectedError,
    Session,
    field_names,
    granting_access,
    owner_columns,
)
from accounts.passwords import MAXIMUM_LENGTH
from api.text import LineField

# What an event says has changed, by its name; never to what.
RECORDED = frozenset(
    {"username", "email", "names", "is_active", "is_staff", "is_superuser", "must_change_password"}
)


class StaleLoginError(RejectedError):
    """The user was deactivated, deleted or given another password while this one was verified."""

    reason = "account changed meanwhile"


class PasswordUnchangedError(RejectedError):
    """The user must choose another password, and chose the same one."""

    reason = "password unchanged"


class UserQuerySet(models.QuerySet["User"]):
    def end_sessions(self, reason: str) -> int:
        """
        End every session of these users, in the console too, and return the number of the API's.

        The users are locked first, so no login of theirs can end up in between.
        """
        ended = 0
        for keys in key_batches(self):
            users = User.objects.filter(pk__in=keys)
            with transaction.atomic():
                list(users.select_for_update(no_key=True).order_by("pk").values_list("pk"))
                users.update(session_epoch=F("session_epoch") + 1)
                ended += Session.objects.filter(user__in=keys).active().end(reason)
        return ended


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

    def create_superuser(
        self, username: str, email: str, password: str | None = None, **fields: Any
    ) -> "User":
        """Create a user who may do everything, without a password too; raises ValidationError."""
        user = self.model(username=username, email=email, **fields)
        user.is_staff = user.is_superuser = True
        user.full_clean(exclude=["password"])
        if password is not None:
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


class User(ChangesModel, AbstractBaseUser, PermissionsMixin):
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
        help_text="The next sign-in is rejected until the user has chosen a new password.",
    )
    # A console session is valid for the epoch in which it began.
    session_epoch = models.PositiveIntegerField(default=0, db_default=0, editable=False)

    objects = UserManager.from_queryset(UserQuerySet)()

    # The count of failures that a sign-in was verified under; the backend sets it.
    failures: Any = None
    # The password as `set_password` got it, until the row is saved.
    new_password: str | None = None
    # The database's time, where the row was locked to grant access.
    now: datetime

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

    def save(
        self, *, keep: Session | None = None, current: str | None = None, **options: Any
    ) -> None:
        """
        Save what changed since the row was read; raises RowDeletedError where it was deleted.

        A new password, a deactivation or an activation ends the sessions in the same transaction.
        All ways lead here: the API, the console, `manage.py changepassword`. `keep` is the session
        that a new password leaves active, `current` the stored password if it was just verified.
        Raises PasswordUnchangedError if staff demand a new password and this is the stored one.
        """
        with transaction.atomic():
            if self._state.adding:
                super().save(**options | {"force_insert": True})
                Event.objects.record(Event.Kind.CREATED, self)
            else:
                names = options.pop("update_fields", None)
                names = self.changed_fields() if names is None else set(names)
                self.save_fields(names, keep, current, **options)
        self.new_password = None
        self.remember()

    def save_fields(
        self, names: set[str], keep: Session | None, current: str | None, **options: Any
    ) -> None:
        stored = self.lock_stored()
        if "password" in names:
            self.reject_unchanged(stored, current)
            # Also where this row was read before staff demanded a new password.
            self.password_changed_at = timezone.now()
            names |= {"password_changed_at", "must_change_password"}
        changes = {name for name in names & stored.keys() if stored[name] != getattr(self, name)}
        reason = reason_to_end_sessions(changes)
        if reason:
            self.session_epoch = stored["session_epoch"] + 1
            names |= {"session_epoch"}
        super().save(**options, update_fields=names)
        self.record(changes)
        if reason:
            sessions = self.sessions.active()
            if keep and reason == Session.Reason.PASSWORD:
                sessions = sessions.exclude(pk=keep.pk)
            sessions.end(reason)

    def reject_unchanged(self, stored: dict[str, Any], current: str | None) -> None:
        """Raise PasswordUnchangedError if the password must change and is the stored one."""
        password = self.new_password
        if password is None or not stored["must_change_password"]:
            return
        if current is None:
            is_same = check_password(password, stored["password"])
        else:
            is_same = password == current  # Without a second hash.
        if is_same:
            raise PasswordUnchangedError

    def lock_stored(self) -> dict[str, Any]:
        """Lock the row and return what it holds of the fields that a change has an effect of."""
        row = User.objects.select_for_update(no_key=True).filter(pk=self.pk)
        values = [*RECORDED, "password", "session_epoch"]
        stored: dict[str, Any] | None = row.values(*values).first()
        if stored is None:
            raise RowDeletedError("The user was deleted.")
        return stored

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
            Event.objects.record_change(self, rest)

    def end_sessions(self, reason: str) -> int:
        """End every session of the user, in the console too; return the number of the API's."""
        return User.objects.filter(pk=self.pk).end_sessions(reason)

    def get_session_auth_hash(self) -> str:
        return f"{super().get_session_auth_hash()}-{self.session_epoch}"

    def get_session_auth_fallback_hash(self) -> Iterator[str]:
        for value in super().get_session_auth_fallback_hash():
            yield f"{value}-{self.session_epoch}"

    def clear_failures(self) -> None:
        """Forget the failed sign-ins before this one."""
        if self.failures is not None:
            self.failures.clear()

    def set_password(self, raw_password: str | None) -> None:
        super().set_password(raw_password)
        self.new_password = raw_password
        if not self._state.adding:
            self.must_change_password = False

    def check_password(self, raw_password: str | None) -> bool:
        """Check a password; a hash that is upgraded doesn't undo a change made meanwhile."""
        if raw_password is None or len(raw_password) > MAXIMUM_LENGTH:
            return False

        def upgrade(raw_password: str) -> None:
            upgraded = make_password(raw_password)
            User.objects.filter(pk=self.pk, password=self.password).update(password=upgraded)
            self.password = upgraded
            self.remember({"password"})

        return check_password(raw_password, self.password, upgrade)

    def lock_verified(self) -> "User":
        """
        Lock the row of a user whose password was just verified, and return it as it is `now`.

        Raises StaleLoginError where it has become another password, or the user inactive or gone.
        """
        row = (
            User.objects.select_for_update(no_key=True)
            .filter(pk=self.pk, is_active=True, password_changed_at=self.password_changed_at)
            .annotate(now=Now())  # type: ignore[no-redef]
            .first()
        )
        if row is None:
            raise StaleLoginError
        return row

    def change_password(
        self, password: str, *, session: Session | None, current: str | None = None
    ) -> None:
        """
        Set a new password and end the user's sessions, but for the one that asked, if any.

        `current` is the old password, just verified. Raises StaleLoginError where it is not the
        password any more, and PasswordUnchangedError where staff demand another.
        """
        with granting_access(self):
            self.set_password(password)
            self.save_verified(session, current)

    @transaction.atomic
    def save_verified(self, session: Session | None, current: str | None) -> None:
        self.lock_verified()
        if session and not self.sessions.active().filter(pk=session.pk).exists():
            raise StaleLoginError
        self.save(update_fields=["password"], keep=session, current=current)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """
        Delete with all that is the user's; a user who was deleted already is no deletion.

        The lock makes whatever adds to the user's rows wait, and then fail.
        """
        with transaction.atomic():
            if not User.objects.select_for_update().filter(pk=self.pk).exists():
                return 0, {}
            Event.objects.record(Event.Kind.DELETED, self)
            delete_referring_rows(self)
            return super().delete(*args, **kwargs)


def reason_to_end_sessions(changes: set[str]) -> str | None:
    """Return why changed fields end sessions; an activation restores none that was left over."""
    if "is_active" in changes:
        return Session.Reason.ACCOUNT
    return Session.Reason.PASSWORD if "password" in changes else None
