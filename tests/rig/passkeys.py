"""The steps of a passkey's life, as a client takes them with an authenticator in software."""

from typing import Any

from rest_framework.test import APIClient

from conftest import API
from tests.rig.authenticator import Authenticator
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
    device = APIClient(raise_request_exception=False)
    device.tokens = response.json()
    device.credentials(HTTP_AUTHORIZATION=f"Bearer {device.tokens['access_token']}")
    return device
