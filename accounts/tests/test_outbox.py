"""What is written to the outbox, and what the worker makes of an entered identity."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.db.models import DurationField, ExpressionWrapper, F
from django.db.models.functions import Now
from pytest_django import DjangoAssertNumQueries, Settings

from accounts.models import Event, OutgoingEmail, Ticket, User
from accounts.models.email_kinds import LIMITED, PURPOSES, UNDOABLE, UNVERIFIED
from accounts.models.outbox import ATTEMPTS

Kind = OutgoingEmail.Kind
emails = OutgoingEmail.objects
CLIENT = "203.0.113.5"
WAIT = ExpressionWrapper(F("due_at") - Now(), DurationField())


def verified(user: User) -> User:
    user.email_verified_at = user.date_joined
    return user


def enter(kind: str, identity: str, client_address: str = CLIENT) -> None:
    emails.enqueue_entered(kind, identity, client_address=client_address)


def resolve_all() -> list[tuple[str, str]]:
    """Look up what was entered, and return kind and address of what is to be sent."""
    rows = [row for row in emails.exclude(identity="") if row.resolve()]
    return [(row.kind, row.address) for row in emails.filter(pk__in=[row.pk for row in rows])]


class TestEnqueue:
    def test_an_email_with_a_link_gets_its_ticket(self, user: User, settings: Settings) -> None:
        settings.EMAIL_LIMIT = (100, 3600)
        for kind, purpose in PURPOSES.items():
            email = emails.enqueue(kind, user, address="to@example.com", reason="test")

            assert (email.ticket.purpose, email.ticket.address) == (purpose, "to@example.com")
            assert (email.ticket.user, email.ticket.data) == (user, {"reason": "test"})

    def test_an_email_goes_to_the_users_address(self, user: User) -> None:
        assert emails.enqueue(Kind.VERIFY_EMAIL, user).address == "alice@example.com"

    @pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in UNVERIFIED])
    def test_a_notice_needs_a_verified_address(self, user: User, kind: str) -> None:
        assert emails.enqueue(kind, user) is None
        assert emails.enqueue(kind, address="anyone@example.com") is None
        assert not emails.exists()

        assert emails.enqueue(kind, verified(user)).ticket is None

    @pytest.mark.parametrize(
        "kind", [Kind.EMAIL_CHANGED, Kind.FACTOR_ADDED, Kind.FACTOR_RESET_BEGUN]
    )
    def test_an_undo_is_issued_where_asked_for(
        self, user: User, settings: Settings, kind: str
    ) -> None:
        verified(user)
        with_undo = emails.enqueue(kind, user, address="former@example.com", with_undo=True)

        assert with_undo.ticket.purpose == Ticket.Purpose.UNDO
        assert with_undo.ticket.address == "former@example.com"
        assert emails.enqueue(kind, user).ticket is None
        settings.UNDO_LIFETIME = timedelta(0)
        assert emails.enqueue(kind, user, with_undo=True).ticket is None

    def test_without_email_nothing_is_written(self, user: User, settings: Settings) -> None:
        settings.EMAIL_ENABLED = False

        assert emails.enqueue(Kind.VERIFY_EMAIL, user) is None
        assert not emails.exists()
        assert not Ticket.objects.exists()

    def test_an_inactive_user_gets_no_link(self, user: User) -> None:
        User.objects.filter(pk=user.pk).update(is_active=False)

        assert emails.enqueue(Kind.RESET_PASSWORD, user) is None
        assert not emails.exists()

    def test_the_notice_of_a_deletion_outlives_the_user(self, user: User) -> None:
        emails.enqueue(Kind.PASSWORD_CHANGED, verified(user))
        user.delete()

        assert {email.kind for email in emails.all()} == {
            Kind.PASSWORD_CHANGED,
            Kind.ACCOUNT_DELETED,
        }

    def test_a_rollback_leaves_no_email(self, user: User) -> None:
        with transaction.atomic():
            assert emails.enqueue(Kind.VERIFY_EMAIL, user)
            transaction.set_rollback(True)

        assert not emails.exists()

    def test_failed_sign_ins_are_reported_once_a_day(self, user: User, stranger: User) -> None:
        assert emails.enqueue(Kind.LOGIN_FAILURES, verified(user))
        assert emails.enqueue(Kind.LOGIN_FAILURES, user) is None
        assert emails.enqueue(Kind.LOGIN_FAILURES, verified(stranger))
        emails.update(created_at=Now() - timedelta(hours=25))
        assert emails.enqueue(Kind.LOGIN_FAILURES, user)


def test_the_kinds_are_those_of_the_contract() -> None:
    """The other tests take these sets from the product."""
    with_link = {
        "verify_email": "verify", "reset_password": "reset", "registration": "register",
        "invitation": "invite", "confirm_email": "change",
    }  # fmt: skip
    unverified = {"already_registered", "email_change_asked", "email_changed"}
    caused_by_strangers = with_link.keys() - {"invitation"} | {"already_registered"}

    assert with_link == PURPOSES
    assert with_link.keys() | unverified == UNVERIFIED
    assert caused_by_strangers == LIMITED
    assert {"email_changed", "factor_added", "factor_reset_begun"} == UNDOABLE
    assert set(Kind) - with_link.keys() - unverified == {
        "password_changed", "password_reset", "new_device", "token_reuse", "login_failures",
        "factor_added", "factor_removed", "recovery_code_used", "recovery_codes_replaced",
        "factor_reset_begun", "passkey_cloned", "token_created", "account_deleted",
    }  # fmt: skip


class TestLimit:
    def test_a_recipient_gets_three_an_hour_of_all_limited_kinds(self, user: User) -> None:
        kinds = sorted(LIMITED)
        written = [emails.enqueue(kind, user, address="A@Example.com") for kind in kinds]
        other = emails.enqueue(kinds[0], user, address="b@example.com")

        assert [bool(email) for email in written] == [True] * 3 + [False] * (len(kinds) - 3)
        assert other
        assert emails.enqueue(kinds[0], user, address="a@EXAMPLE.com") is None
        assert Ticket.objects.filter(address__iexact="a@example.com").count() <= 3

    @pytest.mark.parametrize("column", ["sent_at", "failed_at"])
    def test_the_limit_ends_an_hour_after_they_were_sent(self, user: User, column: str) -> None:
        for _ in range(3):
            emails.enqueue(Kind.VERIFY_EMAIL, user)
        # What still waits counts, however old it is.
        emails.update(created_at=Now() - timedelta(hours=5))
        assert emails.enqueue(Kind.VERIFY_EMAIL, user) is None
        emails.update(**{column: Now() - timedelta(minutes=59)})
        assert emails.enqueue(Kind.VERIFY_EMAIL, user) is None
        emails.update(**{column: Now() - timedelta(minutes=61)})
        assert emails.enqueue(Kind.VERIFY_EMAIL, user)

    def test_notices_are_not_limited_and_use_nothing_up(self, user: User) -> None:
        for _ in range(5):
            assert emails.enqueue(Kind.PASSWORD_CHANGED, verified(user))

        assert emails.enqueue(Kind.VERIFY_EMAIL, user)

    @pytest.mark.django_db(transaction=True)
    def test_concurrent_requests_do_not_exceed_the_limit(
        self, make_user: Callable[..., User]
    ) -> None:
        user = make_user()

        assert sorted(at_once(8, lambda: bool(emails.enqueue(Kind.VERIFY_EMAIL, user)))) == (
            [False] * 5 + [True] * 3
        )

    def test_a_network_enters_twenty_an_hour(self, db: None) -> None:
        for number in range(25):
            enter(Kind.RESET_PASSWORD, f"user-{number}", "2001:db8::1")
            enter(Kind.RESET_PASSWORD, f"user-{number}", f"2001:db8::{number + 2:x}")
        assert emails.count() == 20

        enter(Kind.RESET_PASSWORD, "user", "2001:db8:0:1::1")
        enter(Kind.RESET_PASSWORD, "user", "203.0.113.5")
        assert emails.count() == 22

    def test_without_email_nothing_that_was_entered_is_kept(
        self, db: None, settings: Settings
    ) -> None:
        settings.EMAIL_ENABLED = False
        enter(Kind.RESET_PASSWORD, "alice")

        assert not emails.exists()


class TestEnteredIdentities:
    @pytest.mark.parametrize("identity", ["alice", "ALICE", "Alice@Example.com"])
    def test_a_reset_goes_to_the_account(self, user: User, identity: str) -> None:
        enter(Kind.RESET_PASSWORD, identity)

        assert resolve_all() == [(Kind.RESET_PASSWORD, "alice@example.com")]
        email = emails.get()
        assert (email.identity, email.user, email.ticket.purpose) == ("", user, "reset")
        assert Event.objects.filter(kind="password_reset_asked", user_id=user.pk).count() == 1

    @pytest.mark.parametrize("identity", ["nobody", "nobody@example.com", "a password", "@", "٣"])
    def test_nothing_is_sent_for_an_unknown_identity(self, user: User, identity: str) -> None:
        enter(Kind.RESET_PASSWORD, identity)

        assert resolve_all() == []
        assert not emails.exists()
        assert not Ticket.objects.exists()

    @pytest.mark.parametrize(
        ("kind", "identity"),
        [(Kind.RESET_PASSWORD, "alice"), (Kind.REGISTRATION, "alice@example.com")],
    )
    def test_nothing_is_sent_to_an_inactive_user(
        self, user: User, kind: str, identity: str
    ) -> None:
        User.objects.filter(pk=user.pk).update(is_active=False)
        enter(kind, identity)

        assert resolve_all() == []
        assert not emails.exists()

    def test_a_registration_with_a_free_address_gets_a_ticket(self, db: None) -> None:
        enter(Kind.REGISTRATION, "new@example.com")

        assert resolve_all() == [(Kind.REGISTRATION, "new@example.com")]
        assert Ticket.objects.get().purpose == Ticket.Purpose.REGISTER

    def test_a_registration_with_a_taken_address_gets_none(self, user: User) -> None:
        enter(Kind.REGISTRATION, "Alice@example.com")

        assert resolve_all() == [(Kind.ALREADY_REGISTERED, "alice@example.com")]
        assert not Ticket.objects.exists()

    def test_an_address_that_an_undo_can_restore_is_taken(self, user: User) -> None:
        Ticket.objects.issue(Ticket.Purpose.UNDO, user, address="former@example.com")
        enter(Kind.REGISTRATION, "Former@example.com")

        assert resolve_all() == [(Kind.ALREADY_REGISTERED, "Former@example.com")]

    def test_the_limit_holds_over_the_names_of_one_account(self, user: User) -> None:
        for identity in ("alice", "Alice", "alice@example.com", "ALICE@example.com"):
            enter(Kind.RESET_PASSWORD, identity)

        assert len(resolve_all()) == 3
        assert emails.count() == 3

    def test_every_identity_runs_the_same_statements(
        self, user: User, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        statements = []
        for identity in ("alice", "nobody", "alice@example.com", "x" * 254):
            with django_assert_num_queries(1) as captured:
                enter(Kind.RESET_PASSWORD, identity)
            [query] = captured.captured_queries
            statements.append(query["sql"].partition("VALUES")[0])

        assert len(set(statements)) == 1

    @pytest.mark.django_db(transaction=True)
    def test_two_workers_do_not_exceed_the_limit(self, make_user: Callable[..., User]) -> None:
        make_user()
        for _ in range(8):
            enter(Kind.RESET_PASSWORD, "alice")
        rows = list(emails.all())

        results = at_once(8, lambda: rows.pop().resolve())

        assert sorted(results) == [False] * 5 + [True] * 3

    @pytest.mark.django_db(transaction=True)
    def test_a_reset_in_progress_and_a_worker_do_not_deadlock(
        self, make_user: Callable[..., User]
    ) -> None:
        user = verified(make_user())

        def reset(ticket: Ticket) -> bool:
            with transaction.atomic():
                ticket.use()
                return bool(emails.enqueue(Kind.VERIFY_EMAIL, user))

        for _ in range(10):
            Ticket.objects.all().delete()
            emails.all().delete()
            ticket = Ticket.objects.issue(Ticket.Purpose.VERIFY, user, address=user.email)
            enter(Kind.RESET_PASSWORD, "alice")
            row = emails.get()
            calls = [lambda ticket=ticket: reset(ticket), row.resolve]

            assert at_once(2, lambda calls=calls: calls.pop()()) == [True, True]


def at_once(count: int, call: Callable[[], Any]) -> list[Any]:
    barrier = threading.Barrier(count)

    def run() -> Any:
        barrier.wait()
        try:
            return call()
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(run) for _ in range(count)]]


class TestClaim:
    def test_a_claimed_email_is_due_again_after_1_2_4_minutes_at_most_4_hours(
        self, user: User
    ) -> None:
        emails.enqueue(Kind.VERIFY_EMAIL, user)
        minutes = []
        for attempt in range(1, ATTEMPTS + 1):
            email = emails.claim()
            assert email.attempts == attempt
            assert emails.claim() is None
            [wait] = emails.annotate(wait=WAIT).values_list("wait", flat=True)
            minutes.append(round(wait.total_seconds() / 60))
            emails.update(due_at=Now())

        assert minutes == [1, 2, 4, 8, 16, 32, 64, 128, 240, 240, 240, 240]

    def test_the_one_that_is_due_longest_comes_first(self, user: User, settings: Settings) -> None:
        first, second = (emails.enqueue(Kind.PASSWORD_CHANGED, verified(user)) for _ in range(2))
        emails.filter(pk=second.pk).update(due_at=Now() - timedelta(minutes=5))

        assert [emails.claim(), emails.claim(), emails.claim()] == [second, first, None]

    def test_what_is_sent_or_failed_is_not_claimed(self, user: User) -> None:
        sent, failed = (emails.enqueue(Kind.PASSWORD_CHANGED, verified(user)) for _ in range(2))
        sent.mark_sent()
        failed.fail("550 no such user")

        assert emails.claim() is None
        assert list(emails.failed()) == [failed]

    @pytest.mark.django_db(transaction=True)
    def test_several_workers_claim_each_email_once(self, make_user: Callable[..., User]) -> None:
        user = verified(make_user())
        for _ in range(20):
            emails.enqueue(Kind.PASSWORD_CHANGED, user)

        claimed = at_once(8, lambda: [email.pk for email in iter(emails.claim, None)])

        found = [pk for keys in claimed for pk in keys]
        assert len(found) == len(set(found)) == 20

    def test_a_failure_is_recorded_once_and_names_no_address(self, user: User) -> None:
        email = emails.enqueue(Kind.PASSWORD_CHANGED, verified(user))
        email.fail("550 alice@example.com is unknown")
        email.fail("again")

        event = Event.objects.get(kind="mail_failed")
        assert (event.user_id, event.detail) == (user.pk, "password_changed")
        email.refresh_from_db()
        assert (email.sent_at, email.error) == (None, "550 alice@example.com is unknown")

    def test_what_was_sent_after_all_has_not_failed(self, user: User) -> None:
        email = emails.enqueue(Kind.PASSWORD_CHANGED, verified(user))
        email.fail("no attempt left")
        email.mark_sent()

        assert not emails.failed()
        assert emails.get().sent_at

    def test_twelve_attempts_are_the_last(self, user: User) -> None:
        email = emails.enqueue(Kind.PASSWORD_CHANGED, verified(user))
        for email.attempts in range(1, 12):
            email.defer("451 later")
        assert list(emails.late()) == [email]
        assert not emails.failed()

        email.attempts = 12
        email.defer("451 later")
        assert list(emails.failed()) == [email]

    def test_what_failed_can_be_tried_again(self, user: User) -> None:
        failed, sent = (emails.enqueue(Kind.PASSWORD_CHANGED, verified(user)) for _ in range(2))
        emails.update(attempts=ATTEMPTS, due_at=Now() + timedelta(hours=4))
        failed.fail("550 no such user")
        sent.mark_sent()

        assert emails.all().retry() == 1
        email = emails.claim()
        assert (email, email.attempts, email.error) == (failed, 1, "")


class TestRows:
    def test_the_database_demands_one_recipient(self, db: None) -> None:
        for fields in ({}, {"identity": "alice", "address": "alice@example.com"}):
            with pytest.raises(IntegrityError, match="has_recipient"), transaction.atomic():
                emails.create(kind=Kind.RESET_PASSWORD, **fields)

    def test_the_database_lets_nothing_be_sent_and_failed(self, user: User) -> None:
        emails.enqueue(Kind.VERIFY_EMAIL, user)

        with pytest.raises(IntegrityError, match="sent_or_failed"):
            emails.update(sent_at=Now(), failed_at=Now())

    def test_emails_are_deleted_after_their_retention(
        self, user: User, settings: Settings, capsys: pytest.CaptureFixture[str]
    ) -> None:
        settings.EMAIL_RETENTION = timedelta(days=3)
        old, kept = (emails.enqueue(Kind.PASSWORD_CHANGED, verified(user)) for _ in range(2))
        emails.filter(pk=old.pk).update(created_at=Now() - timedelta(days=3, minutes=1))
        emails.filter(pk=kept.pk).update(created_at=Now() - timedelta(days=2, hours=23))

        call_command("prunesessions", dry_run=True)
        assert "1 email(s) would be deleted" in capsys.readouterr().out
        call_command("prunesessions")
        assert list(emails.all()) == [kept]

    def test_its_name_does_not_show_what_was_entered(self, db: None) -> None:
        enter(Kind.RESET_PASSWORD, "my password")

        assert str(emails.get()) == "reset password"
