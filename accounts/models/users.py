"""Users, and every change of their state."""

import unicodedata
from datetime import datetime
from typing import Any

from django.contrib.auth.hashers import check_password, make_password
from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.core.validators import MinLengthValidator, RegexValidator
from django.db import models, transaction
from django.db.models.functions import Lower, Now
from django.utils import timezone

from accounts.models.sessions import Session


class StaleLoginError(Exception):
    """The user was deactivated, deleted or given another password while this one was verified."""


def normalize(text: str) -> str:
    """Return the one form (Unicode NFKC, trimmed) of what may be written in several."""
    return unicodedata.normalize("NFKC", text).strip()


username_validator = RegexValidator(
    r"^[A-Za-z0-9_.-]+\Z", "Only ASCII letters, digits, '_', '.' and '-' are allowed."
)


class UserManager(BaseUserManager["User"]):
    def with_identity(self, identity: str) -> "User | None":
        """Return the user with this username or e-mail address, in any letter case and form."""
        name = normalize(identity).lower()
        field = "email" if "@" in name else "username"
        return self.alias(identity=Lower(field)).filter(identity=name).first()

    def create_user(self, username: str, email: str, password: str, **fields: Any) -> "User":
        """
        Create a user; raises IntegrityError where the username or the address is taken.

        What the fields may hold is for a form or a serializer to say first.
        """
        user = self.model(username=username, email=email, **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, username: str, email: str, password: str, **fields: Any) -> "User":
        """Create a user who may do everything; raises ValidationError where the fields don't."""
        user = self.model(username=username, email=email, **fields)
        user.is_staff = user.is_superuser = True
        user.set_password(password)
        user.full_clean()
        user.save(using=self._db)
        return user


class User(AbstractBaseUser, PermissionsMixin):
    username = models.CharField(
        max_length=50, validators=[MinLengthValidator(3), username_validator]
    )
    email = models.EmailField()
    names = models.CharField(max_length=150, blank=True, default="")
    is_staff = models.BooleanField("staff", default=False)
    is_active = models.BooleanField("active", default=True)
    date_joined = models.DateTimeField(default=timezone.now, editable=False)
    password_changed_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = UserManager()

    EMAIL_FIELD = "email"
    USERNAME_FIELD = "username"
    REQUIRED_FIELDS = ["email"]

    class Meta:
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
        ]

    def __str__(self) -> str:
        return self.username

    def full_clean(self, *args: Any, **kwargs: Any) -> None:
        """Normalise before anything is validated: NFKC may lengthen a text beyond its column."""
        for field in ("username", "email", "names"):
            setattr(self, field, normalize(getattr(self, field) or ""))
        super().full_clean(*args, **kwargs)

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
            super().save(*args, **kwargs)
            if new_user:
                return
            if not self.is_active:
                self.sessions.active().end(Session.Reason.ACCOUNT)
            elif new_password:
                others = self.sessions.exclude(pk=keep.pk) if keep else self.sessions
                others.active().end(Session.Reason.PASSWORD)

    def check_password(self, raw_password: str | None) -> bool:
        """Check a password; a hash that is upgraded doesn't undo a change made meanwhile."""

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

    def change_password(self, password: str, *, session: Session) -> None:
        """
        Set a new password and end the user's other sessions.

        Raises StaleLoginError where the old password, just verified, is the password no longer.
        """
        self.set_password(password)
        with transaction.atomic():
            self.lock_verified()
            if not self.sessions.active().filter(pk=session.pk).exists():
                raise StaleLoginError
            self.save(update_fields=["password"], keep=session)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Delete with all that is the user's; the lock makes whoever adds to it wait, and fail."""
        with transaction.atomic():
            User.objects.select_for_update().filter(pk=self.pk).first()
            return super().delete(*args, **kwargs)
