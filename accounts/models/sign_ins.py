"""How sessions begin and are renewed: by a proof of the account, while the user's row is locked."""

from datetime import datetime
from typing import TYPE_CHECKING

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import Exists
from django.db.models.functions import Now

from accounts.models.access import PasswordChangeRequiredError, granting_access
from accounts.models.events import Event
from accounts.models.outbox import OutgoingEmail
from accounts.models.proofs import PASSWORD, Proof
from accounts.models.session_tokens import SessionError, TokenQuerySet

if TYPE_CHECKING:
    from accounts.models import Session, User


class SignInQuerySet(TokenQuerySet):
    if TYPE_CHECKING:

        def end_least_recently_used(self, *, keep: int) -> None: ...

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
