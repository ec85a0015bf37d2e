"""The steps of a passkey's life, as a client takes them with an authenticator in software."""

from typing import Any

from rest_framework.test import APIClient

from conftest import API, PASSWORD
from tests.rig.authenticator import Authenticator
from tests.rig.factors import client_of
from tests.rig.lifecycle import post

PATH = f"{API}/users/me/passkeys"


def begin_registration(device: APIClient) -> Any:
    response = device.post(f"{PATH}/options")
    assert response.status_code == 200, response.content
    return response.json()


def register(device: APIClient, passkey: Authenticator, name: str = "Laptop", **bent: Any) -> Any:
    """Register a passkey, bent in some way, and return the response."""
    credential = passkey.create(begin_registration(device), **bent)
    return device.post(PATH, {"name": name, "credential": credential})


def add_passkey(device: APIClient, **options: Any) -> Authenticator:
    """Register a passkey of the user of a device."""
    passkey = Authenticator(**options)
    response = register(device, passkey)
    assert response.status_code == 201, response.content
    passkey.response = response.json()
    return passkey


def begin_sign_in() -> Any:
    response = post("/auth/passkey/options", {})
    assert response.status_code == 200, response.content
    return response.json()


def sign_in_with(passkey: Authenticator, **bent: Any) -> Any:
    """Sign in with a passkey, bent in some way, and return the response."""
    return post("/auth/passkey", {"credential": passkey.get(begin_sign_in(), **bent)})


def device_of(passkey: Authenticator) -> APIClient:
    """Sign in with a passkey and return a client with the access token."""
    response = sign_in_with(passkey)
    assert response.status_code == 200, response.content
    return client_of(response.json())


def begin_login(identity: str = "alice") -> Any:
    """Log in as a user with a passkey, and return the problem document that continues it."""
    response = post("/auth/login", {"identity": identity, "password": PASSWORD})
    assert (response.status_code, response.json()["code"]) == (403, "mfa_required")
    return response.json()


def complete_with(passkey: Authenticator, problem: Any = None, **bent: Any) -> Any:
    """Complete a login with a passkey, bent in some way, and return the response."""
    problem = problem or begin_login()
    credential = passkey.get(problem["passkey_options"], **bent)
    return post("/auth/mfa", {"mfa_token": problem["mfa_token"], "credential": credential})


def reauthenticate_with(device: APIClient, passkey: Authenticator, **bent: Any) -> Any:
    """Prove the account again with a passkey, bent in some way, and return the response."""
    credential = passkey.get(begin_sign_in(), **bent)
    return device.post(f"{API}/auth/reauthenticate", {"credential": credential})
