"""Passkeys: how they are added, listed, removed, and used to sign in."""

from typing import Any

import pytest
from django.db.models.functions import Now
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from conftest import SignIn
from tests.rig.passkeys import (
    add_passkey,
    sign_in_with,
)


@pytest.fixture(autouse=True)
def lifted_limits(settings: Settings) -> None:
    settings.AUTH_RATE_LIMIT = (1_000_000, 60)


@pytest.fixture
def device(make_user: Any, sign_in: SignIn) -> APIClient:
    """A device of a user whose address is verified."""
    return sign_in(verified(make_user("alice")))


def verified(user: User) -> User:
    User.objects.filter(pk=user.pk).update(email_verified_at=Now())
    return user


class TestFirst:
    def test_one(self, device: APIClient) -> None:
        passkey = add_passkey(device)
        response = sign_in_with(passkey)
        assert response.status_code == 200, response.content
