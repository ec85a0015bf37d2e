"""The password of a user: how it is checked, changed and reset."""

from datetime import datetime
from typing import TYPE_CHECKING, Any, Self, cast

from django.contrib.auth.hashers import check_password, make_password
from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.db.models.functions import Now

from accounts.models.access import RejectedError, granting_access
from accounts.models.changes import ChangesModel
from accounts.models.proofs import PASSWORD, Proof
from accounts.models.sessions import Session
from accounts.models.tickets import Ticket
from accounts.passwords import MAXIMUM_LENGTH

if TYPE_CHECKING:
    from accounts.models import SessionQuerySet, User


class StaleLoginError(RejectedError):
    """The user was deactivated, deleted or given another password while this one was verified."""

    reason = "account changed meanwhile"


class PasswordUnchangedError(RejectedError):
    """The user must choose another password, and chose the same one."""

    reason = "password unchanged"


class CredentialsModel(ChangesModel, AbstractBaseUser):
    """A user with a password. Hashing takes a second, so no row is locked while it runs."""

    # The count of failures that a sign-in was verified under; the backend sets it.
    failures: Any = None
    # The password as `set_password` got it, until the row is saved.
    new_password: str | None = None
    # The database's time, where the row was locked to grant access.
    now: datetime

    if TYPE_CHECKING:
        email: str
        email_verified_at: datetime | None
        is_active: bool
        must_change_password: bool
        password_changed_at: datetime
        sessions: SessionQuerySet

    class Meta:
        abstract = True

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
            rows = type(self)._default_manager.filter(pk=self.pk, password=self.password)
            rows.update(password=upgraded)
            self.password = upgraded
            self.remember({"password"})

        return check_password(raw_password, self.password, upgrade)

    def prove(self, proof: Proof) -> tuple[Self, Proof]:
        """
        Lock the row as `lock_verified` does, and use a proof; return both as they are now.

        A proof with a second factor cancels a factor reset.
        """
        verified = self.lock_verified(**proof.columns())
        user = cast("User", verified)
        used = proof.use(user)
        if used.has_second_factor:
            user.cancel_factor_reset()
        return verified, used

    def lock_verified(self, **columns: Any) -> Self:
        """
        Lock the row of a user whose password was just verified, and return it as it is `now`.

        `columns` are expressions that the same statement reads. Raises StaleLoginError if the
        password was changed, or the user deactivated or deleted.
        """
        row = (
            type(self)
            ._default_manager.select_for_update(no_key=True, of=("self",))
            .filter(pk=self.pk, is_active=True, password_changed_at=self.password_changed_at)
            .annotate(now=Now(), **columns)
            .first()
        )
        if row is None:
            raise StaleLoginError
        return row

    def change_password(
        self,
        password: str,
        *,
        session: Session | None,
        current: str | None = None,
        proof: Proof = PASSWORD,
    ) -> None:
        """
        Set a new password and end the user's sessions, but for the one that asked, if any.

        `current` is the old password, just verified. Raises StaleLoginError where it is not the
        password any more, SecondFactorRequiredError where the proof lacks a factor, and
        PasswordUnchangedError where staff demand another.
        """
        with granting_access(cast("User", self)):
            self.set_password(password)
            self.save_verified(session, current, proof)

    @transaction.atomic
    def save_verified(self, session: Session | None, current: str | None, proof: Proof) -> None:
        self.prove(proof)
        if session and not self.sessions.active().filter(pk=session.pk).exists():
            raise StaleLoginError
        cast("User", self).save(update_fields=["password"], keep=session, current=current)

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

    def reset_password(self, ticket: Ticket, password: str) -> None:
        """
        Set a new password with a `reset`, `undo` or `force` ticket, and end every session.

        A ticket from an email verifies the address that it was sent to; an `undo` restores it, and
        removes the factors that were added since.
        Raises TicketError where the ticket has ended meanwhile, PasswordUnchangedError where staff
        demand another password, and IntegrityError where another user has the former address.
        """
        forced = ticket.purpose == Ticket.Purpose.FORCE
        if forced and check_password(password, self.password):
            raise PasswordUnchangedError
        password_hash = make_password(password)
        with transaction.atomic():
            ticket.use()
            self.refresh_from_db()
            self.password, self.must_change_password = password_hash, False
            if not forced:
                cast("User", self).take_address(ticket)
            if ticket.purpose == Ticket.Purpose.UNDO:
                cast("User", self).undo_factors(ticket)
            cast("User", self).save(ticket=ticket)
