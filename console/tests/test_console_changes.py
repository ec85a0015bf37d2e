"""A form of the console changes only the fields that its user changed."""

from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group
from django.db import connection
from django.test import Client

from accounts.models import Event, User
from conftest import API, PASSWORD, SignIn
from console.model_admin import BoundedAdmin
from console.site import ConsoleSite
from console.tests.samples import Part, Sample
from tests.articles.models import Article
from tests.rig.forms import Fields, fields_of
from tests.rig.lifecycle import change_address

NEW = "a rainy night in June"

SAMPLE = "/admin/health/sample/1/change/"


def page_of(user: User) -> str:
    return f"/admin/accounts/user/{user.pk}/change/"


class TestUser:
    def test_a_stale_form_does_not_undo_what_the_user_changed(
        self, console: Client, user: User, sign_in: SignIn
    ) -> None:
        device = sign_in(user)
        form = fields_of(console.get(page_of(user)))
        change = {"current_password": PASSWORD, "new_password": NEW}
        assert device.post(f"{API}/auth/password", change).status_code == 204
        change_address(device, "new@example.com")

        assert console.post(page_of(user), form | {"names": ["Alice"]}).status_code == 302

        user.refresh_from_db()
        assert (user.names, user.email) == ("Alice", "new@example.com")
        assert user.check_password(NEW)

    def test_a_stale_form_does_not_undo_a_deactivation(self, console: Client, user: User) -> None:
        form = fields_of(console.get(page_of(user)))
        console.post(f"/admin/accounts/user/{user.pk}/set/deactivate/")

        console.post(page_of(user), form | {"names": ["Alice"]})

        user.refresh_from_db()
        assert (user.names, user.is_active) == ("Alice", False)

    def test_a_stale_form_does_not_end_the_sessions_of_a_user_who_was_activated(
        self, console: Client, user: User, sign_in: SignIn
    ) -> None:
        User.objects.filter(pk=user.pk).update(is_active=False)
        form = fields_of(console.get(page_of(user)))
        User.objects.filter(pk=user.pk).update(is_active=True)
        device = sign_in(user)

        console.post(page_of(user), form | {"names": ["Alice"]})

        assert device.get(f"{API}/users/me").status_code == 200

    def test_a_name_that_was_given_up_and_taken_does_not_stop_a_stale_form(
        self, console: Client, user: User, stranger: User
    ) -> None:
        form = fields_of(console.get(page_of(user)))
        User.objects.filter(pk=user.pk).update(username="alice2")
        User.objects.filter(pk=stranger.pk).update(username="alice")

        assert console.post(page_of(user), form | {"names": ["A"]}).status_code == 302

        user.refresh_from_db()
        assert (user.username, user.names) == ("alice2", "A")

    def test_a_stale_form_does_not_undo_a_change_of_groups(
        self, console: Client, user: User
    ) -> None:
        group = Group.objects.create(name="Readers")
        before = fields_of(console.get(page_of(user)))
        console.post(page_of(user), before | {"groups": [str(group.pk)]})
        assert list(user.groups.all()) == [group]

        console.post(page_of(user), before | {"names": ["Alice"]})

        assert list(user.groups.all()) == [group]
        after = fields_of(console.get(page_of(user)))
        console.post(page_of(user), {k: v for k, v in after.items() if k != "groups"})
        assert not user.groups.exists()

    def test_a_selection_survives_a_fault_in_another_field(
        self, console: Client, user: User
    ) -> None:
        group = Group.objects.create(name="Readers")
        form = fields_of(console.get(page_of(user)))
        page = console.post(page_of(user), form | {"groups": [str(group.pk)], "email": ["x"]})

        again = fields_of(page) | {"email": [user.email]}
        assert console.post(page_of(user), again).status_code == 302

        assert list(user.groups.all()) == [group]

    def test_a_stale_form_does_not_bring_back_a_deleted_user(
        self, console: Client, user: User, sign_in: SignIn
    ) -> None:
        form = fields_of(console.get(page_of(user)))
        assert sign_in(user).delete(f"{API}/users/{user.pk}").status_code == 204

        for page in (page_of(user), f"/admin/accounts/user/{user.pk}/delete/"):
            response = console.post(page, form | {"post": ["yes"]}, follow=True)
            assert "Perhaps it was deleted?" in response.content.decode()

        assert not User.objects.filter(pk=user.pk).exists()

    def test_a_form_from_a_script_changes_what_it_holds(self, console: Client, user: User) -> None:
        body = {"username": "alice", "email": user.email, "names": "Alice"}

        assert console.post(page_of(user), body).status_code == 302

        user.refresh_from_db()
        assert (user.names, user.is_active) == ("Alice", False)

    def test_the_page_holds_no_hash(self, console: Client, user: User) -> None:
        page = console.get(page_of(user)).content.decode()

        assert user.password not in page
        assert "initial-password" not in page

    def test_only_what_changed_is_on_record(self, console: Client, user: User) -> None:
        form = fields_of(console.get(page_of(user)))
        User.objects.filter(pk=user.pk).update(email="new@example.com")

        console.post(page_of(user), form | {"names": ["Alice"]})

        assert Event.objects.latest("id").detail == "names"


class TestArticle:
    def test_a_stale_form_does_not_undo_what_the_owner_changed(
        self, console: Client, user: User, sign_in: SignIn
    ) -> None:
        article = Article.objects.create(owner=user, title="Lamp", description="a\nb ", amount=1)
        page = f"/admin/articles/article/{article.pk}/change/"
        form = fields_of(console.get(page))
        sign_in(user).patch(f"{API}/articles/{article.pk}", {"amount": 7})

        assert console.post(page, form | {"title": ["Desk lamp"]}).status_code == 302

        changed = Article.objects.get()
        assert (changed.title, changed.amount, changed.description) == ("Desk lamp", 7, "a\nb ")
        assert changed.updated_at > article.updated_at
        assert changed.created_at == article.created_at

    def test_a_stale_form_does_not_bring_back_a_deleted_article(
        self, console: Client, user: User
    ) -> None:
        article = Article.objects.create(owner=user, title="Lamp", amount=1)
        page = f"/admin/articles/article/{article.pk}/change/"
        form = fields_of(console.get(page))
        article.delete()

        console.post(page, form | {"title": ["Desk lamp"]})

        assert not Article.objects.exists()


class TestModelOfAClone:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("data", {"b": 2}),
            ("at", datetime(2026, 5, 6, 7, 8, 9, 10, UTC)),
            ("is_open", False),
            ("notes", "a\nb"),
            ("number", 9),
        ],
    )
    def test_a_stale_form_does_not_undo_a_change(
        self, console: Client, sample: Sample, name: str, value: Any
    ) -> None:
        form = fields_of(console.get(SAMPLE))
        Sample.objects.update(**{name: value})

        assert console.post(SAMPLE, form | {"title": ["Desk lamp"]}).status_code == 302

        changed = Sample.objects.get()
        assert (changed.title, getattr(changed, name)) == ("Desk lamp", value)

    def test_a_time_keeps_its_microseconds(self, console: Client, sample: Sample) -> None:
        form = fields_of(console.get(SAMPLE))

        console.post(SAMPLE, form | {"title": ["Desk lamp"]})

        assert Sample.objects.get().at == sample.at

    def test_the_history_names_only_what_was_changed(self, console: Client, sample: Sample) -> None:
        Sample.objects.update(file="plan.pdf")
        form = fields_of(console.get(SAMPLE))
        Sample.objects.update(number=9, notes="new")

        console.post(SAMPLE, form | {"title": ["Desk lamp"], "secret": ["key"]})

        assert LogEntry.objects.get().get_change_message() == "Changed Title."
        assert Sample.objects.get().file.name == "plan.pdf"

    def test_a_time_survives_a_fault_in_another_field(
        self, console: Client, sample: Sample
    ) -> None:
        form = fields_of(console.get(SAMPLE)) | {"at_0": ["2027-01-01"], "number": ["x"]}

        again = fields_of(console.post(SAMPLE, form)) | {"number": ["3"]}
        assert console.post(SAMPLE, again).status_code == 302

        changed = Sample.objects.get()
        assert (changed.at.year, changed.number) == (2027, 3)

    def test_what_a_widget_hides_is_not_in_the_page(self, console: Client, sample: Sample) -> None:
        page = console.get(SAMPLE).content.decode()

        assert "initial-secret" not in page
        assert "key" not in fields_of(console.get(SAMPLE)).get("initial-secret", [])

    def test_rows_within_the_form_keep_what_changed_meanwhile(
        self, console: Client, sample: Sample
    ) -> None:
        part = Part.objects.create(sample=sample, title="Bulb", number=1)
        form = fields_of(console.get(SAMPLE))
        Part.objects.update(number=7)
        change = {"part_set-0-title": ["Tube"], "part_set-1-title": ["Cord"]}

        assert console.post(SAMPLE, form | change).status_code == 302

        assert set(Part.objects.values_list("title", "number")) == {("Tube", 7), ("Cord", 0)}
        part.delete()
        again = console.post(SAMPLE, form | {"part_set-0-title": ["Tube 2"]})
        assert b"Please correct the error" in again.content
        assert not Part.objects.filter(title__startswith="Tube").exists()

    def test_a_list_that_is_edited_keeps_what_changed_meanwhile(
        self, console: Client, sample: Sample
    ) -> None:
        form = fields_of(console.get("/admin/health/sample/"))
        Sample.objects.update(is_open=False, title="Desk lamp")
        change = form | {"form-0-number": ["5"], "_save": ["Save"]}

        assert console.post("/admin/health/sample/", change).status_code == 302

        changed = Sample.objects.get()
        assert (changed.title, changed.is_open, changed.number) == ("Desk lamp", False, 5)

    def test_a_list_that_is_edited_does_not_bring_back_a_deleted_row(
        self, console: Client, sample: Sample
    ) -> None:
        form = fields_of(console.get("/admin/health/sample/"))
        sample.delete()

        page = console.post(
            "/admin/health/sample/", form | {"form-0-number": ["5"], "_save": ["Save"]}
        )

        assert (page.status_code, Sample.objects.exists()) == (200, False)

    def test_a_plain_model_admin_is_bounded_as_well(self, sample: Sample) -> None:
        site = ConsoleSite()
        site.register(Sample, admin.ModelAdmin)
        site.register(Part)

        assert isinstance(site.get_model_admin(Sample), BoundedAdmin)
        assert isinstance(site.get_model_admin(Part), BoundedAdmin)


class TestRuleOfTheDatabase:
    """A rule that the model does not know, so that its validation finds no fault."""

    @pytest.fixture
    def other(self, sample: Sample) -> Sample:
        other = Sample(title="Chair", number=1, at=sample.at, data=sample.data)
        other.save()
        with connection.cursor() as cursor:
            for table, column in (("sample", "title"), ("sample", "number"), ("part", "title")):
                cursor.execute(f"CREATE UNIQUE INDEX ON health_{table} ({column})")
        Part.objects.create(sample=sample, title="Bulb", number=1)
        return other

    @pytest.mark.parametrize(
        "change",
        [
            {"title": ["Lamp"]},
            {"part_set-0-title": ["Bulb"]},
            {"title": ["Stool"], "part_set-0-title": ["Bulb"]},
        ],
    )
    def test_what_it_rejects_is_an_error_of_the_form(
        self, console: Client, other: Sample, change: Fields
    ) -> None:
        page = f"/admin/health/sample/{other.pk}/change/"

        response = console.post(page, fields_of(console.get(page)) | change)

        assert (response.status_code, b"Not saved: " in response.content) == (200, True)
        assert fields_of(response)["title"] == change.get("title", ["Chair"])
        assert set(Sample.objects.values_list("title", flat=True)) == {"Lamp", "Chair"}
        assert Part.objects.count() == 1
        assert not LogEntry.objects.exists()

    def test_what_it_rejects_is_an_error_of_the_list(self, console: Client, other: Sample) -> None:
        page = "/admin/health/sample/"
        form = fields_of(console.get(page)) | {"form-0-number": ["5"], "form-1-number": ["5"]}

        response = console.post(page, form | {"_save": ["Save"]})

        assert (response.status_code, b"Not saved: " in response.content) == (200, True)
        assert set(Sample.objects.values_list("number", flat=True)) == {0, 1}
        assert not LogEntry.objects.exists()
