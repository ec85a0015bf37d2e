import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from bcrypt import gensalt, hashpw
from django.contrib.auth.hashers import get_hasher
from django.contrib.auth.password_validation import password_validators_help_texts
from django.core.management import CommandError, call_command
from django.test import Client
from pytest_django import Settings
from rest_framework.test import APIClient

import config.settings
from accounts import passwords
from accounts.models import Event, Session, StaleLoginError, User
from accounts.passwords import BoundedBCryptSHA256PasswordHasher, HashingBusyError
from conftest import API, PASSWORD, SignIn

NEW = "a rainy night in June"


def change(device: APIClient, current: Any = PASSWORD, new: Any = NEW) -> Any:
    body = {"current_password": current, "new_password": new}
    return device.post(f"{API}/auth/password", body)


class TestChange:
    def test_it_ends_the_other_sessions_only(
        self, client: APIClient, user: User, sign_in: SignIn
    ) -> None:
        device, other = sign_in(user), sign_in(user)

        response = change(device)

        assert (response.status_code, response.content) == (204, b"")
        assert device.get(f"{API}/users/me").status_code == 200
        assert other.get(f"{API}/users/me").status_code == 401
        assert user.sessions.get(ended_at__isnull=False).end_reason == "password_changed"
        user.refresh_from_db()
        sign_in(user, NEW)
        old = {"identity": "alice", "password": PASSWORD}
        assert client.post(f"{API}/auth/login", old).status_code == 401

    def test_a_wrong_current_password_is_a_field_error(self, user: User, sign_in: SignIn) -> None:
        device, other = sign_in(user), sign_in(user)

        response = change(device, current="wrong password")

        assert response.status_code == 400
        assert response.json()["code"] == "validation_error"
        assert [e["field"] for e in response.json()["errors"]] == ["current_password"]
        assert other.get(f"{API}/users/me").status_code == 200
        user.refresh_from_db()
        assert user.check_password(PASSWORD)

    @pytest.mark.parametrize(
        ("new", "code"),
        [
            ("short", "password_too_short"),
            ("x" * 129, "password_too_long"),
            ("x" * 513, "max_length"),
            ("password123", "password_too_common"),
            ("alice@example", "password_too_similar"),
            ("a door with a LATCHKEY", "password_too_similar"),
            ("where is Alice today", "password_too_similar"),
            ("ｌａｔｃｈｋｅｙ", "password_too_similar"),
            ("where is 𝐀𝐥𝐢𝐜𝐞 today", "password_too_similar"),
            (" " * 8, "password_blank"),
            ("\u200b\u2060\u00a0\u3164\ufe0f\u2800\u00ad\t", "password_blank"),
            (12345678, "invalid"),
            ("", "blank"),
            (None, "null"),
        ],
    )
    def test_a_weak_new_password_is_reported_by_its_code(
        self, user: User, sign_in: SignIn, new: Any, code: str
    ) -> None:
        response = change(sign_in(user), new=new)

        assert response.status_code == 400
        assert code in {e["code"] for e in response.json()["errors"]}
        assert {e["field"] for e in response.json()["errors"]} == {"new_password"}
        user.refresh_from_db()
        assert user.check_password(PASSWORD)

    @pytest.mark.parametrize(
        "weak",
        [
            "x" * 129,
            "a door with a LATCHKEY",
            "my ＬＡＴＣＨＫＥＹ",
            "where is Alice today",
            "miss liddell",
            " " * 9,
        ],
    )
    def test_the_rules_hold_in_the_console_and_in_commands(
        self, make_user: Any, monkeypatch: pytest.MonkeyPatch, weak: str
    ) -> None:
        user = make_user("alice", names="Alice Pleasance-Liddell", is_staff=True)
        own = Client()
        own.force_login(user)
        changed = {"old_password": PASSWORD, "new_password1": weak, "new_password2": weak}
        monkeypatch.setattr("getpass.getpass", lambda prompt: weak)

        assert own.post("/admin/password_change/", changed).status_code == 200
        with pytest.raises(CommandError, match="Aborting password change"):
            call_command("changepassword", "alice")

        user.refresh_from_db()
        assert user.check_password(PASSWORD)

    def test_digits_alone_are_a_password(self, user: User, sign_in: SignIn) -> None:
        assert change(sign_in(user), new="7301948265").status_code == 204

    def test_the_general_rules_come_before_the_current_password(
        self, client: APIClient, user: User
    ) -> None:
        body = {"identity": "alice", "current_password": "wrong", "new_password": "short"}

        response = client.post(f"{API}/auth/password", body)

        assert response.status_code == 400
        assert [e["field"] for e in response.json()["errors"]] == ["new_password"]
        assert "password_too_short" in {e["code"] for e in response.json()["errors"]}

    def test_an_overlong_password_is_not_hashed(
        self, make_user: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        user = make_user("alice", is_staff=True)
        browser = Client()
        browser.force_login(user)
        monkeypatch.setattr("accounts.models.credentials.check_password", None)
        form = {"old_password": "x" * 129, "new_password1": NEW, "new_password2": NEW}

        assert browser.post("/admin/password_change/", form).status_code == 200
        assert not user.check_password("x" * 129)
        assert not user.check_password(None)

    def test_passwords_are_never_trimmed(self, user: User, sign_in: SignIn) -> None:
        device = sign_in(user)

        assert change(device, new=f"  {NEW}  ").status_code == 204

        user.refresh_from_db()
        assert user.check_password(f"  {NEW}  ")
        assert not user.check_password(NEW)

    def test_a_session_that_ended_meanwhile_changes_nothing(
        self, user: User, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        device = sign_in(user)
        verify = User.check_password

        def end_while_hashing(self: User, raw: str) -> bool:
            user.sessions.active().end("logout_all")
            return verify(self, raw)

        monkeypatch.setattr(User, "check_password", end_while_hashing)

        assert change(device).status_code == 401
        user.refresh_from_db()
        assert verify(user, PASSWORD)

    def test_the_rules_are_shown(self) -> None:
        assert any("128" in text for text in password_validators_help_texts())

    def test_changepassword_ends_every_session(
        self, user: User, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        device = sign_in(user)
        monkeypatch.setattr("getpass.getpass", lambda prompt: NEW)

        call_command("changepassword", "alice")

        assert device.get(f"{API}/users/me").status_code == 401


class TestHashing:
    @pytest.fixture
    def bcrypt(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Hash as in production, but at the lowest cost, in one place with four waiting."""
        path = "accounts.passwords.BoundedBCryptSHA256PasswordHasher"
        settings.PASSWORD_HASHERS = [path, "django.contrib.auth.hashers.MD5PasswordHasher"]
        settings.HASHING_PLACES = 1
        monkeypatch.setattr(BoundedBCryptSHA256PasswordHasher, "rounds", 4)
        passwords.hashing_places.cache_clear()
        yield
        passwords.hashing_places()[1].shutdown()
        passwords.hashing_places.cache_clear()

    @pytest.fixture
    def imports(self, bcrypt: None, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        """Accept what an import brings along, as in production, at the lowest cost."""
        settings.PASSWORD_HASHERS = config.settings.PASSWORD_HASHERS
        monkeypatch.setattr(passwords.ImportedBCryptPasswordHasher, "rounds", 4)
        monkeypatch.setattr(passwords.ImportedPBKDF2PasswordHasher, "iterations", 10)

    def test_the_cost_is_14(self) -> None:
        assert BoundedBCryptSHA256PasswordHasher.rounds == 14

    def test_nothing_is_cut_at_72_bytes(self, bcrypt: None, user: User) -> None:
        user.set_password("x" * 100)

        assert user.password.startswith("bcrypt_sha256$$2b$04$")
        assert user.check_password("x" * 100)
        assert not user.check_password("x" * 99)

    def test_a_hash_of_another_cost_is_upgraded_and_ends_nothing(
        self, bcrypt: None, user: User, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        user.set_password(PASSWORD)
        user.save()
        device = sign_in(user)
        monkeypatch.setattr(BoundedBCryptSHA256PasswordHasher, "rounds", 5)

        sign_in(user)

        user.refresh_from_db()
        assert user.password.startswith("bcrypt_sha256$$2b$05$")
        assert device.get(f"{API}/users/me").status_code == 200

    def test_two_logins_that_upgrade_at_once_both_succeed(
        self, bcrypt: None, user: User, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        user.set_password(PASSWORD)
        user.save()
        first, second = User.objects.get(pk=user.pk), User.objects.get(pk=user.pk)
        monkeypatch.setattr(BoundedBCryptSHA256PasswordHasher, "rounds", 5)

        assert first.check_password(PASSWORD)
        assert second.check_password(PASSWORD)

        assert first.password != second.password
        for verified in (first, second):
            session = Session.objects.start(
                verified, address="192.0.2.1", user_agent="", device="x"
            )
            assert session.ended_at is None

    def test_an_upgrade_does_not_undo_a_change_made_meanwhile(
        self, bcrypt: None, user: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        user.set_password(PASSWORD)
        user.save()
        stale = User.objects.get(pk=user.pk)
        user.set_password(NEW)
        user.save()
        monkeypatch.setattr(BoundedBCryptSHA256PasswordHasher, "rounds", 5)

        assert stale.check_password(PASSWORD)

        user.refresh_from_db()
        assert user.check_password(NEW)
        with pytest.raises(StaleLoginError):
            stale.lock_verified()

    def test_a_new_password_that_finds_no_place_is_recorded(
        self, bcrypt: None, user: User, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        user.set_password(PASSWORD)
        user.save()
        device = sign_in(user)

        def take_every_turn(self: User, raw: str | None) -> None:
            turns, _ = passwords.hashing_places()
            while turns.acquire(blocking=False):
                pass
            set_password(self, raw)

        set_password = User.set_password
        monkeypatch.setattr(User, "set_password", take_every_turn)

        assert change(device).status_code == 503
        assert Event.objects.latest("id").detail == "not completed"

    @pytest.mark.parametrize("password", ["a" * 73, "é" * 36 + "x", "x" + "é" * 60])
    @pytest.mark.parametrize(("signs_in", "changed"), [(200, ""), (200, "y"), (401, "z")])
    def test_an_imported_bcrypt_hash_verifies_long_passwords_and_is_replaced(
        self,
        bcrypt: None,
        imports: None,
        client: APIClient,
        user: User,
        password: str,
        signs_in: int,
        changed: str,
    ) -> None:
        """The library that made the hash ignored what came after 72 bytes."""
        raw = password.encode()[:72]
        User.objects.update(password=f"bcrypt${hashpw(raw, gensalt(4)).decode()}")
        typed = {"": password, "y": password + "y", "z": "z" + password}[changed]
        body = {"identity": "alice", "password": typed}

        assert client.post(f"{API}/auth/login", body).status_code == signs_in

        user.refresh_from_db()
        if signs_in == 200:
            assert user.password.startswith("bcrypt_sha256$")
            assert user.check_password(typed)
            assert not user.check_password(typed + "more")

    @pytest.mark.parametrize("algorithm", ["bcrypt", "pbkdf2_sha256"])
    def test_imported_hashes_are_verified_in_the_places_too(
        self, bcrypt: None, imports: None, user: User, algorithm: str
    ) -> None:
        hasher = get_hasher(algorithm)
        encoded = hasher.encode(PASSWORD, hasher.salt())
        assert hasher.verify(PASSWORD, encoded)
        turns, _ = passwords.hashing_places()
        for _ in range(5):
            turns.acquire()

        with pytest.raises(HashingBusyError):
            hasher.verify(PASSWORD, encoded)

        turns.release(5)

    def test_logins_beyond_the_queue_are_rejected_and_not_counted(
        self, bcrypt: None, client: APIClient, user: User, settings: Settings
    ) -> None:
        settings.LOGIN_FAILURE_LIMIT = (1, 900)
        turns, _ = passwords.hashing_places()
        for _ in range(5):
            turns.acquire()

        for _ in range(3):
            response = client.post(f"{API}/auth/login", {"identity": "alice", "password": PASSWORD})
            assert response.status_code == 503
            assert response.json()["code"] == "service_unavailable"
            assert int(response.headers["Retry-After"]) >= 1

        new = {"username": "bob", "email": "bob@example.com", "password": PASSWORD}
        assert client.post(f"{API}/users", new).status_code == 503
        assert not User.objects.filter(username="bob").exists()

        turns.release(5)
        response = client.post(f"{API}/auth/login", {"identity": "alice", "password": PASSWORD})
        assert response.status_code == 200

    def test_a_cheap_hash_waits_for_its_turn(
        self, bcrypt: None, client: APIClient, user: User, settings: Settings
    ) -> None:
        settings.BCRYPT_ROUNDS = 11
        turns, _ = passwords.hashing_places()
        for _ in range(5):
            turns.acquire()
        timer = threading.Timer(0.1, turns.release, [5])
        timer.start()

        response = client.post(f"{API}/auth/login", {"identity": "alice", "password": PASSWORD})

        timer.join()
        assert response.status_code == 200

    def test_who_waited_in_vain_is_not_counted(
        self,
        bcrypt: None,
        client: APIClient,
        user: User,
        settings: Settings,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        settings.LOGIN_FAILURE_LIMIT = (1, 900)
        monkeypatch.setattr(passwords, "LONGEST_WAIT", 0.05)
        _, places = passwords.hashing_places()
        finish = threading.Event()
        # A process has fewer places than threads, so all are taken.
        busy = [places.submit(finish.wait) for _ in range(settings.WEB_THREADS)]
        body = {"identity": "alice", "password": PASSWORD}

        statuses = [client.post(f"{API}/auth/login", body).status_code for _ in range(3)]

        finish.set()
        assert statuses == [503, 503, 503]
        assert all(wait.result() for wait in busy)
        monkeypatch.setattr(passwords, "LONGEST_WAIT", 2.0)
        assert client.post(f"{API}/auth/login", body).status_code == 200

    def test_waiting_for_a_place_ends(self, bcrypt: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(passwords, "LONGEST_WAIT", 0.05)
        monkeypatch.setattr(BoundedBCryptSHA256PasswordHasher, "rounds", 11)
        hasher = get_hasher("bcrypt_sha256")

        with ThreadPoolExecutor(3) as pool:
            hashing = [pool.submit(hasher.encode, PASSWORD, hasher.salt()) for _ in range(3)]

        outcomes = [future.exception() for future in hashing]
        assert sorted(type(outcome).__name__ for outcome in outcomes) == [
            "HashingBusyError", "HashingBusyError", "NoneType",
        ]  # fmt: skip
        assert isinstance(outcomes[-1], HashingBusyError | None)
