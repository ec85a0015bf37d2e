"""A session by cookie that begins with a second factor or a passkey."""

from typing import Any

import pytest
from pytest_django import Settings

from accounts.models import TOTPDevice, User
from tests.rig.cookies import Browser, assert_is_in_the_cookie, assert_is_rejected, enable
from tests.rig.factors import begin_login, client_of, code_of, complete, enrol
from tests.rig.passkeys import add_passkey, begin_sign_in


@pytest.fixture(autouse=True)
def enabled(settings: Settings) -> None:
    enable(settings)


class TestFactors:
    @pytest.fixture
    def page(self, user: User) -> Browser:
        """A page of a user with a passkey and an authenticator app."""
        self.secret, _ = enrol(user)
        page = Browser()
        client = client_of(complete(begin_login(), code_of(self.secret)).json())
        TOTPDevice.objects.update(last_step=0)
        self.passkey = add_passkey(client)
        return page

    def test_the_password_alone_sets_no_cookie(self, page: Browser) -> None:
        response = page.login()

        assert_is_rejected(response, 403, "mfa_required")
        assert not response.cookies

    def test_a_code_completes_a_login(self, page: Browser) -> None:
        problem = page.login().json()
        proof = {"mfa_token": problem["mfa_token"], "code": code_of(self.secret)}

        assert_is_in_the_cookie(page.send("mfa", {**proof, "cookie": True}))
        assert_is_in_the_cookie(page.refresh())

    def test_a_passkey_completes_a_login(self, page: Browser) -> None:
        problem = page.login().json()
        credential = self.passkey.get(problem["passkey_options"])
        proof = {"mfa_token": problem["mfa_token"], "credential": credential}

        assert_is_in_the_cookie(page.send("mfa", {**proof, "cookie": True}))

    def test_a_passkey_signs_in_and_proves_again(self, page: Browser) -> None:
        for path in ("passkey", "reauthenticate"):
            credential = self.passkey.get(begin_sign_in())
            response = page.take(page.send(path, {"credential": credential, "cookie": True}))

            assert_is_in_the_cookie(response)
        assert_is_in_the_cookie(page.refresh())

    @pytest.mark.parametrize("odd", ["true", 1, None])
    def test_an_odd_wish_uses_no_ticket_up(self, page: Browser, odd: Any) -> None:
        token = page.login().json()["mfa_token"]
        proof = {"mfa_token": token, "code": code_of(self.secret)}

        assert_is_rejected(page.send("mfa", {**proof, "cookie": odd}), 400, "validation_error")
        assert_is_in_the_cookie(page.send("mfa", {**proof, "cookie": True}))
