"""An undo of a change of address, and the former address, which it reserves."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import IntegrityError
from django.db.models.functions import Now
from django.test import Client
from pytest_django import Settings

from accounts.models import Ticket, User
from conftest import API, PASSWORD, SignIn
from tests.rig.lifecycle import (
    NEW_PASSWORD,
    change_address,
    delivered,
    errors,
    inbox,
    post,
    request_change,
    reset,
    reset_by_email,
    stored,
    token_sent_to,
    verify,
)

pytestmark = pytest.mark.usefixtures("lifted_limits")
FORMER, ADDRESS = "alice@example.com", "new@example.com"


class TestUndo:
    def test_it_restores_the_address_and_sets_a_password(self, user: User, sign_in: SignIn) -> None:
        device = sign_in(user)
        change_address(device, ADDRESS)
        response = reset(token_sent_to(FORMER))

        assert (response.status_code, response.content) == (204, b"")
        assert (stored(user).email, stored(user).email_verified) == (FORMER, True)
        assert device.get(f"{API}/users/me").status_code == 401
        body = {"identity": FORMER, "password": NEW_PASSWORD}
        assert post("/auth/login", body).status_code == 200
        assert ("password_reset", FORMER) in delivered()

    def test_it_works_after_everything_a_thief_did(
        self, user: User, sign_in: SignIn, settings: Settings
    ) -> None:
        User.objects.update(email_verified_at=Now())
        thief = sign_in(user)
        change_address(thief, "thief@example.com")
        undo = token_sent_to(FORMER)

        reset_by_email("alice", "thief@example.com")
        thief = sign_in(stored(user), NEW_PASSWORD)
        change_address(thief, "thief2@example.com")
        change_address(thief, "thief3@example.com")
        newer = token_sent_to("thief2@example.com")
        body = {"current_password": NEW_PASSWORD, "new_password": "the thief's own one"}
        assert thief.post(f"{API}/auth/password", body).status_code == 204
        assert thief.patch(f"{API}/users/{user.pk}", {"username": "thief"}).status_code == 200
        request_change(thief, "thief4@example.com")
        for purpose in ("reset", "verify", "force"):
            Ticket.objects.issue(purpose, user, address="thief3@example.com")
        call_command("prunesessions", verbosity=0)

        assert reset(undo, "the owner's own one").status_code == 204

        assert stored(user).email == FORMER
        assert thief.get(f"{API}/users/me").status_code == 401
        assert errors(reset(newer)) == {"token": "ticket_not_valid"}
        assert not Ticket.objects.open().exists()
        sign_in(stored(user), "the owner's own one")

    def test_an_older_one_stays_after_a_newer_one(self, user: User, sign_in: SignIn) -> None:
        device = sign_in(user)
        change_address(device, ADDRESS)
        older = token_sent_to(FORMER)
        change_address(device, "newest@example.com")
        newer = token_sent_to(ADDRESS)

        assert reset(newer).status_code == 204
        assert stored(user).email == ADDRESS
        assert reset(older).status_code == 204
        assert stored(user).email == FORMER

    def test_a_deactivation_ends_it(self, user: User, sign_in: SignIn) -> None:
        change_address(sign_in(user), ADDRESS)
        token = token_sent_to(FORMER)
        user = stored(user)
        for user.is_active in (False, True):
            user.save()

        assert errors(reset(token)) == {"token": "ticket_not_valid"}

    def test_it_lives_as_long_as_configured(
        self, user: User, sign_in: SignIn, settings: Settings
    ) -> None:
        settings.UNDO_LIFETIME = timedelta(days=3)
        change_address(sign_in(user), ADDRESS)

        assert Ticket.objects.get(purpose="undo").lifetime == timedelta(days=3)

    def test_none_is_issued_for_no_days(
        self, user: User, make_user: Callable[..., User], sign_in: SignIn, settings: Settings
    ) -> None:
        settings.UNDO_LIFETIME = timedelta(0)
        change_address(sign_in(user), ADDRESS)

        assert ("email_changed", FORMER) in delivered()
        assert "#token=" not in str(inbox(FORMER)[-1].body)
        assert make_user("bob", email=FORMER).email == FORMER

    def test_a_former_address_that_an_import_gave_away_is_unique(
        self, user: User, stranger: User, sign_in: SignIn
    ) -> None:
        change_address(sign_in(user), ADDRESS)
        token = token_sent_to(FORMER)
        User.objects.filter(pk=stranger.pk).update(email=FORMER)

        assert errors(reset(token)) == {"token": "unique"}
        assert stored(user).check_password(PASSWORD)

    def test_a_change_by_staff_is_announced_with_an_undo_and_is_unverified(
        self, console: Client, user: User, sign_in: SignIn
    ) -> None:
        User.objects.filter(pk=user.pk).update(email_verified_at=Now())
        device = sign_in(user)
        form = {"username": "alice", "email": ADDRESS, "names": "", "is_active": "on"}
        assert console.post(f"/admin/accounts/user/{user.pk}/change/", form).status_code == 302

        assert (stored(user).email, stored(user).email_verified) == (ADDRESS, False)
        assert device.get(f"{API}/users/me").status_code == 401
        assert delivered() == [("email_changed", FORMER), ("verify_email", ADDRESS)]
        assert verify(sign_in(stored(user)), token_sent_to(ADDRESS)).status_code == 200
        assert reset(token_sent_to(FORMER)).status_code == 204
        assert stored(user).email == FORMER


class TestReserved:
    """A former address counts as taken at every door while an undo can restore it."""

    @pytest.fixture
    def former(self, user: User, sign_in: SignIn) -> str:
        change_address(sign_in(user), ADDRESS)
        return "Alice@example.com"

    def test_in_create_user(self, former: str, make_user: Callable[..., User]) -> None:
        with pytest.raises(IntegrityError):
            make_user("bob", email=former)
        assert not User.objects.filter(username="bob").exists()

    def test_in_createsuperuser(self, former: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", PASSWORD)

        with pytest.raises(CommandError, match="already exists"):
            call_command("createsuperuser", interactive=False, username="bob", email=former)

    def test_in_a_model_form(self, former: str) -> None:
        bob = User(username="bob", email=former, password="!")

        with pytest.raises(ValidationError) as caught:
            bob.full_clean()
        assert caught.value.error_dict["email"][0].code == "unique"
        bob.validate_constraints(exclude={"email"})

    @pytest.mark.parametrize("is_new", [True, False])
    def test_in_the_console(
        self, former: str, console: Client, stranger: User, is_new: bool
    ) -> None:
        form = {"username": "bob", "email": former, "names": "", "is_active": "on"}
        form |= {"password1": PASSWORD, "password2": PASSWORD}
        path = "add" if is_new else f"{stranger.pk}/change"

        page = console.post(f"/admin/accounts/user/{path}/", form)

        assert page.status_code == 200
        assert "already exists" in page.content.decode()
        assert not User.objects.filter(email__iexact=former).exists()

    def test_in_a_save(self, former: str, stranger: User) -> None:
        stranger = stored(stranger)
        stranger.email = former

        with pytest.raises(IntegrityError):
            stranger.save()
        assert stored(stranger).email == "mallory@example.com"

    def test_in_a_change(self, former: str, stranger: User, sign_in: SignIn) -> None:
        # As it was issued before the address was reserved.
        ticket = Ticket.objects.issue("change", stranger, address=former)

        assert errors(verify(sign_in(stranger), ticket.token)) == {"token": "unique"}

    def test_its_own_user_may_change_back(self, former: str, user: User, sign_in: SignIn) -> None:
        change_address(sign_in(stored(user)), FORMER)

        assert stored(user).email == FORMER

    @pytest.mark.parametrize("how", ["expired", "deactivated", "deleted"])
    def test_it_is_free_after_the_undo_has_ended(
        self, former: str, user: User, make_user: Callable[..., User], how: str
    ) -> None:
        user = stored(user)
        if how == "expired":
            Ticket.objects.update(expires_at=Now() - timedelta(seconds=1))
        elif how == "deactivated":
            user.is_active = False
            user.save()
        else:
            user.delete()

        assert make_user("bob", email=former).email == former
