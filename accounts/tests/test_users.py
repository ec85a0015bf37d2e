from typing import Any

import pytest
from django.contrib.auth.models import Permission
from rest_framework.test import APIClient

from accounts.models import User
from conftest import API, PASSWORD, SignIn

NEW = {"username": "bob", "email": "bob@example.com", "password": PASSWORD}


def register(client: APIClient, **changes: Any) -> Any:
    return client.post(f"{API}/users", NEW | changes)


def errors(response: Any) -> dict[str, str]:
    assert response.status_code == 400, response.content
    assert response.json()["code"] == "validation_error"
    return {error["field"]: error["code"] for error in response.json()["errors"]}


class TestRegistration:
    def test_it_makes_a_user(self, client: APIClient, db: None) -> None:
        response = register(client)

        user = User.objects.get()
        assert response.status_code == 201
        assert response.json() == {
            "id": user.pk,
            "username": "bob",
            "email": "bob@example.com",
            "names": "",
            "email_verified": False,
            "date_joined": user.date_joined.isoformat().replace("+00:00", "Z"),
        }
        assert user.check_password(PASSWORD)
        assert not user.is_staff

    def test_names_are_trimmed_and_normalised(self, client: APIClient, db: None) -> None:
        response = register(
            client, username=" bob ", email="  Bob@Ｅxample.com ", names=" Bob \ufb01nch\u00a0"
        )

        assert response.json()["username"] == "bob"
        assert response.json()["email"] == "Bob@example.com"
        assert response.json()["names"] == "Bob finch"

    @pytest.mark.parametrize("username", ["ALICE", " alice ", "Alice"])
    @pytest.mark.parametrize("email", ["ALICE@EXAMPLE.COM", " alice@ｅxample.com"])
    def test_an_identity_is_taken_in_every_form(
        self, client: APIClient, user: User, username: str, email: str
    ) -> None:
        response = register(client, username=username, email=email)

        assert errors(response) == {"username": "unique", "email": "unique"}
        assert User.objects.count() == 1

    @pytest.mark.parametrize(
        ("changes", "field", "code"),
        [
            ({"username": "ab"}, "username", "min_length"),
            ({"username": "x" * 51}, "username", "max_length"),
            ({"username": "a@b"}, "username", "invalid"),
            ({"username": "a b c"}, "username", "invalid"),
            ({"username": "bob\n"}, "username", None),
            ({"username": "bøb"}, "username", "invalid"),
            ({"username": "ｂｏｂ"}, "username", "invalid"),
            ({"username": "bob" * 67}, "username", "max_length"),
            ({"username": "Support"}, "username", "reserved"),
            ({"username": "latchkey"}, "username", "reserved"),
            ({"username": 12345}, "username", "invalid"),
            ({"username": ""}, "username", "blank"),
            ({"email": "nobody"}, "email", "invalid"),
            ({"email": f"{'x' * 250}@example.com"}, "email", None),
            ({"email": " "}, "email", "blank"),
            ({"email": "x" * 1017}, "email", "max_length"),
            ({"email": None}, "email", "null"),
            ({"names": "x" * 151}, "names", "max_length"),
            # One character that normalises to eighteen.
            ({"names": "\ufdfa" * 20}, "names", "max_length"),
            ({"names": ["x"]}, "names", "invalid"),
            ({"names": "x\x00"}, "names", "invalid"),
            ({"names": "Bob\tFinch"}, "names", "invalid"),
            ({"names": "Bob \u202ehcniF"}, "names", "invalid"),
            ({"password": "a1b2c3d"}, "password", "password_too_short"),
            ({"password": "x" * 129}, "password", "password_too_long"),
            ({"password": "x" * 513}, "password", "max_length"),
            ({"password": "bob@example.com"}, "password", "password_too_similar"),
        ],
    )
    def test_invalid_values_are_reported_by_field_and_code(
        self, client: APIClient, db: None, changes: Any, field: str, code: str | None
    ) -> None:
        response = register(client, **changes)

        if response.status_code == 201:  # A line break at the end is trimmed like other blanks.
            assert changes == {"username": "bob\n"}
            return
        assert set(errors(response)) == {field}
        assert code is None or errors(response)[field] == code
        assert not User.objects.exists()

    def test_every_fault_is_reported_at_once(self, client: APIClient, db: None) -> None:
        response = register(client, username="x", password="123", email="x")

        assert set(errors(response)) == {"username", "password", "email"}
        assert response.json()["detail"] == "3 fields need attention."

    def test_flags_and_unknown_fields_are_ignored(self, client: APIClient, db: None) -> None:
        response = register(client, id=7, is_staff=True, is_superuser=True, is_active=False, x=1)

        user = User.objects.get()
        assert response.status_code == 201
        assert user.pk != 7
        assert (user.is_staff, user.is_superuser, user.is_active) == (False, False, True)

    def test_an_invalid_token_is_rejected_here_too(self, client: APIClient, db: None) -> None:
        client.credentials(HTTP_AUTHORIZATION="Bearer garbage")

        response = register(client)

        assert response.status_code == 401
        assert response.json()["code"] == "token_not_valid"
        assert not User.objects.exists()


class TestRetrieve:
    def test_others_see_no_private_keys(self, user: User, stranger: User, sign_in: SignIn) -> None:
        device = sign_in(user)

        own, other = device.get(f"{API}/users/{user.pk}"), device.get(f"{API}/users/{stranger.pk}")

        assert own.json() == device.get(f"{API}/users/me").json()
        assert own.json()["email"] == "alice@example.com"
        assert other.json() == {"id": stranger.pk, "username": "mallory", "names": ""}

    def test_staff_see_them_with_the_permission_only(
        self, user: User, stranger: User, sign_in: SignIn
    ) -> None:
        device = sign_in(user)
        url = f"{API}/users/{stranger.pk}"

        user.user_permissions.add(Permission.objects.get(codename="view_user"))
        assert "email" not in device.get(url).json()
        User.objects.filter(pk=user.pk).update(is_staff=True)
        assert device.get(url).json()["email"] == "mallory@example.com"
        user.user_permissions.clear()
        assert "email" not in device.get(url).json()

    @pytest.mark.parametrize("name", ["0", "999999", "9" * 30, "-1", "abc", "1.5", "%00", "١"])
    def test_an_unknown_id_is_not_found(self, user: User, sign_in: SignIn, name: str) -> None:
        response = sign_in(user).get(f"{API}/users/{name}")

        assert response.status_code == 404
        assert response.json()["code"] == "not_found"


class TestUpdate:
    def test_users_change_their_own_names(self, user: User, sign_in: SignIn) -> None:
        device = sign_in(user)

        response = device.patch(f"{API}/users/{user.pk}", {"names": " Alice A. "})

        assert response.status_code == 200
        assert response.json()["names"] == "Alice A."
        assert response.json()["email"] == "alice@example.com"
        assert device.patch(f"{API}/users/{user.pk}", {"username": "ALICE"}).status_code == 200
        user.refresh_from_db()
        assert user.username == "ALICE"

    def test_the_password_and_the_flags_stay(self, user: User, sign_in: SignIn) -> None:
        device = sign_in(user)
        body = {"password": "x", "is_staff": True, "is_active": False, "id": 7}

        assert device.patch(f"{API}/users/{user.pk}", body).status_code == 200

        user.refresh_from_db()
        assert user.check_password(PASSWORD)
        assert (user.is_staff, user.is_active) == (False, True)
        assert device.get(f"{API}/users/me").status_code == 200

    def test_a_taken_name_is_rejected(self, user: User, stranger: User, sign_in: SignIn) -> None:
        response = sign_in(user).patch(f"{API}/users/{user.pk}", {"username": "MALLORY"})

        assert errors(response) == {"username": "unique"}

    @pytest.mark.parametrize("email", ["new@example.com", "mallory@EXAMPLE.com"])
    def test_another_address_is_rejected_whether_or_not_it_is_taken(
        self, user: User, stranger: User, sign_in: SignIn, email: str
    ) -> None:
        device, url = sign_in(user), f"{API}/users/{user.pk}"

        for name in ("alice", "mallory", "new"):
            response = device.patch(url, {"email": email, "username": name})
            assert errors(response) == {"email": "use_email_change"}
        user.refresh_from_db()
        assert (user.username, user.email) == ("alice", "alice@example.com")

    @pytest.mark.parametrize("email", ["alice@example.com", " Alice@EXAMPLE.com"])
    def test_the_present_address_is_ignored(
        self, user: User, stranger: User, sign_in: SignIn, email: str
    ) -> None:
        device, url = sign_in(user), f"{API}/users/{user.pk}"

        assert errors(device.patch(url, {"email": email, "username": "mallory"})) == {
            "username": "unique"
        }
        assert device.patch(url, {"email": email, "names": "Alice"}).status_code == 200
        user.refresh_from_db()
        assert (user.names, user.email) == ("Alice", "alice@example.com")
        assert device.get(f"{API}/users/me").status_code == 200

    def test_a_reserved_username_is_rejected_and_one_given_by_staff_is_kept(
        self, user: User, make_user: Any, sign_in: SignIn
    ) -> None:
        staff_made = make_user("support")
        device, staff_made_device = sign_in(user), sign_in(staff_made)

        response = device.patch(f"{API}/users/{user.pk}", {"username": "Administrator"})
        unchanged = staff_made_device.patch(
            f"{API}/users/{staff_made.pk}", {"username": "support", "names": "Desk"}
        )

        assert errors(response) == {"username": "reserved"}
        assert unchanged.status_code == 200

    @pytest.mark.parametrize("email", ["ａlice@example.com", "alice@exam\u200bple.com", "x"])
    def test_an_invalid_address_is_rejected(self, user: User, sign_in: SignIn, email: str) -> None:
        response = sign_in(user).patch(f"{API}/users/{user.pk}", {"email": email})

        assert errors(response) == {"email": "invalid"}

    def test_anothers_is_forbidden_to_superusers_too(
        self, user: User, stranger: User, sign_in: SignIn
    ) -> None:
        User.objects.filter(pk=user.pk).update(is_staff=True, is_superuser=True)
        device = sign_in(user)
        url = f"{API}/users/{stranger.pk}"

        for response in (device.patch(url, {"names": "x"}), device.delete(url)):
            assert response.status_code == 403
            assert response.json()["code"] == "permission_denied"
        stranger.refresh_from_db()
        assert stranger.names == ""


class TestDelete:
    def test_it_deletes_the_sessions_too(self, user: User, stranger: User, sign_in: SignIn) -> None:
        device = sign_in(user)

        response = device.delete(f"{API}/users/{user.pk}")

        assert (response.status_code, response.content) == (204, b"")
        assert device.get(f"{API}/users/me").status_code == 401
        assert list(User.objects.all()) == [stranger]
        assert not user.sessions.exists()

    def test_me_is_read_only(self, user: User, sign_in: SignIn) -> None:
        device = sign_in(user)

        for method in ("patch", "delete", "put", "post"):
            response = getattr(device, method)(f"{API}/users/me")
            assert response.status_code == 405
            assert response.headers["Allow"] == "GET, HEAD, OPTIONS"
        assert User.objects.filter(pk=user.pk).exists()
