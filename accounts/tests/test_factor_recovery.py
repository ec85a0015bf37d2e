"""How factors are undone and reset, and how they and the other ways into an account interplay."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db.models.functions import Now
from django.test import Client
from pytest_django import Settings

from accounts.encryption import encrypt
from accounts.models import Event, RecoveryCode, Session, Ticket, TOTPDevice, User
from accounts.models.changes import RowDeletedError
from accounts.models.proofs import PASSWORD as PASSWORD_PROOF
from conftest import API, PASSWORD, SignIn
from tests.rig.factors import begin_login, client_of, code_of, complete, enrol, sign_in_with
from tests.rig.lifecycle import (
    NEW_PASSWORD,
    TOKEN,
    change_address,
    delivered,
    errors,
    forgot,
    inbox,
    post,
    reset,
    reset_by_email,
    token_sent_to,
)

ADDRESS = "alice@example.com"
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def lifted_limits(settings: Settings) -> None:
    settings.AUTH_RATE_LIMIT = settings.LOGIN_FAILURE_LIMIT = (1_000_000, 60)
    settings.EMAIL_LIMIT = (1_000_000, 60)


@pytest.fixture
def alice(user: User) -> User:
    User.objects.update(email_verified_at=Now())
    return User.objects.get()


def stored(user: User) -> User:
    return User.objects.get(pk=user.pk)


def login(password: str = PASSWORD) -> Any:
    return post("/auth/login", {"identity": "alice", "password": password})


def make_old(age: timedelta = 8 * DAY) -> None:
    """Let the factors be older than UNDO_DAYS."""
    TOTPDevice.objects.update(confirmed_at=Now() - age)
    RecoveryCode.objects.update(created_at=Now() - age)


def forget_codes() -> None:
    TOTPDevice.objects.update(last_step=0)


def links_to(address: str, subject: str) -> list[str]:
    found = [TOKEN.search(str(m.body)) for m in inbox(address) if subject in m.subject]
    return [match[1] for match in found if match]


class TestNotices:
    def test_each_change_sends_an_email(self, alice: User) -> None:
        secret, codes = enrol(alice)
        device = sign_in_with(codes[0])
        device.post(f"{API}/users/me/recovery-codes")
        device.delete(f"{API}/users/me/totp")

        assert [kind for kind, _ in delivered()] == [
            "factor_added",
            "factor_removed",
            "recovery_code_used",
            "recovery_codes_replaced",
        ]
        [used] = [m for m in inbox(ADDRESS) if "recovery code was used" in m.subject]
        assert "Codes left: 9." in used.body
        assert secret not in used.body


class TestUndo:
    def test_it_removes_the_factor_that_a_thief_added(self, alice: User, sign_in: SignIn) -> None:
        thief = sign_in(alice)
        secret = thief.post(f"{API}/users/me/totp").json()["secret"]
        thief.post(f"{API}/users/me/totp/confirm", {"code": code_of(secret)})
        thief.post(f"{API}/users/me/totp")
        [undo] = links_to(ADDRESS, "factor was added")

        assert reset(undo).status_code == 204

        assert not stored(alice).has_second_factor
        assert not TOTPDevice.objects.exists()
        assert not RecoveryCode.objects.exists()
        assert thief.get(f"{API}/users/me").status_code == 401
        assert login(NEW_PASSWORD).status_code == 200
        assert ("factor_removed", ADDRESS) in delivered()

    def test_it_leaves_older_factors(self, alice: User) -> None:
        _, codes = enrol(alice)
        make_old(timedelta(minutes=5))
        device = sign_in_with(codes[0])
        new = device.post(f"{API}/users/me/recovery-codes").json()["recovery_codes"]
        undo = Ticket.objects.issue("undo", alice, address=ADDRESS)
        RecoveryCode.objects.update(created_at=Now() + timedelta(seconds=1))

        assert reset(undo.token).status_code == 204

        assert stored(alice).has_second_factor
        assert not RecoveryCode.objects.exists(), "the thief made these"
        assert complete(begin_login(password=NEW_PASSWORD), new[1]).status_code == 401

    def test_an_undo_of_an_address_removes_what_was_added_since_the_request(
        self, alice: User, sign_in: SignIn
    ) -> None:
        thief = sign_in(alice)
        change_address(thief, "thief@example.com")
        undo = token_sent_to(ADDRESS)
        enrol(stored(alice))

        assert reset(undo).status_code == 204
        assert (stored(alice).email, stored(alice).has_second_factor) == (ADDRESS, False)

    def test_an_undo_of_a_factor_restores_the_address_of_its_time(self, alice: User) -> None:
        _, codes = enrol(alice)
        [undo] = links_to(ADDRESS, "factor was added")
        change_address(sign_in_with(codes[0]), "thief@example.com")

        assert reset(undo).status_code == 204
        assert (stored(alice).email, stored(alice).has_second_factor) == (ADDRESS, False)

    def test_a_young_factor_leaves_an_undo(self, alice: User) -> None:
        secret, _ = enrol(alice)
        device = sign_in_with(code_of(secret))
        new = device.post(f"{API}/users/me/totp").json()["secret"]
        device.post(f"{API}/users/me/totp/confirm", {"code": code_of(new)})
        change_address(device, "new@example.com")

        assert len(links_to(ADDRESS, "factor was added")) == 2
        assert len(links_to(ADDRESS, "address was changed")) == 1

    def test_a_factor_older_than_the_undo_outranks_the_mailbox(
        self, alice: User, make_user: Callable[..., User]
    ) -> None:
        secret, _ = enrol(alice)
        Ticket.objects.all().delete()
        make_old()
        device = sign_in_with(code_of(secret))
        new = device.post(f"{API}/users/me/totp").json()["secret"]
        device.post(f"{API}/users/me/totp/confirm", {"code": code_of(new)})
        change_address(device, "new@example.com")

        assert links_to(ADDRESS, "factor was added") == []
        assert links_to(ADDRESS, "address was changed") == []
        assert not Ticket.objects.filter(purpose="undo").exists()
        assert make_user("bob", email=ADDRESS).email == ADDRESS, "no undo can restore it"

    def test_none_is_issued_for_no_days(self, alice: User, settings: Settings) -> None:
        settings.UNDO_LIFETIME = timedelta(0)
        enrol(alice)

        assert links_to(ADDRESS, "factor was added") == []


class TestReset:
    def test_it_takes_effect_at_a_sign_in_after_its_delay(self, alice: User) -> None:
        enrol(alice)
        due = alice.begin_factor_reset()

        assert due == stored(alice).factor_reset_at
        assert login().json()["code"] == "mfa_required"
        begun = Event.objects.get(kind="factor_reset_begun")
        assert begun.detail == f"{due:%Y-%m-%d %H:%M} UTC"
        [notice] = [m for m in inbox(ADDRESS) if "will be removed" in m.subject]
        assert f"It takes effect at {begun.detail}." in " ".join(notice.body.split())

        User.objects.update(factor_reset_at=Now())

        assert login().status_code == 200
        assert (stored(alice).has_second_factor, stored(alice).factor_reset_at) == (False, None)
        assert not RecoveryCode.objects.exists()
        assert Event.objects.filter(kind="factors_reset").count() == 1
        assert ("factor_removed", ADDRESS) in delivered()

    def test_a_wrong_password_does_not_apply_it(self, alice: User) -> None:
        enrol(alice)
        User.objects.update(factor_reset_at=Now())

        assert login("wrong").status_code == 401
        assert stored(alice).has_second_factor

    def test_a_change_of_the_password_by_identity_applies_it(self, alice: User) -> None:
        enrol(alice)
        User.objects.update(factor_reset_at=Now())
        body = {"identity": "alice", "current_password": PASSWORD, "new_password": NEW_PASSWORD}

        assert post("/auth/password", body).status_code == 204
        assert not stored(alice).has_second_factor

    def test_to_begin_again_does_not_begin_it_anew(self, alice: User) -> None:
        enrol(alice)
        due = alice.begin_factor_reset()

        assert alice.begin_factor_reset() == due
        assert Event.objects.filter(kind="factor_reset_begun").count() == 1

    def test_there_is_none_without_a_factor(self, alice: User) -> None:
        assert alice.begin_factor_reset() is None
        assert not Event.objects.filter(kind="factor_reset_begun").exists()

    def test_there_is_none_for_a_deleted_user(self, alice: User) -> None:
        stale = stored(alice)
        alice.delete()

        with pytest.raises(RowDeletedError):
            stale.begin_factor_reset()

    @pytest.mark.parametrize("how", ["login", "reauthentication"])
    def test_a_sign_in_with_a_factor_cancels_it(self, alice: User, how: str) -> None:
        secret, codes = enrol(alice)
        device = sign_in_with(codes[0])
        alice.begin_factor_reset()
        User.objects.update(factor_reset_at=Now() + timedelta(seconds=1))

        if how == "login":
            sign_in_with(code_of(secret))
        else:
            body = {"password": PASSWORD, "code": code_of(secret)}
            assert device.post(f"{API}/auth/reauthenticate", body).status_code == 200

        assert stored(alice).factor_reset_at is None
        assert Event.objects.filter(detail="factor reset cancelled").count() == 1

    def test_a_sign_in_with_a_factor_cancels_one_that_is_due(self, alice: User) -> None:
        """The password alone would have applied it; a ticket from before may still be completed."""
        secret, _ = enrol(alice)
        token = begin_login()
        User.objects.update(factor_reset_at=Now())

        assert complete(token, code_of(secret)).status_code == 200
        assert (stored(alice).has_second_factor, stored(alice).factor_reset_at) == (True, None)

    def test_it_ends_with_the_last_factor_and_removes_no_later_one(self, alice: User) -> None:
        _, codes = enrol(alice)
        device = sign_in_with(codes[0])
        alice.begin_factor_reset()
        assert device.delete(f"{API}/users/me/totp").status_code == 204
        enrol(stored(alice))
        User.objects.exclude(factor_reset_at=None).update(factor_reset_at=Now())

        assert login().json()["code"] == "mfa_required"
        assert stored(alice).has_second_factor

    def test_the_link_of_its_notice_cancels_it(self, alice: User) -> None:
        enrol(alice)
        make_old()
        alice.begin_factor_reset()
        [undo] = links_to(ADDRESS, "will be removed")

        assert reset(undo).status_code == 204
        assert stored(alice).factor_reset_at is None
        assert stored(alice).has_second_factor
        assert login(NEW_PASSWORD).json()["code"] == "mfa_required"

    def test_a_request_that_read_the_user_before_the_cancel_applies_nothing(
        self, alice: User
    ) -> None:
        enrol(alice)
        alice.factor_reset_at = alice.date_joined  # As it was read before.

        alice.apply_due_factor_reset()

        assert stored(alice).has_second_factor

    def test_of_two_sign_ins_at_once_both_succeed_when_it_is_due(self, alice: User) -> None:
        enrol(alice)
        User.objects.update(factor_reset_at=Now())
        stale = stored(alice)
        assert login().status_code == 200

        stale.check_proof(PASSWORD_PROOF)

        assert not stale.has_second_factor
        assert Event.objects.filter(kind="factors_reset").count() == 1

    def test_the_command_resets_at_once(self, alice: User, capsys: Any) -> None:
        enrol(alice)
        call_command("resetfactors", "Alice@example.com")

        assert "of alice were removed" in capsys.readouterr().out
        assert login().status_code == 200
        with pytest.raises(CommandError, match="alice has no second factor"):
            call_command("resetfactors", "alice")
        with pytest.raises(CommandError, match="no user 'bob'"):
            call_command("resetfactors", "bob")


class TestInterplay:
    def test_a_reset_of_the_password_keeps_the_factor(self, alice: User) -> None:
        secret, _ = enrol(alice)
        reset_by_email("alice", ADDRESS)

        assert stored(alice).has_second_factor
        assert complete(begin_login(password=NEW_PASSWORD), code_of(secret)).status_code == 200

    def test_a_reset_of_the_password_ends_a_sign_in_in_progress(self, alice: User) -> None:
        secret, _ = enrol(alice)
        token = begin_login()
        reset_by_email("alice", ADDRESS)

        assert errors(complete(token, code_of(secret))) == {"mfa_token": "ticket_not_valid"}

    def test_the_factor_comes_before_a_forced_change(self, alice: User) -> None:
        secret, _ = enrol(alice)
        User.objects.update(must_change_password=True)
        code = code_of(secret)

        response = complete(begin_login(), code)

        assert (response.status_code, response.json()["code"]) == (403, "password_change_required")
        assert not Session.objects.exists()
        assert complete(begin_login(), code).status_code == 401, "the code was used"
        assert reset(response.json()["reset_token"]).status_code == 204
        token = begin_login(password=NEW_PASSWORD)
        assert complete(token, code_of(secret, 1)).status_code == 200

    def test_a_forced_change_at_a_reauthentication(self, alice: User) -> None:
        secret, _ = enrol(alice)
        device = sign_in_with(code_of(secret))
        User.objects.update(must_change_password=True)
        body = {"password": PASSWORD, "code": code_of(secret, 1)}

        response = device.post(f"{API}/auth/reauthenticate", body)

        assert (response.status_code, response.json()["code"]) == (403, "password_change_required")

    def test_a_deactivation_ends_a_sign_in_in_progress(self, alice: User) -> None:
        secret, _ = enrol(alice)
        token = begin_login()
        user = stored(alice)
        for user.is_active in (False, True):
            user.save()

        assert errors(complete(token, code_of(secret))) == {"mfa_token": "ticket_not_valid"}
        assert complete(begin_login(), code_of(secret)).status_code == 200

    def test_an_inactive_user_completes_nothing(self, alice: User) -> None:
        secret, _ = enrol(alice)
        token = begin_login()
        User.objects.update(is_active=False)

        assert errors(complete(token, code_of(secret))) == {"mfa_token": "ticket_not_valid"}

    def test_a_deletion_removes_the_factors(self, alice: User) -> None:
        secret, _ = enrol(alice)
        token = begin_login()
        device = sign_in_with(code_of(secret))

        assert device.delete(f"{API}/users/{alice.pk}").status_code == 204
        assert not TOTPDevice.objects.exists()
        assert not RecoveryCode.objects.exists()
        assert errors(complete(token, code_of(secret))) == {"mfa_token": "ticket_not_valid"}

    def test_a_change_of_address_keeps_the_factor(self, alice: User) -> None:
        secret, codes = enrol(alice)
        change_address(sign_in_with(codes[0]), "new@example.com")

        assert complete(begin_login(), code_of(secret)).status_code == 200

    def test_sessions_without_the_factor_end_when_it_is_removed(self, alice: User) -> None:
        secret, _ = enrol(alice)
        device = sign_in_with(code_of(secret))
        old = Session.objects.get()
        old.pk, old.methods = None, ["pwd"]
        old.save(force_insert=True)

        device.delete(f"{API}/users/me/totp")

        assert Session.objects.active().get().methods == ["pwd", "otp", "mfa"]

    def test_a_forgotten_password_is_sent_to_a_user_with_a_factor(self, alice: User) -> None:
        enrol(alice)
        forgot("alice")

        assert ("reset_password", ADDRESS) in delivered()

    def test_the_first_factor_ends_the_console(self, boss: User, console: Client) -> None:
        assert console.get("/admin/").status_code == 200
        enrol(boss)

        assert console.get("/admin/").status_code == 302

    def test_the_password_page_of_the_console_is_no_way_round_the_factor(self, boss: User) -> None:
        enrol(boss)
        form = {"old_password": PASSWORD}
        form |= {"new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
        browser = Client()
        browser.force_login(boss)  # With a password alone.

        for client in (Client(), browser):
            page = client.post("/admin/password_change/", form)

            assert page.url == "/admin/login/?next=/admin/password_change/"
        assert stored(boss).check_password(PASSWORD)


class TestSecretRotation:
    def test_a_secret_of_before_works_and_is_rotated(
        self, alice: User, settings: Settings, capsys: Any
    ) -> None:
        secret, _ = enrol(alice)
        settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
        settings.SECRET_KEY = "another secret of the service, long enough"
        assert len(list(TOTPDevice.objects.outdated())) == 1
        assert complete(begin_login(), code_of(secret)).status_code == 200

        call_command("rotatefactors")

        assert "1 secret(s) encrypted anew" in capsys.readouterr().out
        settings.SECRET_KEY_FALLBACKS = []
        assert not list(TOTPDevice.objects.outdated())
        forget_codes()
        assert complete(begin_login(), code_of(secret)).status_code == 200
        call_command("rotatefactors")
        assert "0 secret(s)" in capsys.readouterr().out

    def test_a_lost_secret_rejects_codes_and_is_reported(
        self, alice: User, settings: Settings, caplog: Any
    ) -> None:
        secret, codes = enrol(alice)
        settings.SECRET_KEY = "another secret of the service, long enough"

        assert complete(begin_login(), code_of(secret)).status_code == 401
        assert "a SECRET that is not configured any more" in caplog.text
        assert complete(begin_login(), codes[0]).status_code == 200
        with pytest.raises(CommandError, match=r"1 secret\(s\) cannot be decrypted"):
            call_command("rotatefactors")

    def test_a_stored_secret_is_random_each_time(self, db: None) -> None:
        assert encrypt("a secret") != encrypt("a secret")

    def test_an_app_that_nobody_confirmed_is_pruned(self, alice: User) -> None:
        alice.begin_totp(session=None)
        call_command("prunesessions", verbosity=0)
        assert TOTPDevice.objects.exists()
        TOTPDevice.objects.update(created_at=Now() - timedelta(minutes=11))

        call_command("prunesessions", verbosity=0)

        assert not TOTPDevice.objects.exists()


def test_a_token_of_before_the_factor_is_never_fresh(alice: User, sign_in: SignIn) -> None:
    """The session that adds a factor stays active, and its tokens lack the factor."""
    device = sign_in(alice)
    session = Session.objects.get()
    secret = alice.begin_totp(session=session)
    alice.confirm_totp(code_of(secret), session=session)

    pair = post("/auth/refresh", {"refresh_token": device.tokens["refresh_token"]}).json()
    for client in (device, client_of(pair)):
        deleted = client.delete(f"{API}/users/{alice.pk}")
        assert (deleted.status_code, deleted.json()["code"]) == (403, "reauthentication_required")
