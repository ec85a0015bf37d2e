"""Data of one app on the console's pages of another."""

from collections.abc import Callable
from importlib import import_module

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission
from django.test import Client

from accounts.models import Session, User
from conftest import API, SignIn
from tests.articles.models import Article


@pytest.fixture
def staff(make_user: Callable[..., User]) -> Callable[..., Client]:
    """Sign in as a member of a group, as someone with permissions, or as a superuser."""
    # Tests that commit remove the rows that migrations created.
    import_module("accounts.migrations.0003_support_group").make_group(apps, None)
    import_module("tests.articles.migrations.0002_group").make_group(apps, None)

    def sign_in(group: str = "", *permissions: str) -> Client:
        user = make_user("boss", is_staff=True, is_superuser=not group and not permissions)
        user.groups.set(Group.objects.filter(name=group))
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        browser = Client()
        browser.force_login(user)
        return browser

    return sign_in


def page_of(user: User) -> str:
    return f"/admin/accounts/user/{user.pk}/change/"


class TestOwned:
    @pytest.mark.parametrize(("number", "text"), [(0, ">0 articles<"), (1, ">1 article<")])
    def test_the_page_of_a_user_counts_and_links_what_the_user_owns(
        self,
        staff: Callable[..., Client],
        user: User,
        stranger: User,
        number: int,
        text: str,
    ) -> None:
        for owner in [user] * number + [stranger]:
            Article.objects.create(owner=owner, title=f"Of {owner}", amount=1)
        browser = staff()

        page = browser.get(page_of(user)).content.decode()

        assert text in page
        link = f"/admin/articles/article/?owner={user.pk}"
        assert f'"{link}"' in page
        listed = browser.get(link).content.decode()
        assert ("Of alice" in listed, "Of mallory" in listed) == (number > 0, False)

    def test_rows_that_staff_may_not_see_are_not_counted(
        self, staff: Callable[..., Client], user: User
    ) -> None:
        Article.objects.create(owner=user, title="Lamp", amount=1)

        page = staff("Support").get(page_of(user)).content.decode()

        assert "article" not in page.replace("user_articles", "")

    def test_a_user_is_deleted_with_sessions_and_articles(
        self, staff: Callable[..., Client], user: User, sign_in: SignIn
    ) -> None:
        sign_in(user)
        Article.objects.create(owner=user, title="Lamp", amount=1)

        url = f"/admin/accounts/user/{user.pk}/delete/"
        assert staff().post(url, {"post": "yes"}).status_code == 302

        assert not Article.objects.exists()
        assert not Session.objects.exists()


class TestGroups:
    def test_support_does_not_manage_articles(
        self, staff: Callable[..., Client], user: User, sign_in: SignIn
    ) -> None:
        article = Article.objects.create(owner=user, title="Lamp", amount=1)
        browser = staff("Support")

        assert b"articles/article" not in browser.get("/admin/").content
        address = f"/admin/articles/article/{article.pk}/change/"
        assert browser.post(address, {"amount": "2"}).status_code == 403
        susan = sign_in(User.objects.get(username="boss"))
        assert susan.patch(f"{API}/articles/{article.pk}", {"amount": 2}).status_code == 403

    def test_the_articles_group_sees_no_users(
        self, staff: Callable[..., Client], user: User
    ) -> None:
        browser = staff("Articles")

        for path in ("user", "session", "event"):
            assert browser.get(f"/admin/accounts/{path}/").status_code == 403
        assert browser.post(f"/admin/accounts/user/{user.pk}/end-sessions/").status_code == 403
