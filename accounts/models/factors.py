"""
The second factors of a user: how they are added, used, removed and reset.

Every change happens while the user's row is locked, so `has_second_factor` is what the rows say,
and a request can read it from its user without a query.
"""

from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from django.db import models, transaction
from django.db.models import Exists, F, OuterRef

from accounts.models.addresses import EmailNotVerifiedError
from accounts.models.changes import ChangesModel
from accounts.models.codes import WrongCodeError
from accounts.models.credentials import StaleLoginError
from accounts.models.events import Event
from accounts.models.outbox import OutgoingEmail
from accounts.models.passkeys import Passkey
from accounts.models.proofs import MFA, PASSWORD, Proof
from accounts.models.recovery_codes import LENGTH, RecoveryCode, normal_form
from accounts.models.sessions import Session
from accounts.models.tickets import Ticket
from accounts.models.totp import NEVER, TOTPDevice, step_of

if TYPE_CHECKING:
    from accounts.models import SessionQuerySet, User

# The methods that prove a second factor, in the order in which clients offer them.
METHODS: dict[str, models.QuerySet[Any]] = {
    "totp": TOTPDevice.objects.confirmed(),
    "recovery_code": RecoveryCode.objects.unused(),
    "passkey": Passkey.objects.all(),
}


class FactorsModel(ChangesModel):
    has_second_factor = models.BooleanField(default=False, db_default=False, editable=False)
    # When a factor reset takes effect that staff have begun.
    factor_reset_at = models.DateTimeField(null=True, editable=False)
    # What the session has proven, if it is one of the console, which is no row of `sessions`.
    proof: Proof = PASSWORD
    # The WebAuthn user handle.
    passkey_handle = models.UUIDField(null=True, unique=True, editable=False)

    if TYPE_CHECKING:
        sessions: SessionQuerySet
        totp_devices: Any
        recovery_codes: Any
        passkeys: Any
        session_epoch: int
        now: datetime
        # What `Code.columns` returns of the confirmed authenticator app.
        totp_id: int | None
        totp_secret: str | None
        totp_confirmed_at: datetime | None

    class Meta:
        abstract = True

    # What a user has

    def factor_methods(self) -> list[str]:
        """Return the methods that can prove a second factor of this user, in one query."""
        row = type(self)._default_manager.filter(pk=self.pk)
        found = row.values_list(*(Exists(of_user(rows)) for rows in METHODS.values())).get()
        return [method for method, exists in zip(METHODS, found, strict=True) if exists]

    @property
    def totp(self) -> bool:
        """Tell whether the user has an authenticator app."""
        return self.has_second_factor and self.totp_devices.confirmed().exists()

    @property
    def recovery_codes_left(self) -> int:
        return self.recovery_codes.unused().count() if self.has_second_factor else 0

    @property
    def passkey_count(self) -> int:
        return self.passkeys.count() if self.has_second_factor else 0

    # Adding and removing

    @transaction.atomic
    def begin_totp(self, *, session: Session | None) -> str:
        """
        Return the secret of a new authenticator app, which a code of it must confirm.

        Raises StaleLoginError and EmailNotVerifiedError.
        """
        user = cast("User", self).lock_verified()
        self.check_addition(user, session)
        return TOTPDevice.objects.begin(user)

    @transaction.atomic
    def confirm_totp(self, code: str, *, session: Session | None) -> list[str] | None:
        """
        Confirm the pending authenticator app, which replaces an earlier one.

        Returns recovery codes if it is the first factor. Raises WrongCodeError, also where nothing
        is pending, StaleLoginError and EmailNotVerifiedError.
        """
        user = cast("User", self).lock_verified()
        device = user.totp_devices.pending().first()
        step = step_of(device.secret, normal_form(code), user.now) if device else NEVER
        # Before the session: of several requests with one code, all but the first have used it.
        if device is None or step == NEVER:
            raise WrongCodeError
        self.check_addition(user, session)
        if user.totp_devices.confirmed().delete()[0]:
            Event.objects.record(Event.Kind.FACTOR_REMOVED, user, session=session, detail="totp")
        device.confirm(step, user.now)
        return self.add_factor(user, "totp", session=session)

    @transaction.atomic
    def remove_totp(self, *, session: Session | None) -> bool:
        """Remove the authenticator app, and return whether there was one."""
        user = self.lock_to_change_factors(session)
        user.totp_devices.filter(confirmed_at=None).delete()
        removed, _ = user.totp_devices.all().delete()
        if removed:
            self.remove_factor(user, "totp", session=session)
        return bool(removed)

    @transaction.atomic
    def replace_recovery_codes(self, *, session: Session | None) -> list[str]:
        """Return ten new recovery codes; none if the user has no factor."""
        user = self.lock_to_change_factors(session)
        if not user.has_second_factor:
            return []
        kinds = Event.Kind
        event = Event.objects.record(kinds.RECOVERY_CODES_REPLACED, user, session=session)
        OutgoingEmail.objects.enqueue(OutgoingEmail.Kind.RECOVERY_CODES_REPLACED, user, event=event)
        return RecoveryCode.objects.replace(user)

    def lock_to_change_factors(self, session: Session | None) -> "User":
        """Lock the row; raises StaleLoginError where the account has changed, and as below."""
        user = cast("User", self).lock_verified()
        self.check_change(user, session)
        return user

    def check_change(self, user: "User", session: Session | None) -> None:
        """
        Raise StaleLoginError where the session has ended, while `user` is the locked row.

        A session of the console has none of the API's: it belongs to the epoch of this user. Raises
        SecondFactorRequiredError as `check_session` does.
        """
        if session:
            user.check_session(session)
        elif user.session_epoch != self.session_epoch:
            raise StaleLoginError

    def check_addition(self, user: "User", session: Session | None) -> None:
        """Raise EmailNotVerifiedError where the user can add no factor, and as `check_change`."""
        self.check_change(user, session)
        # Staff accounts are made by staff, and the service may have no email.
        if not (user.email_verified or user.is_staff):
            raise EmailNotVerifiedError

    def check_session(self, session: Session) -> None:
        """
        Raise StaleLoginError where a session has ended, while this row is locked.

        Raises SecondFactorRequiredError where the session lacks a factor that was added since the
        request began: its token was fresh then.
        """
        sessions = self.sessions.active().filter(pk=session.pk)
        methods = sessions.values_list("methods", flat=True).first()
        if methods is None:
            raise StaleLoginError
        Proof(tuple(methods)).use(cast("User", self))

    def add_factor(self, user: "User", kind: str, *, session: Session | None) -> list[str] | None:
        """
        Record a factor whose row was written, while `user` is this user's locked row.

        Returns recovery codes if it is the first. The notice has an undo link, unless the session
        was signed in with a factor that outranks the mailbox.
        """
        is_first = not user.has_second_factor
        self.set_has_factor(user, has_any=True)
        end_weaker_sessions(user, keep=session)
        event = Event.objects.record(Event.Kind.FACTOR_ADDED, user, session=session, detail=kind)
        OutgoingEmail.objects.enqueue(
            OutgoingEmail.Kind.FACTOR_ADDED,
            user,
            event=event,
            with_undo=not (session or self.proof).outranks_mailbox,
            since=user.now.isoformat(),
        )
        return RecoveryCode.objects.replace(user) if is_first else None

    def remove_factor(self, user: "User", kind: str, *, session: Session | None) -> None:
        """Record that the row of a factor was deleted, while `user` is the locked row."""
        self.update_has_factor(user)
        end_weaker_sessions(user, keep=session)
        event = Event.objects.record(Event.Kind.FACTOR_REMOVED, user, session=session, detail=kind)
        OutgoingEmail.objects.enqueue(OutgoingEmail.Kind.FACTOR_REMOVED, user, event=event)

    def update_has_factor(self, user: "User") -> None:
        """Set `has_second_factor` from the rows that are left; without any, delete the codes."""
        has_any = any(rows.exists() for rows in user.factors().values())
        if not has_any:
            user.recovery_codes.all().delete()
        self.set_has_factor(user, has_any=has_any)

    def factors(self) -> dict[str, models.QuerySet[Any]]:
        """Return the rows of each kind, with `added_at`. Recovery codes are none by themselves."""
        return {
            "totp": self.totp_devices.confirmed().annotate(added_at=F("confirmed_at")),
            "passkey": self.passkeys.annotate(added_at=F("created_at")),
        }

    def set_has_factor(self, user: "User", *, has_any: bool) -> None:
        """
        Set whether the user has a factor, and end the tickets of sign-ins that are in progress.

        With the first factor the console's sessions end: none of them was signed in with one. A
        reset ends with the last one, or it would remove factors that are added later.
        """
        changes: dict[str, Any] = {"has_second_factor": has_any}
        if not has_any:
            changes["factor_reset_at"] = None
        if has_any and not user.has_second_factor:
            changes["session_epoch"] = user.session_epoch + 1
        type(user)._default_manager.filter(pk=user.pk).update(**changes)
        for row in (self, user):
            for name, value in changes.items():
                setattr(row, name, value)
            row.remember(set(changes))
        Ticket.objects.end_after_factor_change(user)

    # Using a code

    def use_code(self, code: str) -> datetime:
        """
        Use a code of the locked row's authenticator app, or a recovery code, in any writing.

        Returns when that factor was added. Raises WrongCodeError. A wrong code, a used one and
        a malformed one take the same statements.
        """
        text = normal_form(code)
        added_at = self.use_recovery_code(text) if len(text) == LENGTH else self.use_totp(text)
        if added_at is None:
            raise WrongCodeError
        return added_at

    def use_totp(self, code: str) -> datetime | None:
        step = step_of(self.totp_secret, code, self.now) if self.totp_secret else NEVER
        # One conditional UPDATE: the code works once, whatever else runs.
        device = TOTPDevice.objects.filter(pk=self.totp_id or 0, last_step__lt=step)
        return self.totp_confirmed_at if device.update(last_step=step) else None

    def use_recovery_code(self, code: str) -> datetime | None:
        user = cast("User", self)
        issued_at = RecoveryCode.objects.use(user, code)
        if issued_at:
            left = str(self.recovery_codes.unused().count())
            event = Event.objects.record(Event.Kind.RECOVERY_CODE_USED, user, detail=left)
            OutgoingEmail.objects.enqueue(OutgoingEmail.Kind.RECOVERY_CODE_USED, user, event=event)
        return issued_at


def of_user(rows: models.QuerySet[Any]) -> models.QuerySet[Any]:
    return rows.filter(user=OuterRef("pk"))


def end_weaker_sessions(user: "User", *, keep: Session | None) -> None:
    """End the sessions, except one, that were signed in without a second factor."""
    sessions = user.sessions.active().exclude(methods__contains=[MFA])
    (sessions.exclude(pk=keep.pk) if keep else sessions).end(Session.Reason.FACTOR)
