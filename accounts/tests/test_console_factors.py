"""Second factors of users in the console: what staff see, and the reset that they begin."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone

from accounts.models import Event, OutgoingEmail, Passkey, User
from console.dashboard import dashboard
from tests.rig.factors import begin_login, code_of, complete, enrol

USERS = "/admin/accounts/user/"


@pytest.fixture
def secret(user: User) -> str:
    """The secret of the authenticator app of alice."""
    return enrol(user)[0]


@pytest.fixture
def staff(make_user: Callable[..., User]) -> Callable[..., Client]:
    """Sign in as staff with permissions."""

    def sign_in(*permissions: str) -> Client:
        user = make_user("susan", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        browser = Client(raise_request_exception=False)
        browser.force_login(user)
        return browser

    return sign_in


def page_of(user: User) -> str:
    return f"{USERS}{user.pk}/change/"


def begin(browser: Client, user: User, action: str = "begin-factor-reset") -> str:
    """Press a button of a user's page and return the page that follows."""
    response = browser.post(f"{USERS}{user.pk}/set/{action}/", follow=True)
    return response.content.decode() if response.status_code == 200 else str(response.status_code)


def add_passkey(user: User, name: str, *, synced: bool) -> None:
    Passkey.objects.create(
        user=user,
        name=name,
        credential_id=name.encode(),
        public_key=b"key",
        sign_count=0,
        synced=synced,
        last_used_at=timezone.now(),
    )


class TestPage:
    def test_factors_are_shown_by_name_and_date(
        self, console: Client, user: User, secret: str
    ) -> None:
        add_passkey(user, "Laptop", synced=False)
        add_passkey(user, "Phone", synced=True)

        page = console.get(page_of(user)).content.decode()

        for text in ("Authenticator app", "Laptop", "Phone", "synced passkey", "10 left"):
            assert text in page
        assert f"{timezone.now():%Y}" in page.partition('id="factors"')[2]
        assert secret not in page

    def test_there_are_none(self, console: Client, user: User) -> None:
        page = console.get(page_of(user)).content.decode()

        assert "No second factor" in page
        assert "factor-reset" not in page

    def test_the_list_shows_and_filters_them(
        self, console: Client, user: User, secret: str, stranger: User
    ) -> None:
        page = console.get(USERS, {"has_second_factor__exact": "1"}).content.decode()

        assert ">alice</a>" in page
        assert ">mallory</a>" not in page
        assert '<span class="tag tag-good">yes</span>' in page
        user.begin_factor_reset()
        assert "reset pending" in console.get(USERS).content.decode()

    def test_the_first_page_counts_the_users(
        self, console: Client, user: User, secret: str
    ) -> None:
        [number] = [n for n in dashboard()["numbers"] if n.label == "With a second factor"]

        assert (number.value, number.url) == (1, f"{USERS}?has_second_factor__exact=1")
        assert "With a second factor" in console.get("/admin/").content.decode()


class TestReset:
    def test_it_begins_with_a_delay_an_event_and_an_email(
        self, console: Client, user: User, secret: str
    ) -> None:
        page = begin(console, user)

        assert "factor reset of 1 user takes effect" in page
        assert "Takes effect at the first sign-in after" in page
        assert "Cancel factor reset" in page
        user.refresh_from_db()
        assert user.has_second_factor
        assert user.factor_reset_at is not None
        delay = user.factor_reset_at - timezone.now()
        assert timedelta(hours=23) < delay <= timedelta(hours=24)
        event = Event.objects.get(kind="factor_reset_begun")
        assert (event.username, event.actor) == ("alice", "boss")
        email = OutgoingEmail.objects.get(kind="factor_reset_begun")
        assert email.address == user.email

    def test_it_is_not_begun_twice(self, console: Client, user: User, secret: str) -> None:
        begin(console, user)
        due = User.objects.get(pk=user.pk).factor_reset_at

        assert "was begun before" in begin(console, user)
        assert User.objects.get(pk=user.pk).factor_reset_at == due
        assert OutgoingEmail.objects.filter(kind="factor_reset_begun").count() == 1

    def test_it_is_cancelled(self, console: Client, user: User, secret: str) -> None:
        begin(console, user)

        assert "was cancelled" in begin(console, user, "cancel-factor-reset")
        assert "No factor reset of 1 user was pending" in begin(
            console, user, "cancel-factor-reset"
        )
        assert User.objects.get(pk=user.pk).factor_reset_at is None
        event = Event.objects.filter(kind="account_changed").latest("id")
        assert (event.detail, event.actor) == ("factor reset cancelled", "boss")

    def test_a_sign_in_with_the_factor_cancels_it(
        self, console: Client, user: User, secret: str
    ) -> None:
        begin(console, user)
        assert complete(begin_login(), code_of(secret)).status_code == 200

        assert "reset pending" not in console.get(page_of(user)).content.decode()

    def test_without_a_factor_there_is_nothing_to_reset(self, console: Client, user: User) -> None:
        assert "1 user without a second factor" in begin(console, user)
        assert not Event.objects.filter(kind="factor_reset_begun").exists()

    def test_many_from_the_list(
        self, console: Client, user: User, secret: str, stranger: User
    ) -> None:
        body = {"_selected_action": [user.pk, stranger.pk], "action": "begin_factor_reset"}
        page = console.post(USERS, body, follow=True).content.decode()
        assert "factor reset of 1 user takes effect" in page
        assert "1 user without a second factor" in page

        cancelled = console.post(USERS, body | {"action": "cancel_factor_reset"}, follow=True)
        assert b"factor reset of 1 user was cancelled" in cancelled.content


class TestPermission:
    def test_it_takes_a_permission_of_its_own(
        self, staff: Callable[..., Client], user: User, secret: str
    ) -> None:
        clerk = staff("view_user", "change_user")

        assert "factor-reset" not in clerk.get(page_of(user)).content.decode()
        for action in ("begin-factor-reset", "cancel-factor-reset"):
            assert begin(clerk, user, action) == "403"
        body = {"_selected_action": [user.pk], "action": "begin_factor_reset"}
        clerk.post(USERS, body)
        assert User.objects.get(pk=user.pk).factor_reset_at is None

    def test_it_can_be_granted(self, staff: Callable[..., Client], user: User, secret: str) -> None:
        browser = staff("view_user", "reset_factors")

        assert "Begin factor reset" in browser.get(page_of(user)).content.decode()
        assert "takes effect" in begin(browser, user)
        assert begin(browser, user, "deactivate") == "403"

    def test_only_superusers_reset_those_of_staff(
        self, staff: Callable[..., Client], boss: User
    ) -> None:
        enrol(boss)
        browser = staff("view_user", "reset_factors")

        assert "factor-reset" not in browser.get(page_of(boss)).content.decode()
        assert begin(browser, boss) == "403"
        body = {"_selected_action": [boss.pk], "action": "begin_factor_reset"}
        page = browser.post(USERS, body, follow=True).content
        assert b"1 of them are staff, whom only superusers change" in page
        assert User.objects.get(pk=boss.pk).factor_reset_at is None

    def test_a_link_begins_nothing(self, console: Client, user: User, secret: str) -> None:
        assert console.get(f"{USERS}{user.pk}/set/begin-factor-reset/").status_code == 405
