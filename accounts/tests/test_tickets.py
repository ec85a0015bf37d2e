"""Tickets: their tokens, their one use, and what ends them."""

import base64
import hashlib
import hmac
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.db.models.functions import Now
from pytest_django import DjangoAssertNumQueries, Settings

from accounts.models import Ticket, TicketError, User
from accounts.models.tickets import lifetime

Purpose = Ticket.Purpose
ADDRESS = "alice@example.com"


def issue(purpose: str, user: User | None, **fields: Any) -> Ticket:
    return Ticket.objects.issue(purpose, user, address=fields.pop("address", ADDRESS), **fields)


def is_open(ticket: Ticket) -> bool:
    return Ticket.objects.open().filter(pk=ticket.pk).exists()


def expire(ticket: Ticket, ago: timedelta = timedelta(seconds=1)) -> None:
    Ticket.objects.filter(pk=ticket.pk).update(expires_at=Now() - ago)


class TestTokens:
    def test_a_token_finds_its_ticket(self, user: User) -> None:
        ticket = issue(Purpose.RESET, user)

        assert len(ticket.token) == 43
        assert Ticket.objects.find(ticket.token, Purpose.UNDO, Purpose.RESET) == ticket
        assert Ticket.objects.find(ticket.token, Purpose.RESET, user=user) == ticket

    def test_a_token_is_the_same_each_time(self, user: User) -> None:
        ticket = issue(Purpose.RESET, user)

        assert Ticket.objects.get(pk=ticket.pk).token == ticket.token

    def test_a_token_is_the_id_and_half_an_hmac_over_purpose_and_id(
        self, user: User, settings: Settings
    ) -> None:
        ticket = issue(Purpose.RESET, user)
        key = hashlib.sha256(b"accounts.ticket" + settings.SECRET_KEY.encode()).digest()
        mac = hmac.digest(key, b"reset" + ticket.pk.bytes, "sha256")

        assert base64.urlsafe_b64decode(f"{ticket.token}=") == ticket.pk.bytes + mac[:16]

    def test_an_earlier_secret_still_verifies(self, user: User, settings: Settings) -> None:
        ticket = issue(Purpose.RESET, user)
        token, settings.SECRET_KEY_FALLBACKS = ticket.token, [settings.SECRET_KEY]
        settings.SECRET_KEY = "another-secret-of-the-service"

        assert Ticket.objects.find(token, Purpose.RESET) == ticket
        assert ticket.token != token
        settings.SECRET_KEY_FALLBACKS = []
        with pytest.raises(TicketError):
            Ticket.objects.find(token, Purpose.RESET)

    @pytest.mark.parametrize(
        "token",
        [
            *(None, 7, True, [], {}, b"bytes", ["x"] * 43, "", "x", "x" * 42, "x" * 44),
            *("x" * 1_000_000, "é" * 43, "\0" * 43, "\ud800" * 43, "=" * 43, "*" * 43, " " * 43),
            base64.urlsafe_b64encode(bytes(32)).rstrip(b"=").decode(),
        ],
    )
    def test_what_was_never_signed_costs_no_query(
        self, django_assert_num_queries: DjangoAssertNumQueries, token: object, db: None
    ) -> None:
        with django_assert_num_queries(0), pytest.raises(TicketError):
            Ticket.objects.find(token, *Purpose)

    def test_a_token_with_one_character_changed_costs_no_query(
        self, user: User, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        token = issue(Purpose.RESET, user).token
        changed = {
            token[:n] + other + token[n + 1 :]
            for n in range(43)
            for other in ("A", "B", "_", "+", "/")
            if token[n] != other
        }
        with django_assert_num_queries(0):
            for text in changed:
                with pytest.raises(TicketError):
                    Ticket.objects.find(text, *Purpose)

    def test_a_token_of_another_purpose_costs_no_query(
        self, user: User, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        for purpose in Purpose:
            token = issue(purpose, user).token
            others = [other for other in Purpose if other != purpose]
            with django_assert_num_queries(0), pytest.raises(TicketError):
                Ticket.objects.find(token, *others)

    def test_the_token_of_a_row_that_does_not_exist_is_rejected(self, db: None) -> None:
        with pytest.raises(TicketError):
            Ticket.objects.find(Ticket(id=uuid.uuid4(), purpose="reset").token, Purpose.RESET)

    def test_another_users_ticket_is_rejected(self, user: User, stranger: User) -> None:
        ticket = issue(Purpose.VERIFY, user)

        with pytest.raises(TicketError):
            Ticket.objects.find(ticket.token, Purpose.VERIFY, user=stranger)

    def test_a_stolen_table_holds_no_token(self, user: User) -> None:
        tickets = [issue(purpose, user) for purpose in Purpose]
        with connection.cursor() as cursor:
            cursor.execute("SELECT accounts_ticket::text FROM accounts_ticket")
            dump = "".join(row for (row,) in cursor.fetchall())

        assert str(tickets[0].pk) in dump
        assert not [ticket for ticket in tickets if ticket.token[22:] in dump]


class TestUse:
    def test_a_ticket_works_once(self, user: User) -> None:
        ticket = issue(Purpose.RESET, user)
        same = Ticket.objects.find(ticket.token, Purpose.RESET)
        ticket.use()

        assert ticket.used_at
        with pytest.raises(TicketError):
            same.use()
        with pytest.raises(TicketError):
            Ticket.objects.find(ticket.token, Purpose.RESET)

    def test_an_expired_ticket_does_not_work(self, user: User) -> None:
        ticket = issue(Purpose.RESET, user)
        expire(ticket)

        with pytest.raises(TicketError):
            ticket.use()
        with pytest.raises(TicketError):
            Ticket.objects.find(ticket.token, Purpose.RESET)

    def test_a_ticket_of_an_inactive_user_does_not_work(self, user: User) -> None:
        ticket = issue(Purpose.RESET, user)
        User.objects.filter(pk=user.pk).update(is_active=False)

        with pytest.raises(TicketError):
            ticket.use()
        with pytest.raises(TicketError):
            issue(Purpose.RESET, user)

    def test_a_use_that_is_rolled_back_leaves_the_ticket(self, user: User) -> None:
        ticket, other = issue(Purpose.RESET, user), issue(Purpose.RESET, user)
        with transaction.atomic():
            ticket.use()
            transaction.set_rollback(True)

        assert is_open(ticket)
        assert is_open(other)

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("purpose", [Purpose.RESET, Purpose.REGISTER, Purpose.PASSKEY])
    def test_of_sixteen_uses_one_succeeds(
        self, make_user: Callable[..., User], purpose: str
    ) -> None:
        user = make_user() if purpose == Purpose.RESET else None
        ticket = issue(purpose, user, address="" if purpose == Purpose.PASSKEY else ADDRESS)

        assert at_once([ticket] * 16) == [False] * 15 + [True]

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("purpose", [Purpose.RESET, Purpose.REGISTER])
    def test_of_several_tickets_that_end_each_other_one_is_used(
        self, make_user: Callable[..., User], purpose: str
    ) -> None:
        user = make_user() if purpose == Purpose.RESET else None
        for _ in range(5):
            tickets = [issue(purpose, user) for _ in range(6)]

            assert at_once(tickets) == [False] * 5 + [True]

    @pytest.mark.django_db(transaction=True)
    def test_reset_and_change_at_once_come_one_after_the_other(
        self, make_user: Callable[..., User]
    ) -> None:
        user = make_user()
        for _ in range(10):
            tickets = [issue(Purpose.RESET, user), issue(Purpose.CHANGE, user)]

            assert at_once(tickets) == [False, True]


def at_once(tickets: list[Ticket]) -> list[bool]:
    """Use all these tickets at the same instant, and tell which uses succeeded, sorted."""
    barrier = threading.Barrier(len(tickets))

    def use(ticket: Ticket) -> bool:
        found = Ticket.objects.get(pk=ticket.pk)
        barrier.wait()
        try:
            with transaction.atomic():
                found.use()
        except TicketError:
            return False
        else:
            return True
        finally:
            connection.close()

    with ThreadPoolExecutor(len(tickets)) as pool:
        return sorted(pool.map(use, tickets))


class TestEndings:
    @pytest.fixture
    def tickets(self, user: User) -> dict[str, Ticket]:
        return {purpose.value: issue(purpose, user) for purpose in Purpose}

    def open_among(self, tickets: dict[str, Ticket]) -> set[str]:
        return {purpose for purpose, ticket in tickets.items() if is_open(ticket)}

    @pytest.mark.parametrize(
        ("purpose", "ended"),
        [
            ("verify", {"verify"}),
            ("change", {"verify", "change", "reset", "force", "mfa"}),
            ("reset", {"verify", "change", "reset", "force", "mfa"}),
            ("undo", {"verify", "change", "reset", "force", "mfa"}),
            ("force", {"verify", "change", "reset", "force", "mfa"}),
            ("mfa", set()),
        ],
    )
    def test_what_a_use_ends(
        self, user: User, tickets: dict[str, Ticket], purpose: str, ended: set[str]
    ) -> None:
        used = Ticket.objects.create(
            purpose=purpose, user=user, address=ADDRESS, expires_at=Now() + timedelta(hours=1)
        )
        Ticket.objects.get(pk=used.pk).use()

        # `register`, `invite` and `passkey` belong to no user where they are issued.
        for foreign in ("register", "invite", "passkey"):
            tickets.pop(foreign)
        assert tickets.keys() - self.open_among(tickets) == ended

    def test_an_undo_ends_the_newer_ones_and_no_older(self, user: User) -> None:
        older, used, newer = (issue("undo", user) for _ in range(3))
        used.use()

        assert is_open(older)
        assert not is_open(newer)

    def test_a_use_ends_nothing_of_another_user(self, user: User, stranger: User) -> None:
        other = issue("reset", stranger)
        issue("reset", user).use()

        assert is_open(other)

    def test_a_registration_ends_the_others_of_its_address(self, db: None) -> None:
        used, same, upper, other = (
            issue("register", None, address=address)
            for address in ("a@example.com", "a@example.com", "A@Example.com", "b@example.com")
        )
        invitation = issue("invite", None, address="a@example.com")
        used.use()

        assert [is_open(t) for t in (same, upper, other, invitation)] == [False, False, True, True]

    def test_a_newer_change_ends_the_older(self, user: User, stranger: User) -> None:
        older, other, reset = issue("change", user), issue("change", stranger), issue("reset", user)
        newer = issue("change", user)

        assert [is_open(t) for t in (older, other, reset, newer)] == [False, True, True, True]

    @pytest.mark.parametrize(
        ("act", "ended"),
        [
            ("end_after_password_change", {"reset", "force", "mfa"}),
            ("end_after_factor_change", {"mfa"}),
            ("end_after_address_change", set(Purpose.values) - {"undo"}),
            ("end_all_of", set(Purpose.values)),
        ],
    )
    def test_what_an_act_ends(
        self, user: User, stranger: User, tickets: dict[str, Ticket], act: str, ended: set[str]
    ) -> None:
        other = issue("reset", stranger)

        assert getattr(Ticket.objects, act)(user) == len(ended)
        assert tickets.keys() - self.open_among(tickets) == ended
        assert is_open(other)

    def test_lifetimes(self, user: User, settings: Settings) -> None:
        settings.RESET_LIFETIME = timedelta(minutes=10)

        lifetimes = {purpose.value: issue(purpose, user).lifetime for purpose in Purpose}

        minutes = {purpose: int(time.total_seconds() // 60) for purpose, time in lifetimes.items()}
        assert minutes == {
            "verify": 1440, "change": 60, "reset": 10, "undo": 10080, "register": 60,
            "invite": 10080, "force": 10, "mfa": 5, "passkey": 5,
        }  # fmt: skip

    def test_an_address_is_reserved_while_an_undo_can_restore_it(
        self, user: User, stranger: User
    ) -> None:
        undo = issue("undo", user, address="Former@Example.com")

        assert Ticket.objects.reserves("former@example.COM")
        assert Ticket.objects.reserves("former@example.com", except_for=stranger)
        assert not Ticket.objects.reserves("former@example.com", except_for=user)
        assert not Ticket.objects.reserves("other@example.com")
        undo.use()
        assert not Ticket.objects.reserves("former@example.com")


class TestRows:
    @pytest.mark.parametrize("purpose", ["verify", "change", "reset", "undo", "force", "mfa"])
    def test_the_database_demands_a_user(self, db: None, purpose: str) -> None:
        with pytest.raises(IntegrityError, match="accounts_ticket_has_user"):
            issue(purpose, None)

    @pytest.mark.parametrize("purpose", ["verify", "change", "reset", "undo", "register", "invite"])
    def test_the_database_demands_an_address(self, user: User, purpose: str) -> None:
        with pytest.raises(IntegrityError, match="accounts_ticket_has_address"):
            issue(purpose, user, address="")

    def test_tickets_are_deleted_a_day_after_their_end(
        self, user: User, capsys: pytest.CaptureFixture[str]
    ) -> None:
        day = timedelta(days=1)
        kept, used, expired = (issue("verify", user) for _ in range(3))
        expire(kept, ago=day - timedelta(minutes=1))
        expire(expired, ago=day + timedelta(minutes=1))
        Ticket.objects.filter(pk=used.pk).update(used_at=Now() - day - timedelta(minutes=1))
        opened = issue("undo", user)

        call_command("prunesessions", dry_run=True)
        assert "2 ticket(s) would be deleted" in capsys.readouterr().out
        call_command("prunesessions", batch=1)

        assert "2 ticket(s) deleted" in capsys.readouterr().out
        assert set(Ticket.objects.all()) == {kept, opened}

    def test_its_name_says_what_it_is_for(self, user: User) -> None:
        assert str(issue("reset", user)) == "reset the password: alice"
        assert str(issue("register", None)) == f"register: {ADDRESS}"

    def test_every_purpose_has_a_lifetime(self) -> None:
        assert all(lifetime(purpose) for purpose in Purpose)
