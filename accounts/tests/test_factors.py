"""Second factors as the models keep them: codes, recovery codes, and what a change of them ends."""

from collections.abc import Callable

import pytest
from django.db.models.functions import Now

from accounts.models import (
    EmailNotVerifiedError,
    Event,
    RecoveryCode,
    SecondFactorRequiredError,
    Session,
    StaleLoginError,
    TOTPDevice,
    User,
    WrongCodeError,
)
from accounts.models.codes import Code
from conftest import SignIn
from tests.rig.factors import code_of, enrol

SIGN_IN = {"address": "192.0.2.1", "user_agent": "", "device": "Unknown"}


@pytest.fixture
def alice(user: User) -> User:
    User.objects.update(email_verified_at=Now())
    return User.objects.get()


class TestEnrolment:
    def test_the_first_factor_brings_recovery_codes(self, alice: User) -> None:
        secret, codes = enrol(alice)

        assert len(secret) == 32
        assert len(set(codes)) == 10
        stored = User.objects.get()
        assert stored.has_second_factor
        assert stored.factor_methods() == ["totp", "recovery_code"]
        assert (stored.totp, stored.recovery_codes_left) == (True, 10)
        assert secret not in TOTPDevice.objects.get().secret

    def test_an_unverified_address_adds_none(self, user: User) -> None:
        with pytest.raises(EmailNotVerifiedError):
            user.begin_totp(session=None)

    def test_staff_need_no_verified_address(self, boss: User) -> None:
        enrol(boss)

        assert boss.has_second_factor

    def test_a_session_that_has_ended_adds_none(self, alice: User, sign_in: SignIn) -> None:
        sign_in(alice)
        session = Session.objects.get()
        Session.objects.all().end("staff")

        with pytest.raises(StaleLoginError):
            alice.begin_totp(session=session)

    def test_the_console_names_the_rows_without_a_secret(self, alice: User) -> None:
        enrol(alice)

        assert str(TOTPDevice.objects.get()) == "authenticator app of alice"
        assert str(RecoveryCode.objects.first()) == "recovery code of alice"

    def test_a_session_without_the_first_factor_changes_none(self, alice: User) -> None:
        """A request that was fresh may be in progress while the same session adds the factor."""
        session = Session.objects.start(alice, **SIGN_IN)
        alice.confirm_totp(code_of(alice.begin_totp(session=session)), session=session)

        for change in (alice.begin_totp, alice.remove_totp, alice.replace_recovery_codes):
            with pytest.raises(SecondFactorRequiredError):
                change(session=session)
        assert alice.recovery_codes_left == 10


class TestSignIn:
    def test_it_needs_the_factor(self, alice: User) -> None:
        enrol(alice)

        with pytest.raises(SecondFactorRequiredError):
            Session.objects.start(alice, **SIGN_IN)
        assert Event.objects.filter(kind="refused").get().detail == "second factor required"

    def test_a_code_proves_it(self, alice: User) -> None:
        code = code_of(enrol(alice)[0], 1)

        session = Session.objects.start(alice, **SIGN_IN, proof=Code(code=code))

        session.refresh_from_db()
        assert session.methods == ["pwd", "otp", "mfa"]
        assert session.factor_added_at == TOTPDevice.objects.get().confirmed_at
        with pytest.raises(WrongCodeError):
            Session.objects.reauthenticate(session, alice, proof=Code(code=code))

    def test_a_recovery_code_proves_it_once(self, alice: User) -> None:
        code = enrol(alice)[1][0]
        session = Session.objects.start(alice, **SIGN_IN, proof=Code(code=code.lower()))

        assert session.methods == ["pwd", "otp", "mfa"]
        assert session.factor_added_at == RecoveryCode.objects.first().created_at
        assert alice.recovery_codes_left == 9
        with pytest.raises(WrongCodeError):
            Session.objects.start(alice, **SIGN_IN, proof=Code(code=code))

    def test_the_first_factor_ends_the_other_sessions(
        self, alice: User, sign_in: SignIn, stranger: User
    ) -> None:
        for user in (alice, alice, stranger):
            sign_in(user)
        kept = alice.sessions.first()
        code = code_of(alice.begin_totp(session=kept))
        alice.confirm_totp(code, session=kept)

        assert list(alice.sessions.active()) == [kept]
        assert set(alice.sessions.exclude(pk=kept.pk).values_list("end_reason")) == {
            ("factor_changed",)
        }
        assert stranger.sessions.active().count() == 1


class TestRemoval:
    def test_the_last_factor_takes_the_recovery_codes_with_it(
        self, alice: User, make_user: Callable[..., User]
    ) -> None:
        enrol(alice)

        assert alice.remove_totp(session=None)
        assert not alice.has_second_factor
        assert not alice.remove_totp(session=None)
        assert not RecoveryCode.objects.exists()
        assert alice.factor_methods() == []
        assert alice.replace_recovery_codes(session=None) == []

    def test_new_recovery_codes_replace_the_old_ones(self, alice: User) -> None:
        _, old = enrol(alice)
        new = alice.replace_recovery_codes(session=None)

        assert len(set(old) | set(new)) == 20
        with pytest.raises(WrongCodeError):
            Session.objects.start(alice, **SIGN_IN, proof=Code(code=old[0]))
        Session.objects.start(alice, **SIGN_IN, proof=Code(code=new[0]))
