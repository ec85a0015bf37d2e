"""Invitations: how staff send and withdraw them, and how an account is created with one."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.db.models.functions import Now
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from accounts.delivery import empty_outbox
from accounts.models import Event, Invitation, OutgoingEmail, Ticket, User
from conftest import PASSWORD, SignIn
from tests.rig.lifecycle import (
    change_address,
    delivered,
    errors,
    inbox,
    post,
    reset,
    token_sent_to,
    verify,
)

ADDRESS = "bob@example.com"
BODY = {"username": "bob", "password": PASSWORD}
ADD = "/admin/accounts/user/add/"
LIST = "/admin/accounts/invitation/"


@pytest.fixture(autouse=True)
def lifted_limits(settings: Settings) -> None:
    settings.AUTH_RATE_LIMIT = (1_000_000, 60)


@pytest.fixture(params=["open", "verified"])
def registration(request: pytest.FixtureRequest, settings: Settings) -> str:
    settings.REGISTRATION = request.param
    return str(request.param)


@pytest.fixture
def staff(make_user: Callable[..., User]) -> Callable[..., Client]:
    def sign_in(*permissions: str) -> Client:
        clerk = make_user("clerk", is_staff=True)
        clerk.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        browser = Client()
        browser.force_login(clerk)
        return browser

    return sign_in


def invite(browser: Client, email: str = ADDRESS) -> str:
    return browser.post(ADD, {"email": email}, follow=True).content.decode()


def withdraw(browser: Client, *invitations: Invitation) -> str:
    body = {"action": "withdraw", "_selected_action": [str(row.pk) for row in invitations]}
    return browser.post(LIST, body, follow=True).content.decode()


def accept(token: object, **changes: Any) -> Any:
    return post("/users", BODY | {"registration_token": token} | changes)


def events() -> list[tuple[str, str, int | None, str]]:
    rows = Event.objects.filter(kind="invited").order_by("pk")
    return list(rows.values_list("actor", "username", "user_id", "detail"))


class TestAcceptance:
    def test_the_link_creates_a_verified_account(self, console: Client, registration: str) -> None:
        invite(console)

        response = accept(token_sent_to(ADDRESS))

        assert response.status_code == 201
        user = response.json()
        assert (user["email"], user["email_verified"]) == (ADDRESS, True)
        assert User.objects.get(username="bob").check_password(PASSWORD)
        assert delivered() == [("invitation", ADDRESS)]

    def test_the_account_is_an_ordinary_one(self, console: Client) -> None:
        invite(console)
        accept(token_sent_to(ADDRESS), is_staff=True, is_superuser=True, is_active=False)

        bob = User.objects.get(username="bob")
        assert (bob.is_active, bob.is_staff, bob.is_superuser) == (True, False, False)

    @pytest.mark.parametrize("email", ["x@example.com", "", None, 7, "x" * 500_000])
    def test_an_address_beside_the_token_is_ignored(
        self, console: Client, registration: str, email: object
    ) -> None:
        invite(console)

        assert accept(token_sent_to(ADDRESS), email=email).json()["email"] == ADDRESS

    def test_it_works_once(self, console: Client, registration: str) -> None:
        invite(console)
        token = token_sent_to(ADDRESS)
        accept(token)

        assert errors(accept(token, username="carol")) == {"registration_token": "ticket_not_valid"}
        assert set(User.objects.values_list("username", flat=True)) == {"boss", "bob"}

    def test_another_fault_leaves_it_open(self, console: Client, registration: str) -> None:
        invite(console)
        token = token_sent_to(ADDRESS)

        assert set(errors(accept(token, password="short"))) == {"password"}
        assert errors(accept(token, username="BOSS")) == {"username": "unique"}
        assert accept(token).status_code == 201

    def test_the_others_to_the_address_end_with_it(
        self, console: Client, registration: str
    ) -> None:
        invite(console)
        first = token_sent_to(ADDRESS)
        invite(console, "Bob@example.com")
        second = token_sent_to("Bob@example.com")

        assert accept(first).status_code == 201

        User.objects.filter(username="bob").delete()
        assert errors(accept(second)) == {"registration_token": "ticket_not_valid"}

    def test_an_address_that_was_taken_meanwhile_is_unique(
        self, console: Client, registration: str, make_user: Callable[..., User]
    ) -> None:
        invite(console)
        token = token_sent_to(ADDRESS)
        make_user("carol", email="BOB@example.com")

        assert errors(accept(token)) == {"registration_token": "unique"}

    def test_an_address_that_an_undo_can_restore_is_unique(
        self, console: Client, registration: str, user: User, sign_in: SignIn
    ) -> None:
        ticket = Ticket.objects.issue("invite", address="ALICE@example.com", by="boss")
        change_address(sign_in(user), "new@example.com")

        assert errors(accept(ticket.token)) == {"registration_token": "unique"}

    @pytest.mark.parametrize("purpose", ["reset", "verify", "change", "undo", "force"])
    def test_a_ticket_of_another_purpose_is_not_valid(
        self, user: User, registration: str, purpose: str
    ) -> None:
        ticket = Ticket.objects.issue(purpose, user, address=ADDRESS)

        assert errors(accept(ticket.token)) == {"registration_token": "ticket_not_valid"}

    @pytest.mark.parametrize("token", [None, "", 7, [], {}, "x" * 43, "x" * 500_000])
    def test_an_odd_token_costs_no_query(
        self,
        db: None,
        registration: str,
        django_assert_num_queries: DjangoAssertNumQueries,
        token: object,
    ) -> None:
        with django_assert_num_queries(0):
            response = accept(token, email=ADDRESS)

        assert errors(response) == {"registration_token": "ticket_not_valid"}
        assert not User.objects.exists()

    def test_it_opens_nothing_else(self, console: Client, user: User, sign_in: SignIn) -> None:
        invite(console)
        token = token_sent_to(ADDRESS)

        assert errors(reset(token)) == {"token": "ticket_not_valid"}
        assert errors(verify(sign_in(user), token)) == {"token": "ticket_not_valid"}

    def test_it_expires(self, console: Client, registration: str) -> None:
        invite(console)
        token = token_sent_to(ADDRESS)
        Invitation.objects.update(expires_at=Now())

        assert errors(accept(token)) == {"registration_token": "ticket_not_valid"}

    @pytest.mark.django_db(transaction=True)
    def test_of_many_at_once_one_creates_the_account(self, db: None) -> None:
        token = Ticket.objects.issue("invite", address=ADDRESS, by="boss").token
        statuses: list[int] = []

        def use(number: int) -> None:
            statuses.append(accept(token, username=f"bob{number}").status_code)
            connection.close()

        threads = [threading.Thread(target=use, args=[n]) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sorted(statuses) == [201] + [400] * 15
        assert User.objects.count() == 1


class TestSending:
    def test_staff_enter_an_address_and_nothing_else(self, console: Client) -> None:
        page = console.get(ADD).content.decode()

        assert 'name="email"' in page
        for name in ("username", "names", "password", "password1", "usable_password"):
            assert f'name="{name}"' not in page
        assert console.get(f"{LIST}add/").content.decode().count("<input") == page.count("<input")

    def test_it_queues_an_email_and_creates_no_user(self, console: Client) -> None:
        page = invite(console, " bob@Example.com ")

        assert "An invitation to bob@example.com is queued." in page
        assert delivered() == [("invitation", ADDRESS)]
        ticket = Ticket.objects.get()
        assert (ticket.purpose, ticket.address, ticket.user) == ("invite", ADDRESS, None)
        assert ticket.lifetime == timedelta(days=7)
        assert User.objects.count() == 1

    def test_other_fields_are_ignored(self, console: Client) -> None:
        form = {"email": ADDRESS, "username": "bob", "password": PASSWORD, "is_staff": "on"}

        assert console.post(ADD, form).status_code == 302

        assert not User.objects.filter(username="bob").exists()
        assert Ticket.objects.get().data == {"by": "boss"}

    def test_the_event_names_staff_and_no_address(self, console: Client) -> None:
        invite(console)

        assert events() == [("boss", "", None, "")]
        assert "@" not in repr(list(Event.objects.values()))

    @pytest.mark.parametrize(
        ("base", "link"),
        [("", "https://api.example.com/account/invite"), ("https://app.example.com", None)],
    )
    def test_the_link_leads_to_the_page(
        self, console: Client, settings: Settings, base: str, link: str | None
    ) -> None:
        settings.FRONTEND_URL, settings.PUBLIC_URL = base, "https://api.example.com"

        invite(console)

        [message] = inbox(ADDRESS)
        token = token_sent_to(ADDRESS)
        assert f"{link or 'https://app.example.com/invite'}#token={token}" in message.body
        assert message.subject == "You are invited to Latchkey"
        assert "boss" not in message.body

    @pytest.mark.parametrize("email", ["ALICE@Example.com", "alice@example.com"])
    def test_an_address_with_an_account_is_rejected(
        self, console: Client, user: User, email: str
    ) -> None:
        assert "already exists" in invite(console, email)
        assert delivered() == []
        assert events() == []

    def test_an_address_that_an_undo_can_restore_is_rejected(
        self, console: Client, user: User, sign_in: SignIn
    ) -> None:
        change_address(sign_in(user), "new@example.com")

        assert "already exists" in invite(console, "alice@example.com")
        assert not Invitation.objects.exists()

    @pytest.mark.parametrize("email", ["", "bob", "b\u00f6b@example.com", "x" * 300 + "@a.de"])
    def test_an_invalid_address_is_rejected(self, console: Client, email: str) -> None:
        response = console.post(ADD, {"email": email})

        assert response.status_code == 200
        assert b"Please correct the error below." in response.content
        assert not Invitation.objects.exists()

    def test_a_repeated_one_sends_a_second_link_and_both_work(self, console: Client) -> None:
        invite(console)
        first = token_sent_to(ADDRESS)
        invite(console)

        assert token_sent_to(ADDRESS) != first
        assert [row.state for row in Invitation.objects.all()] == ["pending", "pending"]
        assert accept(first).status_code == 201

    def test_one_address_gets_as_many_as_email_limit_permits(self, console: Client) -> None:
        pages = [invite(console) for _ in range(4)]

        assert ["EMAIL_LIMIT is reached" in page for page in pages] == [False] * 3 + [True]
        assert len(inbox(ADDRESS)) == len(events()) == Invitation.objects.count() == 3
        assert "is queued" in invite(console, "carol@example.com")

    def test_emails_that_strangers_cause_hold_none_back(
        self, console: Client, settings: Settings
    ) -> None:
        settings.REGISTRATION = "verified"
        for _ in range(4):
            post("/auth/registration", {"email": ADDRESS})
        assert len(inbox(ADDRESS)) == 3

        assert "is queued" in invite(console)
        assert len(inbox(ADDRESS)) == 4

    def test_invitations_hold_no_email_back_that_the_recipient_causes(
        self, console: Client, settings: Settings
    ) -> None:
        settings.REGISTRATION = "verified"
        for _ in range(3):
            invite(console)

        post("/auth/registration", {"email": ADDRESS})

        assert delivered().count(("registration", ADDRESS)) == 1

    def test_without_email_the_page_says_why_not(self, console: Client, settings: Settings) -> None:
        settings.EMAIL_ENABLED = False

        assert "EMAIL_URL=none" in console.get(ADD).content.decode()
        assert "EMAIL_URL=none" in invite(console)
        assert not OutgoingEmail.objects.exists()
        assert not Ticket.objects.exists()
        assert events() == []

    def test_it_needs_the_permission_to_add_users(self, staff: Callable[..., Client]) -> None:
        browser = staff("view_user", "change_user", "delete_user", "view_outgoingemail")

        for path in (ADD, f"{LIST}add/", LIST):
            assert browser.get(path).status_code == 403
            assert browser.post(path, {"email": ADDRESS}).status_code == 403
        assert not Invitation.objects.exists()

    def test_the_permission_to_add_users_is_enough(self, staff: Callable[..., Client]) -> None:
        browser = staff("add_user")

        assert "is queued" in invite(browser)
        assert "1 invitation withdrawn." in withdraw(browser, Invitation.objects.get())
        assert events() == [("clerk", "", None, ""), ("clerk", "", None, "withdrawn")]

    def test_a_shell_keeps_the_rules(self, user: User) -> None:
        assert Invitation.objects.send(" bob@EXAMPLE.com").address == ADDRESS
        assert Invitation.objects.get().by == "manage.py"


class TestWithdrawal:
    def test_the_link_is_not_valid_any_more(self, console: Client, registration: str) -> None:
        invite(console)
        token = token_sent_to(ADDRESS)

        assert "1 invitation withdrawn." in withdraw(console, Invitation.objects.get())

        assert errors(accept(token)) == {"registration_token": "ticket_not_valid"}
        assert events() == [("boss", "", None, ""), ("boss", "", None, "withdrawn")]

    def test_every_link_to_the_address_ends(self, console: Client) -> None:
        for address in (ADDRESS, "Bob@example.com", "carol@example.com"):
            invite(console, address)
        first = Invitation.objects.order_by("created_at").first()
        assert first

        assert "2 invitations withdrawn." in withdraw(console, first)

        states = {row.address: row.state for row in Invitation.objects.all()}
        assert states == {
            ADDRESS: "ended", "Bob@example.com": "ended", "carol@example.com": "pending",
        }  # fmt: skip

    def test_an_email_that_waits_is_not_sent(self, console: Client) -> None:
        invite(console)
        withdraw(console, Invitation.objects.get())

        empty_outbox()

        assert not OutgoingEmail.objects.exists()

    def test_a_withdrawn_one_can_be_sent_again(self, console: Client) -> None:
        invite(console)
        withdraw(console, Invitation.objects.get())

        invite(console)

        assert accept(token_sent_to(ADDRESS)).status_code == 201

    def test_one_that_was_accepted_is_not_withdrawn(self, console: Client) -> None:
        invite(console)
        accept(token_sent_to(ADDRESS))

        assert "0 invitations withdrawn." in withdraw(console, Invitation.objects.get())
        assert Invitation.objects.get().state == "accepted"
        assert len(events()) == 1

    def test_no_other_ticket_can_be_selected(self, console: Client, user: User) -> None:
        other = Ticket.objects.issue("register", address=ADDRESS)
        own = Ticket.objects.issue("reset", user, address=user.email)
        body = {"action": "withdraw", "_selected_action": [str(other.pk), str(own.pk)]}

        console.post(LIST, body)

        assert Ticket.objects.open().count() == 2

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("run", range(4))
    def test_of_a_withdrawal_and_an_acceptance_one_happens(self, db: None, run: int) -> None:
        invitation = Invitation.objects.send(ADDRESS)
        results: dict[str, int] = {}

        def both(name: str, act: Callable[[], int]) -> None:
            results[name] = act()
            connection.close()

        acts = {
            "accepted": lambda: int(accept(invitation.token).status_code == 201),
            "withdrawn": invitation.withdraw,
        }
        threads = [threading.Thread(target=both, args=pair) for pair in acts.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sum(results.values()) == 1
        assert User.objects.count() == results["accepted"]


class TestList:
    def test_it_shows_who_invited_whom_until_when(self, console: Client) -> None:
        invite(console)
        invitation = Invitation.objects.get()

        page = console.get(LIST).content.decode()

        ends = invitation.created_at + timedelta(days=7)
        for text in (ADDRESS, ">pending</span>", "boss", f"{ends:%b %Y}"):
            assert text in page
        assert invitation.token not in page
        assert "1 invitation" in page

    def test_it_is_filtered_by_state(self, console: Client) -> None:
        for name in ("pending", "accepted", "expired", "ended"):
            invite(console, f"{name}@example.com")
        of = {row.address.partition("@")[0]: row for row in Invitation.objects.all()}
        accept(of["accepted"].token)
        withdraw(console, of["ended"])
        past = timezone.now() - timedelta(days=8)
        row = Invitation.objects.filter(pk=of["expired"].pk)
        row.update(created_at=past, expires_at=past + timedelta(days=7))

        for state, shown in {
            "pending": {"pending"}, "accepted": {"accepted"}, "ended": {"ended", "expired"},
            "": set(of),
        }.items():  # fmt: skip
            page = console.get(LIST, {"state": state} if state else {}).content.decode()
            assert {name for name in of if f"{name}@example.com" in page} == shown
            assert all(f">{name}</span>" in page for name in shown)

    def test_it_is_searched_by_address(self, console: Client) -> None:
        invite(console)
        invite(console, "carol@example.com")

        page = console.get(LIST, {"q": "CAROL@"}).content.decode()

        assert "carol@example.com" in page
        assert ADDRESS not in page

    def test_it_shows_invitations_alone(self, console: Client) -> None:
        Ticket.objects.issue("register", address=ADDRESS)

        assert "0 invitations" in console.get(LIST).content.decode()

    def test_the_first_page_links_it(self, console: Client, staff: Callable[..., Client]) -> None:
        assert LIST.encode() in console.get("/admin/").content
        assert LIST.encode() in staff("add_user").get("/admin/").content
        assert b"Invite a user" in console.get(ADD).content

    def test_a_page_of_one_shows_it_and_changes_nothing(self, console: Client) -> None:
        invite(console)
        row = Invitation.objects.get()
        path = f"{LIST}{row.pk}/change/"

        assert ADDRESS in console.get(path).content.decode()
        assert row.token not in console.get(path).content.decode()
        assert console.post(path, {"address": "x@example.com"}).status_code == 403
        assert console.post(f"{LIST}{row.pk}/delete/", {"post": "yes"}).status_code == 403

    def test_the_list_of_emails_shows_its_address(self, console: Client) -> None:
        invite(console)
        OutgoingEmail.objects.update(error="451 4.2.1 mailbox busy")

        page = console.get("/admin/accounts/outgoingemail/").content.decode()

        assert ADDRESS in page
        assert "451 4.2.1 mailbox busy" in page
