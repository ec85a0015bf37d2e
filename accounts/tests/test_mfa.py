"""Second factors over the API: enrolment, the second step of a login, and what is fresh."""

import re
from datetime import timedelta
from typing import Any

import jwt
import pyotp
import pytest
from django.conf import settings as project
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import Event, RecoveryCode, Session, Ticket, TOTPDevice, User
from accounts.models.totp import step_of
from conftest import API, PASSWORD, SignIn
from tests.rig.factors import (
    begin_login,
    client_of,
    code_of,
    complete,
    database_time,
    enrol,
    reauthenticate,
    sign_in_with,
    wrong_code_of,
)
from tests.rig.lifecycle import errors, post

TOTP, CONFIRM, CODES = (
    f"{API}/users/me/{path}" for path in ("totp", "totp/confirm", "recovery-codes")
)

RECOVERY_CODE = re.compile("[0-9A-HJKMNP-TV-Z]{4}(-[0-9A-HJKMNP-TV-Z]{4}){5}")


@pytest.fixture(autouse=True)
def lifted_limits(settings: Settings) -> None:
    settings.AUTH_RATE_LIMIT = settings.LOGIN_FAILURE_LIMIT = (1_000_000, 60)


@pytest.fixture
def alice(user: User) -> User:
    User.objects.update(email_verified_at=Now())
    return User.objects.get()


@pytest.fixture
def secret(alice: User) -> str:
    """The secret of Alice's authenticator app."""
    return enrol(alice)[0]


def claims_of(pair: dict[str, Any]) -> dict[str, Any]:
    key = project.SECRETS["ACCESS_TOKEN_SECRET"][0]
    claims: dict[str, Any] = jwt.decode(pair["access_token"], key, ["HS256"], audience="latchkey")
    return claims


def make_stale(device: APIClient) -> None:
    """Refresh the tokens of a session that was signed in with long ago."""
    Session.objects.update(authenticated_at=Now() - timedelta(minutes=11))
    pair = post("/auth/refresh", {"refresh_token": device.tokens["refresh_token"]}).json()
    device.credentials(HTTP_AUTHORIZATION=f"Bearer {pair['access_token']}")
    device.tokens = pair


class TestEnrolment:
    def test_an_app_is_added_with_a_code_of_it(self, alice: User, sign_in: SignIn) -> None:
        device = sign_in(alice)
        begun = device.post(TOTP)
        secret = begun.json()["secret"]

        assert begun.status_code == 201
        assert begun.json()["uri"] == (
            f"otpauth://totp/Latchkey:alice?secret={secret}&issuer=Latchkey"
        )
        assert begun.headers["Cache-Control"] == "no-store"
        assert re.fullmatch("[A-Z2-7]{32}", secret)
        assert not User.objects.get().has_second_factor

        confirmed = device.post(CONFIRM, {"code": code_of(secret)})
        codes = confirmed.json()["recovery_codes"]

        assert confirmed.status_code == 200
        assert len(set(codes)) == 10
        assert all(
            re.fullmatch("([0-9A-HJKMNP-TV-Z]{4}-){5}[0-9A-HJKMNP-TV-Z]{4}", c) for c in codes
        )
        security = device.get(f"{API}/users/me/security").json()
        assert (security["totp"], security["recovery_codes_left"]) == (True, 10)

    def test_a_new_app_replaces_the_old_one_without_recovery_codes(
        self, secret: str, alice: User
    ) -> None:
        device = sign_in_with(code_of(secret))
        new = device.post(TOTP).json()["secret"]

        confirmed = device.post(CONFIRM, {"code": code_of(new)})

        assert confirmed.json() == {"recovery_codes": None}
        assert TOTPDevice.objects.count() == 1
        assert RecoveryCode.objects.count() == 10
        kinds = Event.objects.order_by("-id").values_list("kind", "detail")[:2]
        assert list(kinds) == [("factor_added", "totp"), ("factor_removed", "totp")]
        token = begin_login()
        assert complete(token, code_of(secret, 1)).status_code == 401
        assert complete(token, code_of(new, 1)).status_code == 200

    def test_of_several_the_newest_counts(self, alice: User, sign_in: SignIn) -> None:
        device = sign_in(alice)
        older, newer = (device.post(TOTP).json()["secret"] for _ in range(2))

        assert errors(device.post(CONFIRM, {"code": code_of(older)})) == {"code": "invalid"}
        assert device.post(CONFIRM, {"code": code_of(newer)}).status_code == 200
        assert TOTPDevice.objects.count() == 1

    def test_a_secret_expires_after_ten_minutes(self, alice: User, sign_in: SignIn) -> None:
        device = sign_in(alice)
        secret = device.post(TOTP).json()["secret"]
        TOTPDevice.objects.update(created_at=Now() - timedelta(minutes=10, seconds=1))

        assert errors(device.post(CONFIRM, {"code": code_of(secret)})) == {"code": "invalid"}

    def test_it_needs_a_verified_address(self, user: User, sign_in: SignIn) -> None:
        device = sign_in(user)

        begun = device.post(TOTP)
        assert (begun.status_code, begun.json()["code"]) == (403, "email_not_verified")

    def test_an_address_that_is_not_verified_any_more_confirms_nothing(
        self, alice: User, sign_in: SignIn
    ) -> None:
        device = sign_in(alice)
        secret = device.post(TOTP).json()["secret"]
        User.objects.update(email_verified_at=None)

        confirmed = device.post(CONFIRM, {"code": code_of(secret)})
        assert (confirmed.status_code, confirmed.json()["code"]) == (403, "email_not_verified")
        assert not User.objects.get().has_second_factor

    def test_a_stale_token_changes_nothing(self, alice: User, sign_in: SignIn) -> None:
        device = sign_in(alice)
        make_stale(device)

        for method, path in (("post", TOTP), ("post", CONFIRM), ("delete", TOTP), ("post", CODES)):
            response = getattr(device, method)(path, {"code": "123456"})
            assert (response.status_code, response.json()["code"]) == (
                403,
                "reauthentication_required",
            )
            assert response.json()["methods"] == ["password"]

    def test_a_session_that_ends_meanwhile_adds_nothing(
        self, alice: User, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        device = sign_in(alice)
        begin = User.begin_totp

        def end_meanwhile(self: User, **options: Any) -> str:
            Session.objects.all().end(Session.Reason.STAFF)
            return begin(self, **options)

        monkeypatch.setattr(User, "begin_totp", end_meanwhile)
        response = device.post(TOTP)

        assert (response.status_code, response.json()["code"]) == (401, "token_not_valid")
        assert not TOTPDevice.objects.exists()

    @pytest.mark.parametrize(
        ("code", "error"),
        [(None, "required"), (123456, "invalid"), (["123456"], "invalid"), ("", "invalid"),
         ("12345", "invalid"), ("x" * 100_000, "invalid"), ("١٢٣٤٥٦", "invalid")],
    )  # fmt: skip
    def test_a_code_that_is_none_is_wrong(
        self, alice: User, sign_in: SignIn, code: Any, error: str
    ) -> None:
        device = sign_in(alice)
        device.post(TOTP)

        assert errors(device.post(CONFIRM, {"code": code})) == {"code": error}
        assert not User.objects.get().has_second_factor

    def test_a_wrong_code_is_counted_as_a_login_failure(
        self, alice: User, sign_in: SignIn, settings: Settings
    ) -> None:
        settings.LOGIN_FAILURE_LIMIT = (2, 900)
        device = sign_in(alice)
        secret = device.post(TOTP).json()["secret"]
        for _ in range(2):
            assert device.post(CONFIRM, {"code": wrong_code_of(secret)}).status_code == 400

        limited = device.post(CONFIRM, {"code": code_of(secret)})
        assert limited.status_code == 429
        assert "login-failures" in limited.headers["RateLimit"]

    def test_to_enrol_does_not_clear_the_count(
        self, alice: User, sign_in: SignIn, settings: Settings
    ) -> None:
        settings.LOGIN_FAILURE_LIMIT = (3, 900)
        device = sign_in(alice)
        for _ in range(2):
            assert (
                device.post(f"{API}/auth/reauthenticate", {"password": "wrong"}).status_code == 400
            )
        secret = device.post(TOTP).json()["secret"]
        assert device.post(CONFIRM, {"code": code_of(secret)}).status_code == 200

        body = {"password": "wrong", "code": "123456"}
        assert device.post(f"{API}/auth/reauthenticate", body).status_code == 400
        assert device.post(f"{API}/auth/reauthenticate", body).status_code == 429


class TestLogin:
    def test_the_right_password_alone_gets_a_ticket(self, secret: str) -> None:
        response = post("/auth/login", {"identity": "alice", "password": PASSWORD})

        body = response.json()
        assert (response.status_code, body["code"]) == (403, "mfa_required")
        assert (body["expires_in"], body["methods"]) == (300, ["totp", "recovery_code"])
        assert Ticket.objects.get(purpose="mfa").lifetime == timedelta(minutes=5)
        assert len(body["mfa_token"]) == 43
        assert not Session.objects.exists()
        assert Event.objects.filter(kind="refused").get().detail == "second factor required"

    def test_a_wrong_password_gets_none(self, secret: str) -> None:
        response = post("/auth/login", {"identity": "alice", "password": "wrong"})

        assert (response.status_code, response.json()["code"]) == (401, "invalid_credentials")
        assert not Ticket.objects.filter(purpose="mfa").exists()

    def test_a_code_completes_it(self, secret: str, alice: User) -> None:
        response = complete(begin_login(), code_of(secret), HTTP_AUTHORIZATION="Bearer ignored")

        body = response.json()
        assert response.status_code == 200
        assert body["user"]["username"] == "alice"
        assert claims_of(body)["amr"] == ["pwd", "otp", "mfa"]
        session = Session.objects.get()
        assert session.methods == ["pwd", "otp", "mfa"]
        assert session.factor_added_at == TOTPDevice.objects.get().confirmed_at
        signed_in = Event.objects.get(kind="signed_in")
        assert (signed_in.detail, signed_in.session_id) == ("pwd, otp, mfa", session.pk)
        assert client_of(body).get(f"{API}/users/me").status_code == 200

    def test_a_recovery_code_completes_it_in_any_writing(self, alice: User) -> None:
        codes = enrol(alice)[1]
        for code in (
            codes[0].lower(),
            codes[1].replace("-", ""),
            f" {codes[2].replace('-', ' ')} ",
            codes[3].replace("0", "O").replace("1", "l"),
        ):
            assert complete(begin_login(), code).status_code == 200

        assert alice.recovery_codes_left == 6
        used = Event.objects.filter(kind="recovery_code_used").order_by("id")
        assert [event.detail for event in used] == ["9", "8", "7", "6"]

    @pytest.mark.parametrize("step", [-1, 0, 1])
    def test_the_steps_beside_the_present_one_are_accepted(self, secret: str, step: int) -> None:
        totp, now = pyotp.TOTP(secret), database_time()
        present = totp.timecode(now)
        encrypted = TOTPDevice.objects.get().secret

        assert step_of(encrypted, totp.generate_otp(present + step), now) == present + step
        for outside in (-2, 2):
            assert step_of(encrypted, totp.generate_otp(present + outside), now) == -1

    def test_a_code_works_once(self, secret: str) -> None:
        code = code_of(secret)
        assert complete(begin_login(), code).status_code == 200

        again = complete(begin_login(), code)
        assert (again.status_code, again.json()["code"]) == (401, "invalid_credentials")
        earlier = complete(begin_login(), code_of(secret, -1))
        assert earlier.status_code == 401
        assert Event.objects.filter(kind="refused", detail="wrong code").count() == 2

    def test_the_code_of_the_enrolment_is_used(self, alice: User, sign_in: SignIn) -> None:
        device = sign_in(alice)
        code = code_of(device.post(TOTP).json()["secret"])
        assert device.post(CONFIRM, {"code": code}).status_code == 200

        assert complete(begin_login(), code).status_code == 401

    def test_a_recovery_code_works_once(self, alice: User) -> None:
        code = enrol(alice)[1][0]
        assert complete(begin_login(), code).status_code == 200

        assert complete(begin_login(), code).status_code == 401

    def test_a_token_works_once(self, secret: str) -> None:
        token = begin_login()
        assert complete(token, code_of(secret)).status_code == 200

        assert errors(complete(token, code_of(secret, 1))) == {"mfa_token": "ticket_not_valid"}
        assert Session.objects.count() == 1

    def test_a_token_ends_after_five_wrong_codes(self, secret: str) -> None:
        token = begin_login()
        for _ in range(5):
            assert complete(token, wrong_code_of(secret)).status_code == 401

        assert errors(complete(token, code_of(secret))) == {"mfa_token": "ticket_not_valid"}

    def test_the_fifth_code_may_be_right(self, secret: str) -> None:
        token = begin_login()
        for _ in range(4):
            complete(token, wrong_code_of(secret))

        assert complete(token, code_of(secret)).status_code == 200

    def test_a_token_expires(self, secret: str) -> None:
        token = begin_login()
        Ticket.objects.update(expires_at=Now())

        assert errors(complete(token, code_of(secret))) == {"mfa_token": "ticket_not_valid"}

    def test_a_token_of_another_kind_or_form_is_rejected_without_a_query(
        self, secret: str, alice: User
    ) -> None:
        other = Ticket.objects.issue("force", alice).token
        odd: list[Any] = [None, 7, "", "x" * 43, [], other, other + "x", "é" * 43]

        for token in odd:
            with CaptureQueriesContext(connection) as queries:
                response = complete(token, code_of.__name__)
            assert errors(response) == {"mfa_token": "ticket_not_valid"}
            assert not queries.captured_queries
        assert errors(post("/auth/mfa", {"code": "123456"})) == {"mfa_token": "ticket_not_valid"}

    @pytest.mark.parametrize("body", [{}, {"code": None}])
    def test_a_missing_code_is_an_error_of_no_field(
        self, secret: str, body: dict[str, None]
    ) -> None:
        token = begin_login()

        response = post("/auth/mfa", {"mfa_token": token, **body})

        assert errors(response) == {None: "invalid"}
        assert Ticket.objects.get(purpose="mfa").tries == 0

    @pytest.mark.parametrize("code", [123456, True, ["123456"], {"code": "123456"}])
    def test_a_code_must_be_a_string(self, secret: str, code: Any) -> None:
        token = begin_login()

        assert errors(complete(token, code)) == {"code": "invalid"}
        assert Ticket.objects.get(purpose="mfa").tries == 0

    @pytest.mark.parametrize(
        "code", ["", "12345", "1234567", "x" * 24, "x" * 100_000, "é" * 24, "١٢٣٤٥٦"]
    )
    def test_a_malformed_code_is_wrong(self, secret: str, code: str) -> None:
        response = complete(begin_login(), code)

        assert (response.status_code, response.json()["code"]) == (401, "invalid_credentials")
        assert Ticket.objects.get(purpose="mfa").tries == 1

    def test_a_changed_password_ends_the_token(self, secret: str, alice: User) -> None:
        token = begin_login()
        alice.refresh_from_db()
        alice.set_password("a rainy night in June")
        alice.save()

        assert errors(complete(token, code_of(secret))) == {"mfa_token": "ticket_not_valid"}

    def test_a_changed_factor_ends_the_token(self, secret: str, alice: User) -> None:
        token = begin_login()
        alice.remove_totp(session=None)

        assert errors(complete(token, code_of(secret))) == {"mfa_token": "ticket_not_valid"}

    def test_a_factor_that_is_added_during_a_login_is_asked_for(
        self, alice: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        check = User.check_password

        def enrol_meanwhile(self: User, password: str) -> bool:
            enrol(User.objects.get())
            return check(self, password)

        monkeypatch.setattr(User, "check_password", enrol_meanwhile)
        response = post("/auth/login", {"identity": "alice", "password": PASSWORD})

        assert (response.status_code, response.json()["code"]) == (403, "mfa_required")
        assert response.json()["methods"] == ["totp", "recovery_code"]
        assert not Session.objects.exists()

    def test_a_user_who_is_deactivated_during_a_login_gets_no_ticket(
        self, secret: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        check = User.check_password

        def deactivate_meanwhile(self: User, password: str) -> bool:
            User.objects.update(is_active=False)
            return check(self, password)

        monkeypatch.setattr(User, "check_password", deactivate_meanwhile)
        response = post("/auth/login", {"identity": "alice", "password": PASSWORD})

        assert (response.status_code, response.json()["code"]) == (401, "invalid_credentials")

    def test_a_login_with_a_factor_costs_one_statement_more(
        self, secret: str, stranger: User, sign_in: SignIn
    ) -> None:
        sign_in_with(code_of(secret))
        sign_in(stranger)
        with CaptureQueriesContext(connection) as plain:
            sign_in(stranger)
        with CaptureQueriesContext(connection) as first:
            token = begin_login()
        code = code_of(secret, 1)
        with CaptureQueriesContext(connection) as second:
            assert complete(token, code).status_code == 200

        assert statements(first) <= statements(plain) + 1
        assert statements(second) <= statements(plain) + 1

    def test_a_request_of_a_user_with_a_factor_costs_no_more(
        self, secret: str, stranger: User, sign_in: SignIn
    ) -> None:
        counts = []
        for device in (sign_in(stranger), sign_in_with(code_of(secret))):
            with CaptureQueriesContext(connection) as queries:
                assert device.get(f"{API}/users/me").status_code == 200
            counts.append(len(queries))

        assert counts == [1, 1]


def statements(queries: CaptureQueriesContext) -> int:
    """Count the statements but for those that begin and end savepoints."""
    return len([q for q in queries.captured_queries if "SAVEPOINT" not in q["sql"]])


class TestReauthentication:
    def test_a_code_makes_the_session_fresh(self, secret: str, alice: User) -> None:
        device = sign_in_with(code_of(secret))
        make_stale(device)
        stale = device.delete(TOTP)
        assert (stale.status_code, stale.json()["code"]) == (403, "reauthentication_required")
        assert stale.json()["methods"] == ["password", "totp", "recovery_code"]

        response = reauthenticate(device, code_of(secret, 1))

        assert response.status_code == 200
        assert claims_of(response.json())["amr"] == ["pwd", "otp", "mfa"]
        assert device.delete(TOTP).status_code == 204

    def test_a_recovery_code_does_too(self, alice: User) -> None:
        secret, codes = enrol(alice)
        device = sign_in_with(code_of(secret))
        make_stale(device)

        assert reauthenticate(device, codes[0]).status_code == 200
        assert device.post(CODES).status_code == 201

    @pytest.mark.parametrize("extra", [{}, {"code": None}])
    def test_a_missing_code_is_required(self, secret: str, extra: dict[str, None]) -> None:
        device = sign_in_with(code_of(secret))

        response = device.post(f"{API}/auth/reauthenticate", {"password": PASSWORD, **extra})
        assert errors(response) == {"code": "required"}

    def test_a_wrong_or_used_code_is_a_field_error_and_counted(
        self, secret: str, settings: Settings
    ) -> None:
        settings.LOGIN_FAILURE_LIMIT = (3, 900)
        device = sign_in_with(code_of(secret))
        refresh_token = device.tokens["refresh_token"]
        for code in (wrong_code_of(secret), code_of(secret), "x"):
            assert errors(reauthenticate(device, code)) == {"code": "invalid"}

        assert reauthenticate(device, code_of(secret, 1)).status_code == 429
        assert post("/auth/refresh", {"refresh_token": refresh_token}).status_code == 200

    def test_a_code_is_ignored_without_a_factor(self, alice: User, sign_in: SignIn) -> None:
        response = reauthenticate(sign_in(alice), "123456")

        assert claims_of(response.json())["amr"] == ["pwd"]

    def test_the_session_that_added_the_factor_is_not_fresh(
        self, alice: User, sign_in: SignIn
    ) -> None:
        device = sign_in(alice)
        secret = device.post(TOTP).json()["secret"]
        device.post(CONFIRM, {"code": code_of(secret)})

        response = device.post(CODES)

        assert (response.status_code, response.json()["code"]) == (403, "reauthentication_required")
        assert reauthenticate(device, code_of(secret, 1)).status_code == 200
        assert device.post(CODES).status_code == 201

    def test_a_factor_that_is_added_meanwhile_is_asked_for(
        self, alice: User, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        device = sign_in(alice)
        check = User.check_password

        def enrol_meanwhile(self: User, password: str) -> bool:
            enrol(User.objects.get())
            return check(self, password)

        monkeypatch.setattr(User, "check_password", enrol_meanwhile)
        response = reauthenticate(device)

        assert (response.status_code, response.json()["code"]) == (403, "reauthentication_required")
        assert response.json()["methods"] == ["password", "totp", "recovery_code"]


class TestRemoval:
    def test_the_last_factor_takes_the_recovery_codes_with_it(self, secret: str) -> None:
        device = sign_in_with(code_of(secret))

        assert device.delete(TOTP).status_code == 204
        security = device.get(f"{API}/users/me/security").json()
        assert (security["totp"], security["recovery_codes_left"]) == (False, 0)
        assert device.delete(TOTP).status_code == 404
        assert device.post(CODES).status_code == 404
        assert post("/auth/login", {"identity": "alice", "password": PASSWORD}).status_code == 200

    def test_new_recovery_codes_make_the_old_ones_invalid(self, alice: User) -> None:
        secret, old = enrol(alice)
        new = sign_in_with(code_of(secret)).post(CODES).json()["recovery_codes"]

        assert len(new) == 10
        assert complete(begin_login(), old[0]).status_code == 401
        assert complete(begin_login(), new[0]).status_code == 200


class TestPassword:
    NEW = "a rainy night in June"

    def test_it_needs_a_fresh_token(self, secret: str, alice: User) -> None:
        device = sign_in_with(code_of(secret))
        make_stale(device)
        body = {"current_password": PASSWORD, "new_password": self.NEW}
        stale = device.post(f"{API}/auth/password", body)
        assert (stale.status_code, stale.json()["code"]) == (403, "reauthentication_required")

        reauthenticate(device, code_of(secret, 1))

        assert device.post(f"{API}/auth/password", body).status_code == 204
        assert User.objects.get().check_password(self.NEW)

    def test_by_identity_it_needs_the_factor_and_changes_nothing(
        self, secret: str, alice: User
    ) -> None:
        body = {"identity": "alice", "current_password": PASSWORD, "new_password": self.NEW}

        response = post("/auth/password", body)

        assert (response.status_code, response.json()["code"]) == (403, "mfa_required")
        assert User.objects.get().check_password(PASSWORD)
        signed_in = complete(response.json()["mfa_token"], code_of(secret))
        device = client_of(signed_in.json())
        assert device.post(f"{API}/auth/password", body).status_code == 204

    @pytest.mark.parametrize("how", ["token", "identity"])
    def test_a_factor_that_is_added_meanwhile_is_asked_for(
        self, alice: User, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch, how: str
    ) -> None:
        device = sign_in(alice) if how == "token" else APIClient()
        session = Session.objects.first()
        hash_password = User.set_password

        def enrol_meanwhile(self: User, password: str) -> None:
            user = User.objects.get()
            secret = user.begin_totp(session=session)
            user.confirm_totp(code_of(secret), session=session)
            hash_password(self, password)

        monkeypatch.setattr(User, "set_password", enrol_meanwhile)
        body = {"identity": "alice", "current_password": PASSWORD, "new_password": self.NEW}
        response = device.post(f"{API}/auth/password", body)

        code = "reauthentication_required" if how == "token" else "mfa_required"
        assert (response.status_code, response.json()["code"]) == (403, code)
        assert User.objects.get().check_password(PASSWORD)
