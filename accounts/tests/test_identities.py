"""One canonical form of each identity, through every way in, and nothing else signs in."""

import importlib
from collections.abc import Callable
from typing import Any

import pytest
from django.apps import apps
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import Invitation, User
from conftest import API, PASSWORD, SignIn
from tests.rig.lifecycle import change_address

pytestmark = pytest.mark.usefixtures("lifted_limits")
FORMS = [
    ("Bob.B+x@Example.COM", "Bob.B+x@example.com"),
    ("bob@BÜCHER.example", "bob@xn--bcher-kva.example"),
    ("bob@bu\u0308cher.example", "bob@xn--bcher-kva.example"),
    ("bob@XN--BCHER-KVA.example", "bob@xn--bcher-kva.example"),
    ("bob@shop.ΕΤΑΙΡΟΣ", "bob@shop.xn--mxahnyjnc"),
    ("bob@STRAẞE.example", "bob@xn--strae-oqa.example"),
    ("bob@straße.example", "bob@xn--strae-oqa.example"),
    ("bob@ab--cd.example", "bob@ab--cd.example"),
]
INVALID = [
    "admİn@x.example",  # lower-cased by Python or PostgreSQL, this is another address
    "admın@x.example",
    "ａdmin@x.example",
    "ad\u212ain@x.example",
    "ſupport@x.example",
    "ad\u200bmin@x.example",
    "ad\u00admin@x.example",
    "\u202eadmin@x.example",
    "ad\x07min@x.example",
    '"ad min"@x.example',
    "admin@x\u200b.example",
    "admin@x\u00ad.example",
    "admin@x\ufe0f.example",
    "admin@\u2066x.example",
    "admin@x\x1f.example",
    "admin@x..example",
    "admin@xn--a.example",
    "admin@x_y.ä.example",
    "admin＠x.example",
    "=?utf-8?q?admin?=@x.example",  # a mail program decodes it
    "admin@localhost",  # email would stay on the mail server's machine
    "admin@LocalHost",
    "admin@ⓛocalhost",
    "admin@mail.localhost",
    "admin@[127.0.0.1]",
    "admin@[IPv6:::1]",
    "admin@10.0.0.12",
    "admin@",
    "@x.example",
]


def register(email: str, username: str = "bob") -> Any:
    body = {"username": username, "email": email, "password": PASSWORD}
    return APIClient(raise_request_exception=False).post(f"{API}/users", body)


def login(identity: str, password: str = PASSWORD) -> Any:
    body = {"identity": identity, "password": password}
    return APIClient(raise_request_exception=False).post(f"{API}/auth/login", body)


class TestStoredForm:
    @pytest.mark.parametrize(("typed", "stored"), FORMS)
    def test_it_is_the_same_from_every_way_in(
        self,
        console: Client,
        user: User,
        sign_in: SignIn,
        monkeypatch: pytest.MonkeyPatch,
        typed: str,
        stored: str,
    ) -> None:
        def take() -> str:
            bob = User.objects.get(username="bob")
            User.objects.filter(pk=bob.pk).delete()
            return str(bob.email)

        assert register(typed).json()["email"] == stored
        assert take() == stored
        User.objects.create_user("bob", typed, PASSWORD)
        assert take() == stored
        assert console.post("/admin/accounts/user/add/", {"email": typed}).status_code == 302
        assert Invitation.objects.get().address == stored
        monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", PASSWORD)
        call_command("createsuperuser", interactive=False, username="bob", email=typed, verbosity=0)
        assert take() == stored
        change_address(sign_in(user), typed, stored=stored)
        user.refresh_from_db()
        assert user.email == stored

    @pytest.mark.parametrize("email", INVALID)
    def test_what_has_none_is_rejected_by_every_way_in(
        self, console: Client, user: User, monkeypatch: pytest.MonkeyPatch, email: str
    ) -> None:
        monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", PASSWORD)
        form = {"username": "alice", "email": email, "names": ""}

        response = register(email)

        assert response.status_code == 400
        [error] = response.json()["errors"]
        assert (error["field"], error["code"]) == ("email", "invalid")
        with pytest.raises(ValidationError, match="valid email"):
            User.objects.create_user("bob", email, PASSWORD)
        with pytest.raises(CommandError):
            call_command("createsuperuser", interactive=False, username="bob", email=email)
        added = console.post("/admin/accounts/user/add/", {"email": email})
        changed = console.post(f"/admin/accounts/user/{user.pk}/change/", form)
        assert (added.status_code, changed.status_code) == (200, 200)
        user.refresh_from_db()
        assert user.email == "alice@example.com"
        assert User.objects.count() == 2

    @pytest.mark.parametrize("username", ["ｂｏｂ", "bøb", "bo\u212a", "b@b", "bo b", "bo\u200bb"])
    def test_a_username_is_ascii_from_every_way_in(
        self, console: Client, user: User, username: str
    ) -> None:
        form = {"username": username, "email": "alice@example.com", "names": ""}

        [error] = register("bob@example.com", username).json()["errors"]

        assert (error["field"], error["code"]) == ("username", "invalid")
        with pytest.raises(ValidationError):
            User.objects.create_user(username, "bob@example.com", PASSWORD)
        with pytest.raises(ValidationError):
            User.objects.create_superuser(username, "bob@example.com", PASSWORD)
        console.post(f"/admin/accounts/user/{user.pk}/change/", form)
        user.refresh_from_db()
        assert user.username == "alice"
        assert User.objects.count() == 2

    @pytest.mark.parametrize(
        "fields",
        [
            {"username": "ａlice"},
            {"email": "ａlice@example.com"},
            {"email": "alice@bücher.example"},
            {"email": "al\\u0131ce@example.com"},
            {"email": "alice"},
        ],
    )
    def test_the_database_stores_nothing_else(self, user: User, fields: dict[str, str]) -> None:
        with pytest.raises(IntegrityError, match="_ascii"), transaction.atomic():
            User.objects.filter(pk=user.pk).update(**fields)

    def test_names_are_in_one_form_from_every_way_in(self, console: Client, user: User) -> None:
        form = {"username": "alice", "email": "alice@example.com", "is_active": "on"}
        url = f"/admin/accounts/user/{user.pk}/change/"

        assert console.post(url, form | {"names": " Rene\u0301e "}).status_code == 302
        assert console.post(url, form | {"names": "Ren\u202eeé"}).status_code == 200

        user.refresh_from_db()
        assert user.names == "Renée"
        bob = User.objects.create_user("bob", "bob@example.com", PASSWORD, names=" Rene\u0301e ")
        assert bob.names == "Renée"


class TestSignIn:
    @pytest.mark.parametrize(
        "identity",
        [
            "Admin@bücher.example",
            "ADMIN@BÜCHER.EXAMPLE",
            "admin@xn--bcher-kva.example",
            "admin@XN--BCHER-KVA.EXAMPLE",
            " admin@bu\u0308cher.example ",
            "ADMINISTRATION",
        ],
    )
    def test_the_domain_is_typed_in_either_form(
        self, make_user: Callable[..., User], identity: str
    ) -> None:
        user = make_user("administration", email="Admin@BÜCHER.example", is_staff=True)
        browser = Client()

        response = login(identity)
        browser.post("/admin/login/", {"username": identity, "password": PASSWORD})

        assert response.status_code == 200, identity
        assert response.json()["user"]["id"] == user.pk
        assert browser.session["_auth_user_id"] == str(user.pk)

    @pytest.mark.parametrize(("typed", "stored"), FORMS)
    def test_what_was_registered_signs_in(self, db: None, typed: str, stored: str) -> None:
        register(typed)

        assert login(typed).status_code == 200
        assert login(stored.upper()).status_code == 200

    @pytest.mark.parametrize(
        "identity",
        [
            "admİnistration",
            "ａdministration",
            "admini\u017ftration",
            "administration\u200b",
            "adm\u00adinistration",
            "administration\x00",
            "admİni@kiosk.example",
            "adm\u0131ni@kiosk.example",
            "ａdmini@kiosk.example",
            "admini\u200b@kiosk.example",
            "admini@kio\u00adsk.example",
            "admini@ki\u200bosk.example",
            "admini@kiosk.example.",
            "admini@kiosk.example@kiosk.example",
            "admini@x@kiosk.example",
            "admini＠kiosk.example",
            "@",
            " ",
        ],
    )
    def test_no_other_identity_signs_in(
        self, make_user: Callable[..., User], identity: str
    ) -> None:
        user = make_user("administration", email="admini@kiosk.example", is_staff=True)
        browser = Client()
        change = {"identity": identity, "current_password": PASSWORD, "new_password": "a wet night"}

        assert login(identity).status_code in {400, 401}
        browser.post("/admin/login/", {"username": identity, "password": PASSWORD})
        assert APIClient().post(f"{API}/auth/password", change).status_code in {400, 401}
        assert "_auth_user_id" not in browser.session
        assert not user.sessions.exists()

    def test_a_kelvin_sign_is_no_letter_of_an_address(self, make_user: Callable[..., User]) -> None:
        make_user("kiosk", email="kiosk@kiosk.example")

        assert login("\u212aiosk@kiosk.example").status_code == 401
        assert login("kios\u212a").status_code == 401
        assert login("kiosk@\u212aiosk.example").status_code == 200  # UTS 46: the same domain

    def test_a_long_address_fits_into_the_console(self, make_user: Callable[..., User]) -> None:
        email = f"{'x' * 60}@{'.'.join(['y' * 60] * 3)}.example"
        make_user("longname", email=email, is_staff=True)
        browser = Client()

        browser.post("/admin/login/", {"username": email, "password": PASSWORD})

        assert "_auth_user_id" in browser.session
        assert b'maxlength="254"' in Client().get("/admin/login/").content

    def test_one_statement_looks_up_known_and_unknown_alike(self, user: User) -> None:
        statements = []
        for identity in ("ALICE", "nobody"):
            with CaptureQueriesContext(connection) as captured:
                folded, found = User.objects.identify(identity)
            assert (folded, found) == (identity.lower(), user if identity == "ALICE" else None)
            statements += [query["sql"].replace(identity, "?") for query in captured]
        assert len(statements) == 2
        assert len(set(statements)) == 1

    def test_an_index_serves_the_lookup(self, user: User) -> None:
        for identity, index in (
            ("alice", "accounts_user_username_unique"),
            ("alice@example.com", "accounts_user_email_unique"),
        ):
            with CaptureQueriesContext(connection) as captured:
                User.objects.identify(identity)
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL enable_seqscan = off")
                cursor.execute(f"EXPLAIN {captured[0]['sql']}")
                assert index in "".join(line for (line,) in cursor.fetchall())

    @pytest.mark.parametrize("identity", ["x" * 1017, "x@" * 500_000])
    def test_an_overlong_identity_is_nobody(self, user: User, identity: str) -> None:
        assert User.objects.identify(identity) == ("", None)

    def test_failures_of_an_unknown_identity_share_a_count(
        self, db: None, settings: Settings
    ) -> None:
        settings.LOGIN_FAILURE_LIMIT = (2, 900)

        statuses = [
            login(identity).status_code
            for identity in ("x@bücher.example", "X@BÜCHER.example", "X@xn--bcher-kva.EXAMPLE")
        ]

        assert statuses == [401, 401, 429]


class TestSuperuser:
    @pytest.mark.parametrize(
        ("password", "text"),
        [
            ("short", "too short"),
            ("x" * 129, "too long"),
            ("password123", "too common"),
            ("my latchkey is lost", "name of the service"),
            ("Archer is at home", "name of yours"),
            ("\u3000" * 8, "no visible character"),
        ],
    )
    def test_its_password_keeps_the_rules(
        self, db: None, monkeypatch: pytest.MonkeyPatch, password: str, text: str
    ) -> None:
        monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", password)

        with pytest.raises(CommandError, match=text):
            call_command(
                "createsuperuser", interactive=False, username="archer", email="a@example.com"
            )

        assert not User.objects.exists()

    def test_staff_may_give_a_reserved_name(self, console: Client, user: User) -> None:
        form = {"username": "support", "email": user.email, "names": "", "is_active": "on"}

        path = f"/admin/accounts/user/{user.pk}/change/"
        assert console.post(path, form).status_code == 302
        assert User.objects.filter(pk=user.pk, username="support").exists()
        User.objects.create_superuser("root", "root@example.com", PASSWORD)


class TestDatabase:
    @pytest.mark.parametrize(
        "email", ["=?utf-8?q?admin?=@x.example", "admin=?@x.example", "admın@x.example"]
    )
    def test_it_rejects_an_address_that_is_read_as_another(self, user: User, email: str) -> None:
        with pytest.raises(IntegrityError, match="accounts_user_email_"), transaction.atomic():
            User.objects.filter(pk=user.pk).update(email=email)

    def test_an_account_at_localhost_of_an_earlier_release_signs_in(self, user: User) -> None:
        User.objects.filter(pk=user.pk).update(email="alice@localhost")

        assert login("Alice@localhost").status_code == 200


class TestMigration:
    @pytest.fixture
    def before(self, make_user: Callable[..., User]) -> User:
        """A user of the release before, whose rows kept other rules."""
        user = make_user("alice")
        with connection.cursor() as cursor:
            for name in ("username", "email"):
                cursor.execute(
                    f"ALTER TABLE accounts_user DROP CONSTRAINT accounts_user_{name}_ascii"
                )
        return user

    def migrate(self) -> None:
        migration = importlib.import_module("accounts.migrations.0004_canonical_identities")
        migration.convert_emails(apps, connection.schema_editor())

    def test_it_converts_domains(self, before: User) -> None:
        User.objects.filter(pk=before.pk).update(email="Alice@bücher.example")

        self.migrate()

        before.refresh_from_db()
        assert before.email == "Alice@xn--bcher-kva.example"

    @pytest.mark.parametrize(
        "fields",
        [
            {"email": "al\u0131ce@example.com"},
            {"email": "alice@exam\u200bple.com"},
            {"username": "älice"},
        ],
    )
    def test_it_stops_at_what_may_be_an_attack(self, before: User, fields: dict[str, str]) -> None:
        User.objects.filter(pk=before.pk).update(**fields)

        with pytest.raises(CommandError, match=f"ids: {before.pk}$"):
            self.migrate()

    def test_it_stops_at_an_encoded_word(self, before: User) -> None:
        migration = importlib.import_module("accounts.migrations.0008_email_without_encoded_word")
        migration.find_encoded_words(apps, connection.schema_editor())
        with connection.cursor() as cursor:
            constraint = "accounts_user_email_no_encoded_word"
            cursor.execute(f"ALTER TABLE accounts_user DROP CONSTRAINT {constraint}")
        User.objects.filter(pk=before.pk).update(email="=?utf-8?q?admin?=@x.example")

        with pytest.raises(CommandError, match=f"contains =\\?.* ids: {before.pk}$"):
            migration.find_encoded_words(apps, connection.schema_editor())
