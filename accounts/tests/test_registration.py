"""Registration: open, or with an address that is proven first."""

from collections.abc import Callable
from typing import Any

import pytest
from pytest_django import DjangoAssertNumQueries, Settings

from accounts.models import Event, OutgoingEmail, Ticket, User
from accounts.models.managers import UserManager
from conftest import API, PASSWORD, SignIn
from tests.rig.lifecycle import (
    change_address,
    delivered,
    errors,
    inbox,
    post,
    token_sent_to,
    verify,
)

ADDRESS = "bob@example.com"
BODY = {"username": "bob", "password": PASSWORD}


@pytest.fixture(autouse=True)
def lifted_limits(settings: Settings) -> None:
    settings.AUTH_RATE_LIMIT = (1_000_000, 60)


@pytest.fixture
def verified_only(settings: Settings) -> None:
    settings.REGISTRATION = "verified"


def ask(email: Any, **headers: str) -> Any:
    return post("/auth/registration", {"email": email}, **headers)


def token_for(email: str) -> str:
    assert ask(email).status_code == 202
    return token_sent_to(email)


class TestOpen:
    def test_a_new_account_is_unverified_and_gets_a_link(self, db: None, sign_in: SignIn) -> None:
        response = post("/users", BODY | {"email": ADDRESS})

        assert response.status_code == 201
        assert response.json()["email_verified"] is False
        assert delivered() == [("verify_email", ADDRESS)]
        device = sign_in(User.objects.get())
        verified = verify(device, token_sent_to(ADDRESS))
        assert (verified.status_code, verified.json()["email_verified"]) == (200, True)

    def test_the_link_is_written_with_the_account(
        self, db: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError

        monkeypatch.setattr(type(OutgoingEmail.objects.all()), "create", fail)

        assert post("/users", BODY | {"email": ADDRESS}).status_code == 500
        assert not User.objects.exists()

    def test_at_the_email_limit_it_succeeds_and_sends_nothing(
        self, db: None, settings: Settings
    ) -> None:
        settings.EMAIL_LIMIT = (1, 3600)
        for number in range(3):
            assert post("/users", BODY | {"email": ADDRESS}).status_code == 201
            User.objects.filter(username="bob").update(
                username=f"bob{number}", email=f"bob{number}@example.com"
            )

        assert len(inbox(ADDRESS)) == 1

    def test_without_email_it_succeeds(self, db: None, settings: Settings) -> None:
        settings.EMAIL_ENABLED = False

        assert post("/users", BODY | {"email": ADDRESS}).status_code == 201
        assert not OutgoingEmail.objects.exists()

    def test_a_registration_token_proves_an_address_here_too(self, db: None) -> None:
        """Links that were sent with REGISTRATION=verified keep working."""
        ticket = Ticket.objects.issue("register", address="other@example.com")
        body = BODY | {"email": ADDRESS, "registration_token": ticket.token}

        response = post("/users", body)

        assert response.json()["email"] == "other@example.com"
        assert response.json()["email_verified"] is True

    @pytest.mark.parametrize(
        ("body", "code"),
        [({}, "required"), ({"email": None}, "null"), ({"email": ""}, "blank")],
    )
    def test_without_a_token_the_address_is_required(
        self, db: None, body: dict[str, Any], code: str
    ) -> None:
        assert errors(post("/users", BODY | body)) == {"email": code}

    @pytest.mark.parametrize("body", [[], [{}], "x", 7])
    def test_a_body_that_is_no_object_is_a_400(self, db: None, body: Any) -> None:
        assert post("/users", body).status_code == 400

    def test_the_route_does_not_exist(self, db: None) -> None:
        response = ask(ADDRESS)

        assert (response.status_code, response.json()["code"]) == (404, "not_found")
        assert not OutgoingEmail.objects.exists()


@pytest.mark.usefixtures("verified_only")
class TestVerified:
    def test_a_token_makes_a_verified_account(self, db: None) -> None:
        response = post("/users", BODY | {"registration_token": token_for(ADDRESS)})

        assert response.status_code == 201
        user = response.json()
        assert (user["email"], user["email_verified"]) == (ADDRESS, True)
        assert delivered() == [("registration", ADDRESS)]

    def test_a_taken_address_gets_the_same_response_and_a_notice(self, user: User) -> None:
        free, taken = ask(ADDRESS), ask("Alice@Example.com")

        for response in (free, taken):
            assert (response.status_code, response.content) == (202, b"{}")
        assert delivered() == [
            ("already_registered", "alice@example.com"), ("registration", ADDRESS),
        ]  # fmt: skip
        assert "#token=" not in str(inbox("alice@example.com")[0].body)

    def test_every_address_runs_the_same_statements(
        self, user: User, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        statements = set()
        for address in (ADDRESS, "alice@example.com", "a" * 60 + "@example.com"):
            with django_assert_num_queries(1) as captured:
                ask(address)
            statements |= {q["sql"].partition("VALUES")[0] for q in captured.captured_queries}

        assert len(statements) == 1

    @pytest.mark.parametrize("extra", [{}, {"email": ADDRESS}])
    def test_the_token_is_required(self, db: None, extra: dict[str, str]) -> None:
        assert errors(post("/users", BODY | extra)) == {"registration_token": "required"}
        assert not User.objects.exists()

    def test_the_address_of_the_body_is_ignored(self, db: None) -> None:
        body = BODY | {"registration_token": token_for(ADDRESS), "email": "x@example.com"}

        assert post("/users", body).json()["email"] == ADDRESS

    def test_a_token_works_once(self, db: None) -> None:
        token = token_for(ADDRESS)
        assert post("/users", BODY | {"registration_token": token}).status_code == 201

        body = {"username": "carol", "password": PASSWORD, "registration_token": token}
        assert errors(post("/users", body)) == {"registration_token": "ticket_not_valid"}
        assert User.objects.count() == 1

    def test_a_token_ends_the_others_of_its_address(self, db: None) -> None:
        first, second = token_for(ADDRESS), token_for(ADDRESS)
        assert first != second
        post("/users", BODY | {"registration_token": first})
        User.objects.all().delete()

        body = BODY | {"registration_token": second}
        assert errors(post("/users", body)) == {"registration_token": "ticket_not_valid"}

    @pytest.mark.parametrize(
        ("changed", "field"),
        [({"password": "short"}, "password"), ({"username": "ALICE"}, "username"),
         ({"username": "b"}, "username"), ({"names": 7}, "names")],
    )  # fmt: skip
    def test_another_fault_leaves_the_ticket(
        self, user: User, changed: dict[str, Any], field: str
    ) -> None:
        body = BODY | {"registration_token": token_for(ADDRESS)}

        assert set(errors(post("/users", body | changed))) == {field}
        assert post("/users", body).status_code == 201

    def test_the_password_is_compared_with_the_proven_address(self, db: None) -> None:
        body = {"username": "bob", "registration_token": token_for("robertson@example.com")}

        response = post("/users", body | {"password": "robertson 4711 x"})

        assert set(errors(response)) == {"password"}

    @pytest.mark.parametrize("taken_late", [False, True])
    def test_an_address_that_was_taken_meanwhile_is_unique(
        self,
        make_user: Callable[..., User],
        monkeypatch: pytest.MonkeyPatch,
        taken_late: bool,
    ) -> None:
        body = BODY | {"registration_token": token_for(ADDRESS)}
        make_user("carol", email="BOB@example.com")
        if taken_late:  # after the serializer has looked
            monkeypatch.setattr(UserManager, "identify", lambda self, identity: (identity, None))

        assert errors(post("/users", body)) == {"registration_token": "unique"}

    def test_registration_says_nothing_of_the_address_without_the_token(self, user: User) -> None:
        responses = [
            post("/users", BODY | {"email": email}) for email in (ADDRESS, "alice@example.com")
        ]

        assert errors(responses[0]) == errors(responses[1]) == {"registration_token": "required"}

    @pytest.mark.parametrize(
        ("email", "code"),
        [
            (None, "null"), ("", "blank"), (7, "invalid"), ([ADDRESS], "invalid"),
            ({}, "invalid"), (True, "invalid"), ("bob", "invalid"),
            ("b\u00f6b@example.com", "invalid"), ("bob@", "invalid"),
            ("@example.com", "invalid"), ("a@b@example.com", "invalid"),
            ("x" * 250 + "@a.de", "max_length"), ("x" * 500_000, "max_length"),
            ("a@" + "\u0300" * 300_000, "max_length"),
        ],
    )  # fmt: skip
    def test_a_bad_address_costs_no_query(
        self, db: None, django_assert_num_queries: DjangoAssertNumQueries, email: Any, code: str
    ) -> None:
        with django_assert_num_queries(0):
            response = ask(email)

        assert errors(response) == {"email": code}

    def test_a_missing_address_is_required(self, db: None) -> None:
        assert errors(post("/auth/registration", {})) == {"email": "required"}

    def test_the_authorization_header_is_ignored(self, db: None) -> None:
        assert ask(ADDRESS, HTTP_AUTHORIZATION="Bearer x").status_code == 202
        response = post("/users", BODY, HTTP_AUTHORIZATION="Bearer x")
        assert (response.status_code, response.json()["code"]) == (401, "token_not_valid")

    def test_without_email_the_route_does_not_exist(self, db: None, settings: Settings) -> None:
        settings.EMAIL_ENABLED = False

        assert ask(ADDRESS).status_code == 404

    def test_the_route_is_limited(self, db: None, settings: Settings) -> None:
        settings.AUTH_RATE_LIMIT = (5, 60)

        assert [ask(ADDRESS).status_code for _ in range(6)] == [202] * 5 + [429]

    def test_the_recipients_limit_holds(self, db: None) -> None:
        for _ in range(6):
            ask(ADDRESS)

        assert len(inbox(ADDRESS)) == 3

    def test_no_event_names_an_address(self, user: User) -> None:
        post("/users", BODY | {"registration_token": token_for(ADDRESS)})
        ask("alice@example.com")
        delivered()

        assert "@" not in repr(list(Event.objects.values()))


@pytest.mark.parametrize("mode", ["open", "verified"])
def test_an_address_that_an_undo_can_restore_is_unique(
    user: User, sign_in: SignIn, settings: Settings, mode: str
) -> None:
    settings.REGISTRATION = mode
    change_address(sign_in(user), "new@example.com")
    proof, field = {"email": "ALICE@example.com"}, "email"
    if mode == "verified":
        # One that was sent before the address was given up.
        ticket = Ticket.objects.issue("register", address="ALICE@example.com")
        proof, field = {"registration_token": ticket.token}, "registration_token"

    response = post("/users", BODY | proof)

    assert errors(response) == {field: "unique"}
    Ticket.objects.filter(purpose="undo").end()
    assert post("/users", BODY | proof).status_code == 201


def test_who_asks_for_a_reserved_address_gets_a_notice(
    user: User, sign_in: SignIn, settings: Settings
) -> None:
    settings.REGISTRATION = "verified"
    change_address(sign_in(user), "new@example.com")

    assert ask("alice@example.com").status_code == 202

    assert ("already_registered", "alice@example.com") in delivered()
    assert not Ticket.objects.filter(purpose="register").exists()


def test_the_verified_account_may_use_the_api(
    db: None, sign_in: SignIn, settings: Settings
) -> None:
    settings.REGISTRATION = "verified"
    post("/users", BODY | {"registration_token": token_for(ADDRESS)})

    me = sign_in(User.objects.get()).get(f"{API}/users/me").json()

    assert (me["email"], me["email_verified"]) == (ADDRESS, True)
