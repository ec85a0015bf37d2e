"""Emails in the console: what staff see of them, and what staff can send."""

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.db.models.functions import Now
from django.test import Client
from pytest_django import DjangoAssertNumQueries, Settings

from accounts.models import Event, OutgoingEmail, Ticket, User
from conftest import API, PASSWORD, SignIn

Kind = OutgoingEmail.Kind
LIST = "/admin/accounts/outgoingemail/"
ADD = "/admin/accounts/user/add/"
ENTERED = "p4ssw0rd@typed.example"


def page_of(user: User) -> str:
    return f"/admin/accounts/user/{user.pk}/change/"


def press(browser: Client, user: User, button: str) -> str:
    """Press a button of a user's page and return the page that follows."""
    path = f"/admin/accounts/user/{user.pk}/set/{button}/"
    return browser.post(path, follow=True).content.decode()


def make(user: User | None = None, **fields: object) -> OutgoingEmail:
    address = user.email if user else ENTERED
    fields = {"kind": Kind.REGISTRATION, "address": address, **fields}
    return OutgoingEmail.objects.create(user=user, **fields)


def sent() -> list[tuple[str, str]]:
    return list(OutgoingEmail.objects.order_by("created_at").values_list("kind", "address"))


def events(kind: str) -> list[tuple[str, str, str]]:
    rows = Event.objects.filter(kind=kind).order_by("id")
    return list(rows.values_list("username", "actor", "detail"))


@pytest.fixture
def clerk(make_user: Callable[..., User]) -> Client:
    """Staff who may change users and emails, but is no superuser."""
    clerk = make_user("clerk", is_staff=True)
    names = ["view_user", "change_user", "view_outgoingemail", "change_outgoingemail"]
    clerk.user_permissions.set(Permission.objects.filter(codename__in=names))
    browser = Client()
    browser.force_login(clerk)
    return browser


class TestNoPassword:
    @pytest.mark.parametrize("method", ["get", "post"])
    def test_no_page_sets_the_password_of_another_user(
        self, console: Client, user: User, method: str
    ) -> None:
        body = {"password1": "a rainy night", "password2": "a rainy night"}

        page = getattr(console, method)(f"/admin/accounts/user/{user.pk}/password/", body)

        assert page.status_code == 404
        user.refresh_from_db()
        assert user.check_password(PASSWORD)

    def test_no_page_of_a_user_takes_or_shows_one(self, console: Client, user: User) -> None:
        for path in (page_of(user), ADD):
            page = console.get(path).content.decode()
            assert not re.search(r'name="(password\d?|usable_password)"', page)
            assert 'type="password"' not in page
            assert "/password/" not in page
            assert "MD5" not in page
            assert "md5" not in page

    def test_a_password_in_a_form_is_ignored(self, console: Client, user: User) -> None:
        form = {"username": "alice", "email": user.email, "is_active": "on", "password": "x"}

        assert console.post(page_of(user), form).status_code == 302

        user.refresh_from_db()
        assert user.check_password(PASSWORD)


class TestUsersPage:
    def test_it_shows_the_address_the_pending_change_and_the_emails(
        self, console: Client, user: User
    ) -> None:
        assert "not verified" in console.get(page_of(user)).content.decode()
        assert "No emails." in console.get(page_of(user)).content.decode()
        user.email_verified_at = user.date_joined
        user.save()
        OutgoingEmail.objects.enqueue(Kind.CONFIRM_EMAIL, user, address="new@example.com")
        make(user, kind=Kind.NEW_DEVICE, attempts=7, error="451 try later", due_at=Now())

        page = console.get(page_of(user)).content.decode()

        assert "not verified" not in page
        for text in ("new@example.com", "Confirm new address", "New device", "451 try later"):
            assert text in page
        assert "<td>7</td>" in page

    def test_no_ticket_token_is_shown(self, console: Client, user: User) -> None:
        email = OutgoingEmail.objects.enqueue(Kind.RESET_PASSWORD, user)

        for path in (page_of(user), LIST, f"{LIST}{email.pk}/change/"):
            assert email.ticket.token not in console.get(path).content.decode()

    def test_emails_are_shown_to_those_who_may_view_them(
        self, console: Client, clerk: Client, make_user: Callable[..., User], user: User
    ) -> None:
        viewer = make_user("viewer", is_staff=True)
        viewer.user_permissions.set(Permission.objects.filter(codename="view_user"))
        browser = Client()
        browser.force_login(viewer)

        assert b"Latest emails" in clerk.get(page_of(user)).content
        page = browser.get(page_of(user)).content
        assert b"Latest emails" not in page
        assert b"Send reset link" not in page
        assert browser.get(LIST).status_code == 403

    def test_the_emails_are_kept_when_the_user_is_deleted(
        self, console: Client, user: User
    ) -> None:
        make(user)
        path = f"/admin/accounts/user/{user.pk}/delete/"

        assert b"don't have permission" not in console.get(path).content
        console.post(path, {"post": "yes"})

        assert not User.objects.filter(pk=user.pk).exists()
        assert not OutgoingEmail.objects.filter(user__isnull=False).exists()

    def test_the_emails_are_linked_but_not_counted(self, console: Client, user: User) -> None:
        make(user)
        page = console.get(page_of(user)).content.decode()

        assert f"{LIST}?user__id__exact={user.pk}" in page
        assert f"{LIST}?user={user.pk}" not in page
        assert "1 email" in console.get(LIST, {"user__id__exact": user.pk}).content.decode()


class TestButtons:
    def test_a_reset_link_is_sent_and_lets_the_user_choose(
        self, console: Client, user: User
    ) -> None:
        assert "Send reset link" in console.get(page_of(user)).content.decode()

        assert "1 email queued." in press(console, user, "send-reset-link")

        assert sent() == [("reset_password", user.email)]
        assert Ticket.objects.get().purpose == "reset"
        assert events("password_reset_asked") == [("alice", "boss", "")]

    def test_the_verification_is_sent_again_until_the_address_is_verified(
        self, console: Client, user: User
    ) -> None:
        assert "1 email queued." in press(console, user, "send-verification")
        assert sent() == [("verify_email", user.email)]
        assert events("mail_requested") == [("alice", "boss", "verify_email")]

        user.email_verified_at = user.date_joined
        user.save()
        assert "1 user verified already." in press(console, user, "send-verification")
        assert "Resend verification" not in console.get(page_of(user)).content.decode()
        assert len(sent()) == 1

    def test_the_user_sees_that_staff_did_it_but_not_from_where(
        self, console: Client, user: User, sign_in: SignIn
    ) -> None:
        press(console, user, "send-verification")
        press(console, user, "send-reset-link")

        shown = sign_in(user).get(f"{API}/auth/events").json()["results"][1:3]

        assert [(event["event"], event["detail"]) for event in shown] == [
            ("password_reset_asked", ""), ("mail_requested", "verify_email"),
        ]  # fmt: skip
        assert {(event["device"], event["ip_address"]) for event in shown} == {("", None)}

    def test_a_forced_change_sends_a_reset_link_once(
        self, console: Client, user: User, stranger: User
    ) -> None:
        press(console, user, "force-password-change")
        press(console, user, "force-password-change")
        form = {"username": "mallory", "email": stranger.email, "is_active": "on"}
        for _ in range(2):
            console.post(page_of(stranger), form | {"must_change_password": "on"})

        assert sent() == [("reset_password", user.email), ("reset_password", stranger.email)]

    @pytest.mark.parametrize("button", ["send-reset-link", "send-verification"])
    def test_no_email_is_sent_above_the_limit_or_to_an_inactive_user(
        self, console: Client, user: User, settings: Settings, button: str
    ) -> None:
        settings.EMAIL_LIMIT = (1, 3600)
        press(console, user, button)
        assert "EMAIL_LIMIT is reached" in press(console, user, button)
        user.is_active = False
        user.save()

        assert "the account is inactive" in press(console, user, button)
        assert "Send reset link" not in console.get(page_of(user)).content.decode()
        assert len(sent()) == len(events("mail_requested") + events("password_reset_asked")) == 1

    def test_without_email_there_is_no_button(
        self, console: Client, user: User, settings: Settings
    ) -> None:
        settings.EMAIL_ENABLED = False

        assert b"Send reset link" not in console.get(page_of(user)).content
        assert "email is disabled" in press(console, user, "send-reset-link")

    def test_only_superusers_send_to_staff(self, clerk: Client, boss: User, user: User) -> None:
        for button in ("send-reset-link", "send-verification"):
            path = f"/admin/accounts/user/{boss.pk}/set/{button}/"
            assert clerk.post(path).status_code == 403
            assert clerk.get(path).status_code == 405
        body = {"action": "send_reset_link", "_selected_action": [boss.pk, user.pk]}
        page = clerk.post("/admin/accounts/user/", body, follow=True).content.decode()

        assert "1 of them are staff" in page
        assert sent() == [("reset_password", user.email)]

    def test_the_selected_get_the_verification_email(
        self, console: Client, user: User, stranger: User
    ) -> None:
        body = {"action": "send_verification", "_selected_action": [user.pk, stranger.pk]}

        page = console.post("/admin/accounts/user/", body, follow=True).content.decode()

        assert "2 emails queued." in page
        assert {address for _, address in sent()} == {user.email, stranger.email}


class TestAddress:
    """Who sets the address of a user can have a reset link sent there."""

    NEW = "clerk@example.org"

    def form(self, user: User) -> dict[str, str]:
        return {"username": user.username, "email": self.NEW, "names": "Al", "is_active": "on"}

    @pytest.mark.parametrize("initial", [{}, {"initial-email": "alice@example.com"}])
    def test_staff_cannot_set_it_and_send_a_reset_link_there(
        self, clerk: Client, user: User, initial: dict[str, str]
    ) -> None:
        former = user.email
        assert 'name="email"' not in clerk.get(page_of(user)).content.decode()

        assert clerk.post(page_of(user), self.form(user) | initial).status_code == 302
        press(clerk, user, "send-reset-link")

        user.refresh_from_db()
        assert (user.email, user.names) == (former, "Al")
        assert sent() == [("reset_password", former)]

    def test_a_superuser_sets_it_and_the_former_address_can_undo_that(
        self, console: Client, user: User
    ) -> None:
        user.email_verified_at = user.date_joined
        user.save()
        former = user.email
        console.post(page_of(user), self.form(user))

        user.refresh_from_db()
        assert (user.email, user.email_verified) == (self.NEW, False)
        assert ("email_changed", former) in sent()


class TestList:
    def test_it_is_filtered_by_state(self, console: Client, user: User) -> None:
        make(user, kind=Kind.NEW_DEVICE)
        make(user, kind=Kind.TOKEN_REUSE, error="451 later", due_at=Now() + timedelta(hours=1))
        make(user, kind=Kind.PASSWORD_RESET, error="550 no", failed_at=Now())
        make(user, kind=Kind.VERIFY_EMAIL, sent_at=Now())

        for state, kind in (("due", "new device"), ("late", "refresh"), ("failed", "reset")):
            page = console.get(LIST, {"state": state}).content.decode()
            assert "1 email" in page, state
            assert re.search(rf'field-kind"><a [^>]*>[\w ]*{kind}', page), state
        page = console.get(LIST).content.decode()
        for word in ("waiting", "late", "failed", "sent"):
            assert f">{word}</span>" in page

    def test_what_a_stranger_entered_is_not_shown(self, console: Client) -> None:
        rows = [
            make(error=f"550 5.1.1 <{ENTERED}> unknown", failed_at=Now()),
            make(kind=Kind.RESET_PASSWORD, identity="hunter2", address=""),
        ]

        paths = [LIST, *(f"{LIST}{row.pk}/{page}/" for row in rows for page in PAGES)]
        for path in paths:
            page = console.get(path)
            assert page.status_code in {200, 403}
            text = page.content.decode()
            assert "p4ssw0rd" not in text
            assert "typed.example" not in text
            assert "hunter2" not in text
        assert ">550<" in console.get(LIST).content.decode()

    @pytest.mark.parametrize(
        "query",
        [
            {"identity__exact": "hunter2"}, {"identity": "hunter2"}, {"identity__gt": "h"},
            {"address__exact": ENTERED}, {"address__gte": "p"}, {"error__exact": "550"},
            {"ticket__id__exact": "1"}, {"ticket__address__exact": ENTERED},
            {"user__password__exact": "x"}, {"user__email__exact": "x"},
        ],
    )  # fmt: skip
    def test_what_a_stranger_entered_is_no_filter(
        self, console: Client, query: dict[str, str]
    ) -> None:
        make(kind=Kind.RESET_PASSWORD, identity="hunter2", address="")

        assert console.get(LIST, query).status_code == 400

    def test_a_search_finds_users_and_nothing_that_was_entered(
        self, console: Client, user: User
    ) -> None:
        make(user)
        make()
        make(kind=Kind.RESET_PASSWORD, identity="hunter2", address="")

        for query, found in (
            ("alice", 1), ("ALICE@example", 1), ("hunter2", 0), (ENTERED, 0), ("typed", 0),
            (" ", 3),
        ):  # fmt: skip
            page = console.get(LIST, {"q": query}).content.decode()
            assert f"{found} email" in page, query

    def test_the_order_depends_on_the_time_alone(self, console: Client, user: User) -> None:
        make(user)

        assert console.get(LIST).content.decode().count('class="sortable') == 1

    def test_it_costs_the_same_for_many(
        self,
        console: Client,
        make_user: Callable[..., User],
        django_assert_max_num_queries: DjangoAssertNumQueries,
    ) -> None:
        for number in range(12):
            make(make_user(f"user{number}"))

        with django_assert_max_num_queries(8):
            assert b"user11" in console.get(LIST).content

    def test_a_row_is_a_record(self, console: Client, user: User) -> None:
        email = make(user)

        page = console.get(f"{LIST}{email.pk}/change/")
        assert user.email in page.content.decode()
        assert console.post(f"{LIST}{email.pk}/change/", {"kind": "x"}).status_code == 403
        assert console.post(f"{LIST}{email.pk}/delete/", {"post": "yes"}).status_code == 403
        assert console.get(f"{LIST}add/").status_code == 403
        assert console.get(f"{LIST}{user.pk}/change/").status_code == 302


PAGES = ["change", "history", "delete"]


class TestRetry:
    @pytest.fixture
    def stuck(self, user: User) -> list[OutgoingEmail]:
        later = Now() + timedelta(hours=1)
        return [
            make(user, kind=Kind.PASSWORD_RESET, error="451 later", attempts=3, due_at=later),
            make(user, kind=Kind.NEW_DEVICE, error="550 no", attempts=12, failed_at=Now()),
        ]

    def retry(self, browser: Client, rows: list[OutgoingEmail]) -> str:
        body = {"action": "retry", "_selected_action": [str(row.pk) for row in rows]}
        return browser.post(LIST, body, follow=True).content.decode()

    def test_late_and_failed_emails_are_sent(
        self, console: Client, stuck: list[OutgoingEmail], mailoutbox: list[object]
    ) -> None:
        assert "2 emails due now." in self.retry(console, stuck)
        assert OutgoingEmail.objects.due().count() == 2
        call_command("mailworker", "--once", verbosity=0)

        assert not OutgoingEmail.objects.filter(sent_at=None).exists()
        assert sorted(events("mail_requested")) == [
            ("alice", "boss", "new_device"), ("alice", "boss", "password_reset"),
        ]  # fmt: skip

    def test_what_was_sent_or_is_due_is_left(self, console: Client, user: User) -> None:
        rows = [make(user, sent_at=Now(), attempts=1), make(user, attempts=1)]

        assert "0 emails due now." in self.retry(console, rows)
        assert set(OutgoingEmail.objects.values_list("attempts", flat=True)) == {1}
        assert events("mail_requested") == []

    def test_only_superusers_send_to_staff_again(
        self, clerk: Client, boss: User, stuck: list[OutgoingEmail]
    ) -> None:
        staffs = make(boss, error="451 later", kind=Kind.PASSWORD_RESET)
        entered = make(error="451 later")

        assert "3 emails due now." in self.retry(clerk, [*stuck, staffs, entered])
        assert OutgoingEmail.objects.late().get() == staffs

    def test_who_may_only_view_sends_nothing(
        self, make_user: Callable[..., User], stuck: list[OutgoingEmail]
    ) -> None:
        viewer = make_user("viewer", is_staff=True)
        viewer.user_permissions.set(Permission.objects.filter(codename="view_outgoingemail"))
        browser = Client()
        browser.force_login(viewer)

        self.retry(browser, stuck)

        assert OutgoingEmail.objects.late().exists()
        assert OutgoingEmail.objects.failed().exists()
