"""Users, and every change of their state."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import PermissionsMixin
from django.contrib.postgres.indexes import GinIndex, OpClass
from django.core.validators import MinLengthValidator
from django.db import models, transaction
from django.db.models.functions import Lower, Upper
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts.identities import ENCODED_WORD, STORED_EMAIL, STORED_USERNAME, username_validator
from accounts.models.addresses import EMAIL_TAKEN, AddressModel, AddressReservedError
from accounts.models.batches import delete_referring_rows
from accounts.models.changes import RowDeletedError
from accounts.models.credentials import CredentialsModel
from accounts.models.events import Event
from accounts.models.factor_recovery import FactorRecoveryModel
from accounts.models.managers import UserManager, UserQuerySet
from accounts.models.outbox import OutgoingEmail
from accounts.models.sessions import Session
from accounts.models.tickets import Ticket
from api.text import LineField

if TYPE_CHECKING:
    from accounts.models import ApiTokenQuerySet

# Changes of these fields are no event of their own. An event has the names of all others that
# changed, and never the values.
UNRECORDED = frozenset(
    {
        "last_login",
        "password_changed_at",
        "session_epoch",
        "must_change_password",
        "email_verified_at",
    }
)
RESETS = frozenset({Ticket.Purpose.RESET, Ticket.Purpose.UNDO, Ticket.Purpose.FORCE})
# An activation ends the tokens of an account that was deactivated by an UPDATE.
ENDS_API_TOKENS = frozenset({Session.Reason.ACCOUNT, Session.Reason.PASSWORD_RESET})
PASSWORD_NOTICES: dict[str, str] = {
    Event.Kind.PASSWORD_CHANGED: OutgoingEmail.Kind.PASSWORD_CHANGED,
    Event.Kind.PASSWORD_RESET: OutgoingEmail.Kind.PASSWORD_RESET,
}

USERNAME_TAKEN = _("A user with this username already exists.")


class User(AddressModel, CredentialsModel, FactorRecoveryModel, PermissionsMixin):
    username = models.CharField(
        max_length=50, validators=[MinLengthValidator(3), username_validator]
    )
    names = LineField(max_length=150, blank=True, default="")
    is_staff = models.BooleanField("staff", default=False)
    is_active = models.BooleanField("active", default=True)
    date_joined = models.DateTimeField(default=timezone.now, editable=False)
    password_changed_at = models.DateTimeField(default=timezone.now, editable=False)
    must_change_password = models.BooleanField(
        default=False,
        db_default=False,
        help_text=_("The next sign-in is rejected until the user has chosen a new password."),
    )
    # A console session is valid for the epoch in which it began.
    session_epoch = models.PositiveIntegerField(default=0, db_default=0, editable=False)

    objects = UserManager.from_queryset(UserQuerySet)()

    if TYPE_CHECKING:
        api_tokens: ApiTokenQuerySet

    EMAIL_FIELD = "email"
    USERNAME_FIELD = "username"
    REQUIRED_FIELDS = ["email"]

    class Meta:
        permissions = [("reset_factors", "Can reset second factors")]
        indexes = [
            # Staff search for a part of a name; Django's icontains compares in upper case.
            GinIndex(
                *(OpClass(Upper(name), "gin_trgm_ops") for name in ("username", "email", "names")),
                name="accounts_user_words",
            ),
            models.Index(
                fields=["id"],
                condition=models.Q(has_second_factor=True),
                name="accounts_user_second_factor",
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                Lower("username"),
                name="accounts_user_username_unique",
                violation_error_code="unique",
                violation_error_message=USERNAME_TAKEN,
            ),
            models.UniqueConstraint(
                Lower("email"),
                name="accounts_user_email_unique",
                violation_error_code="unique",
                violation_error_message=EMAIL_TAKEN,
            ),
            models.CheckConstraint(
                condition=models.Q(username__regex=STORED_USERNAME),
                name="accounts_user_username_ascii",
            ),
            models.CheckConstraint(
                condition=models.Q(email__regex=STORED_EMAIL), name="accounts_user_email_ascii"
            ),
            models.CheckConstraint(
                condition=~models.Q(email__contains=ENCODED_WORD),
                name="accounts_user_email_no_encoded_word",
            ),
        ]

    def __str__(self) -> str:
        return self.username

    def clean(self) -> None:
        """Keep the username as it is: Django's NFKC would make another one of it."""

    def save(
        self,
        *,
        keep: Session | None = None,
        current: str | None = None,
        ticket: Ticket | None = None,
        **options: Any,
    ) -> None:
        """
        Save what changed since the row was read; raises RowDeletedError where it was deleted.

        All ways to change a user lead here: the API, the console, `manage.py changepassword`. A new
        password or address, a deactivation or an activation ends sessions and tickets, and is
        recorded and announced, in the same transaction. A deactivation or a reset also ends API
        tokens; a plain change of the password does not. `keep` is the session that a new password
        or address leaves active, `current` the stored password if it was just verified. `ticket` is
        what permits the change, if it came by email or replaces a password that must be changed.
        Raises PasswordUnchangedError if staff demand a new password and this is the stored one.
        """
        with transaction.atomic():
            if self._state.adding:
                super().save(**options | {"force_insert": True})
                self.check_reserved()
                Event.objects.record(Event.Kind.CREATED, self)
            else:
                names = options.pop("update_fields", None)
                names = self.changed_fields() if names is None else set(names)
                stored = self.lock_stored()
                if "password" in names:
                    self.reject_unchanged(stored, current)
                self.save_fields(names, stored, keep, ticket, **options)
        self.new_password = None
        self.remember()

    def save_fields(
        self,
        names: set[str],
        stored: dict[str, Any],
        keep: Session | None,
        ticket: Ticket | None,
        **options: Any,
    ) -> None:
        if "password" in names:
            # Also where this row was read before staff demanded a new password.
            self.password_changed_at = timezone.now()
            names |= {"password_changed_at", "must_change_password"}
        changes = {name for name in names & stored.keys() if stored[name] != getattr(self, name)}
        if "email" in changes and not ticket:
            self.email_verified_at = None
            names |= {"email_verified_at"}
        reason = reason_to_end_sessions(changes, ticket)
        if reason:
            self.session_epoch = stored["session_epoch"] + 1
            names |= {"session_epoch"}
        super().save(**options, update_fields=names)
        self.end_tickets(changes)
        self.record(changes, stored, ticket)
        if reason:
            self.end_sessions_but(keep, reason)
        if reason in ENDS_API_TOKENS:
            self.api_tokens.end(reason)

    def check_reserved(self) -> None:
        """Raise AddressReservedError; after the write, which waits for who gives an address up."""
        if self.email_is_reserved:
            raise AddressReservedError("accounts_user_email_unique")

    def end_tickets(self, changes: set[str]) -> None:
        """End the tickets that are not valid any more, before new ones are issued."""
        if "is_active" in changes:
            Ticket.objects.end_all_of(self)
        if "email" in changes:
            self.check_reserved()
            Ticket.objects.end_after_address_change(self)
        if "password" in changes:
            Ticket.objects.end_after_password_change(self)

    def end_sessions_but(self, keep: Session | None, reason: str) -> None:
        sessions = self.sessions.active()
        if keep and reason != Session.Reason.ACCOUNT:
            sessions = sessions.exclude(pk=keep.pk)
        sessions.end(reason)

    def lock_stored(self) -> dict[str, Any]:
        """Lock the row and return its columns."""
        row = User.objects.select_for_update(no_key=True).filter(pk=self.pk)
        stored: dict[str, Any] | None = row.values().first()  # type: ignore[assignment]
        if stored is None:
            raise RowDeletedError("The user was deleted.")
        return stored

    def record(self, changes: set[str], stored: dict[str, Any], ticket: Ticket | None) -> None:
        """Record what was changed, and send the notices that belong to it."""
        kinds = self.kinds_of_changes(ticket)
        if "email" in changes:  # A new address is verified by the change itself.
            kinds.pop("email_verified_at", None)
        for name in sorted(changes & kinds.keys()):
            event = Event.objects.record(kinds[name], self)
            if name == "password":
                OutgoingEmail.objects.enqueue(PASSWORD_NOTICES[kinds[name]], self, event=event)
            elif event.kind == Event.Kind.EMAIL_CHANGED:
                self.announce_email_change(stored["email"], event, ticket)
        if rest := sorted(changes - kinds.keys() - UNRECORDED):
            Event.objects.record_change(self, rest)

    def kinds_of_changes(self, ticket: Ticket | None) -> dict[str, str]:
        """Return the kind of event of each field that has one of its own."""
        kinds, purpose = Event.Kind, ticket.purpose if ticket else None
        is_undo = purpose == Ticket.Purpose.UNDO
        own: dict[str, str] = {
            "email": kinds.EMAIL_RESTORED if is_undo else kinds.EMAIL_CHANGED,
            "is_active": kinds.ACTIVATED if self.is_active else kinds.DEACTIVATED,
            "password": kinds.PASSWORD_CHANGED,
        }
        if purpose in RESETS:
            own["password"] = kinds.PASSWORD_RESET
        if self.must_change_password:
            own["must_change_password"] = kinds.PASSWORD_CHANGE_REQUIRED
        if self.email_verified:
            own["email_verified_at"] = kinds.EMAIL_VERIFIED
        return own

    def end_sessions(self, reason: str) -> int:
        """End every session of the user, in the console too; return the number of the API's."""
        return User.objects.filter(pk=self.pk).end_sessions(reason)

    def get_session_auth_hash(self) -> str:
        return f"{super().get_session_auth_hash()}-{self.session_epoch}"

    def get_session_auth_fallback_hash(self) -> Iterator[str]:
        for value in super().get_session_auth_fallback_hash():
            yield f"{value}-{self.session_epoch}"

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """
        Delete with all that is the user's; a user who was deleted already is no deletion.

        The lock makes whatever adds to the user's rows wait, and then fail.
        """
        with transaction.atomic():
            if not User.objects.select_for_update().filter(pk=self.pk).exists():
                return 0, {}
            event = Event.objects.record(Event.Kind.DELETED, self)
            OutgoingEmail.objects.enqueue(OutgoingEmail.Kind.ACCOUNT_DELETED, self, event=event)
            delete_referring_rows(self)
            return super().delete(*args, **kwargs)


def reason_to_end_sessions(changes: set[str], ticket: Ticket | None) -> str | None:
    """Return why changed fields end the sessions, or None; an activation ends remaining ones."""
    reasons = Session.Reason
    if "is_active" in changes:
        return reasons.ACCOUNT
    if "password" in changes:
        is_reset = ticket and ticket.purpose in RESETS
        return reasons.PASSWORD_RESET if is_reset else reasons.PASSWORD
    return reasons.EMAIL if "email" in changes else None
