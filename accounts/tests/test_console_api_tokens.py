"""API tokens in the console: who sees them, and who ends them."""

from collections.abc import Callable
from importlib import import_module

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission
from django.test import Client

from accounts.models import ApiToken, Event, User
from conftest import API
from tests.rig.api_tokens import expire, issue_token, using

LIST = "/admin/accounts/apitoken/"
ALL = ["view_user", "view_apitoken", "end_apitoken"]


@pytest.fixture
def staff(make_user: Callable[..., User]) -> Callable[..., Client]:
    def sign_in(*permissions: str, group: str = "") -> Client:
        susan = make_user("susan", is_staff=True)
        susan.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        susan.groups.set(Group.objects.filter(name=group))
        browser = Client(raise_request_exception=False)
        browser.force_login(susan)
        return browser

    return sign_in


@pytest.fixture
def token(user: User) -> ApiToken:
    return issue_token(user, name="Deployment <b>", scope="read")


def page_of(user: User) -> str:
    return f"/admin/accounts/user/{user.pk}/change/"


def end_path(token: ApiToken) -> str:
    return f"/admin/accounts/user/{token.user_id}/end-api-token/{token.pk}/"


class TestUsersPage:
    def test_it_shows_the_active_tokens_and_never_a_secret(
        self, console: Client, token: ApiToken, user: User
    ) -> None:
        expired = issue_token(user, name="Old one")
        expire(expired)

        page = console.get(page_of(user)).content.decode()

        assert "Deployment &lt;b&gt;" in page
        assert "Old one" not in page
        assert "never" in page
        using(token).get(f"{API}/users/me")
        page = console.get(page_of(user)).content.decode()
        assert "never" not in page
        for part in (str(token.text)[20:], ApiToken.objects.get(pk=token.pk).digest):
            assert part not in page

    def test_a_user_without_tokens_has_none(self, console: Client, user: User) -> None:
        assert b"No active API tokens." in console.get(page_of(user)).content

    def test_an_end_button_ends_one_and_is_recorded(
        self, staff: Callable[..., Client], token: ApiToken, user: User
    ) -> None:
        other = issue_token(user)
        browser = staff(*ALL)
        assert end_path(token) in browser.get(page_of(user)).content.decode()

        page = browser.post(end_path(token), follow=True).content.decode()

        assert "1 API token ended." in page
        assert using(token).get(f"{API}/users/me").status_code == 401
        assert using(other).get(f"{API}/users/me").status_code == 200
        event = Event.objects.get(kind="token_ended")
        assert (event.user_id, event.actor, event.detail) == (
            user.pk, "susan", f"{token.pk}: staff",
        )  # fmt: skip
        page = browser.post(end_path(token), follow=True).content.decode()
        assert "No API token was active any more." in page

    @pytest.mark.parametrize("permissions", [[], ["view_user"], ["view_user", "view_apitoken"]])
    def test_without_the_permission_nothing_ends(
        self, staff: Callable[..., Client], token: ApiToken, user: User, permissions: list[str]
    ) -> None:
        browser = staff(*permissions)
        page = browser.get(page_of(user)).content.decode()

        assert ("Deployment" in page) == ("view_apitoken" in permissions)
        assert "end-api-token" not in page
        assert browser.post(end_path(token)).status_code == 403
        body = {"action": "end", "_selected_action": [token.pk]}
        browser.post(LIST, body)
        assert using(token).get(f"{API}/users/me").status_code == 200

    def test_it_ends_by_a_post_only_and_of_its_user_only(
        self, console: Client, token: ApiToken, stranger: User
    ) -> None:
        assert console.get(end_path(token)).status_code == 405
        wrong = f"/admin/accounts/user/{stranger.pk}/end-api-token/{token.pk}/"
        assert console.post(wrong).status_code == 302
        assert console.post("/admin/accounts/user/0/end-api-token/x/").status_code == 404
        assert using(token).get(f"{API}/users/me").status_code == 200

    def test_a_user_with_tokens_is_deleted_by_those_who_may_delete_users(
        self, staff: Callable[..., Client], token: ApiToken, user: User
    ) -> None:
        browser = staff("view_user", "delete_user")
        page = f"/admin/accounts/user/{user.pk}/delete/"

        assert browser.post(page, {"post": "yes"}).status_code == 302
        assert not User.objects.filter(pk=user.pk).exists()


class TestList:
    def test_it_is_searched_filtered_and_linked(
        self, console: Client, token: ApiToken, user: User, stranger: User
    ) -> None:
        expired, other = issue_token(user, name="Old one"), issue_token(stranger, name="Other")
        expire(expired)

        def names(query: str) -> set[str]:
            page = console.get(f"{LIST}?{query}").content.decode()
            return {name for name in ("Deployment", "Old one", "Other") if f">{name}" in page}

        assert names("") == {"Deployment", "Old one", "Other"}
        assert names("q=mallory") == {"Other"}
        assert names(f"q={expired.pk}") == {"Old one"}
        assert names(f"q={'0' * 16}") == set()
        assert names(f"user__id__exact={user.pk}") == {"Deployment", "Old one"}
        assert names("state=active") == {"Deployment", "Other"}
        assert names("state=expired") == {"Old one"}
        assert names("state=nonsense") == {"Deployment", "Old one", "Other"}
        assert names("scope__exact=read") == {"Deployment"}
        assert "digest" not in console.get(f"{LIST}{other.pk}/change/").content.decode()
        assert "expired" in console.get(f"{LIST}{expired.pk}/change/").content.decode()

    def test_no_filter_tells_a_digest(self, console: Client, token: ApiToken) -> None:
        response = console.get(f"{LIST}?digest__startswith=a")
        assert response.status_code in {302, 400}

    def test_it_ends_the_selected_ones(self, console: Client, user: User) -> None:
        tokens = [issue_token(user) for _ in range(3)]
        selected = [token.pk for token in tokens[:2]]

        page = console.post(LIST, {"action": "end", "_selected_action": selected}, follow=True)

        assert b"2 API tokens ended." in page.content
        assert list(user.api_tokens.values_list("pk", flat=True)) == [tokens[2].pk]

    def test_nobody_adds_changes_or_deletes_one_by_hand(
        self, console: Client, token: ApiToken
    ) -> None:
        for path in ("add/", f"{token.pk}/change/", f"{token.pk}/delete/"):
            assert console.post(f"{LIST}{path}", {"name": "x", "post": "yes"}).status_code == 403


class TestSupport:
    def permit(self) -> None:
        # Tests that commit leave the database without what migrations put there.
        import_module("accounts.migrations.0009_api_tokens").permit_support(apps, None)

    def test_it_sees_and_ends_tokens(
        self, staff: Callable[..., Client], token: ApiToken, user: User
    ) -> None:
        import_module("accounts.migrations.0003_support_group").make_group(apps, None)
        self.permit()
        browser = staff(group="Support")

        assert "Deployment" in browser.get(page_of(user)).content.decode()
        browser.post(end_path(token))
        assert not user.api_tokens.exists()

    def test_the_migration_creates_no_group_again(self, db: None) -> None:
        Group.objects.filter(name="Support").delete()
        self.permit()
        assert not Group.objects.filter(name="Support").exists()
