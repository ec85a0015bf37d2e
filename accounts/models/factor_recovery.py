"""How second factors are removed without proof: by an undo, or by a reset that staff begin."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from accounts.models.changes import RowDeletedError
from accounts.models.events import Event
from accounts.models.factors import FactorsModel, end_weaker_sessions
from accounts.models.outbox import OutgoingEmail
from accounts.models.proofs import Proof, SecondFactorRequiredError
from accounts.models.tickets import Ticket

if TYPE_CHECKING:
    from accounts.models import User

CANCELLED = "factor reset cancelled"


class FactorRecoveryModel(FactorsModel):
    class Meta:
        abstract = True

    def check_proof(self, proof: Proof) -> None:
        """
        Raise SecondFactorRequiredError, and record it, where the user has a factor that it lacks.

        A factor reset that is due takes effect first. What grants access checks again, while the
        row is locked.
        """
        if not proof.has_second_factor:
            self.apply_due_factor_reset()
        if self.has_second_factor and not proof.has_second_factor:
            Event.objects.record_rejection(cast("User", self), SecondFactorRequiredError.reason)
            raise SecondFactorRequiredError

    @transaction.atomic
    def begin_factor_reset(self) -> datetime | None:
        """
        Announce that all factors will be removed after FACTOR_RESET_HOURS, and return when.

        A sign-in with a factor cancels it, and so does the undo link of the notice. Returns None
        for a user without a factor; a reset that has begun goes on.
        """
        user = self.lock_row()
        if not user.has_second_factor or user.factor_reset_at:
            return user.factor_reset_at
        due = user.now + settings.FACTOR_RESET_DELAY
        self.set_factor_reset(user, due)
        detail = f"{due.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        event = Event.objects.record(Event.Kind.FACTOR_RESET_BEGUN, user, detail=detail)
        OutgoingEmail.objects.enqueue(
            OutgoingEmail.Kind.FACTOR_RESET_BEGUN,
            user,
            event=event,
            with_undo=True,
            since=user.now.isoformat(),
        )
        return due

    def cancel_factor_reset(self) -> None:
        """Cancel the reset that has begun, if any; this is the locked row."""
        user = cast("User", self)
        if self.factor_reset_at:
            self.set_factor_reset(user, None)
            Event.objects.record(Event.Kind.CHANGED, user, detail=CANCELLED)

    def apply_due_factor_reset(self) -> None:
        """Remove the factors if a reset is due; the password of the user was just verified."""
        if self.factor_reset_at is None:
            return
        with transaction.atomic():
            user = self.lock_row()
            if user.factor_reset_at and user.factor_reset_at <= user.now:
                self.remove_all_factors(user)
            # Another sign-in may have applied it since this row was read.
            self.has_second_factor = user.has_second_factor

    @transaction.atomic
    def reset_factors(self) -> bool:
        """Remove all factors at once, and return whether there were any."""
        user = self.lock_row()
        if not user.has_second_factor:
            return False
        self.remove_all_factors(user)
        return True

    def remove_all_factors(self, user: "User") -> None:
        for rows in user.factors().values():
            rows.delete()
        user.totp_devices.all().delete()
        self.update_has_factor(user)
        end_weaker_sessions(user, keep=None)
        event = Event.objects.record(Event.Kind.FACTORS_RESET, user)
        OutgoingEmail.objects.enqueue(OutgoingEmail.Kind.FACTOR_REMOVED, user, event=event)

    def undo_factors(self, ticket: Ticket) -> None:
        """
        Remove the factors that were added since the act that a used `undo` ticket undoes.

        This is the locked row, with its restored address. A reset that has begun is cancelled.
        """
        user = cast("User", self)
        since = datetime.fromisoformat(ticket.data.get("since", ticket.created_at.isoformat()))
        user.totp_devices.filter(confirmed_at=None).delete()
        user.recovery_codes.filter(created_at__gte=since).delete()
        removed = [
            kind
            for kind, rows in user.factors().items()
            if rows.filter(added_at__gte=since).delete()[0]
        ]
        self.cancel_factor_reset()
        self.update_has_factor(user)
        for kind in removed:
            event = Event.objects.record(Event.Kind.FACTOR_REMOVED, user, detail=kind)
            OutgoingEmail.objects.enqueue(OutgoingEmail.Kind.FACTOR_REMOVED, user, event=event)

    def set_factor_reset(self, user: "User", due: datetime | None) -> None:
        type(user)._default_manager.filter(pk=user.pk).update(factor_reset_at=due)
        for row in (self, user):
            row.factor_reset_at = due
            row.remember({"factor_reset_at"})

    def lock_row(self) -> "User":
        """Lock the row and return it as it is `now`; raises RowDeletedError."""
        users = type(cast("User", self))._default_manager.select_for_update(no_key=True)
        user = users.filter(pk=self.pk).annotate(now=Now()).first()  # type: ignore[no-redef]
        if user is None:
            raise RowDeletedError("The user was deleted.")
        return user
