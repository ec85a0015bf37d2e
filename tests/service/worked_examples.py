"""
What the worked examples of CONTRIBUTING.md add, but for the filter of the example app.

`test_worked_examples.py` runs these tests in a copy of the project that has the examples.
"""

import json

import pytest
from django.test import Client
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import Event, User
from api.views import schema
from config import checks
from conftest import API, SignIn


def test_the_new_field_of_a_user_is_written_returned_documented_and_recorded(
    user: User, sign_in: SignIn
) -> None:
    device = sign_in(user)

    response = device.patch(f"{API}/users/{user.pk}", {"phone": "+1 555 0100"})

    assert response.json()["phone"] == "+1 555 0100"
    assert device.get(f"{API}/users/me").json()["phone"] == "+1 555 0100"
    assert Event.objects.filter(kind=Event.Kind.CHANGED, detail="phone").exists()
    schemas = json.loads(schema())["components"]["schemas"]
    for name in ("User", "Profile", "RegistrationRequest", "PatchedUserRequest"):
        assert schemas[name]["properties"]["phone"]["maxLength"] == 20


def test_others_do_not_see_the_new_field_of_a_user(
    user: User, stranger: User, sign_in: SignIn
) -> None:
    assert "phone" not in sign_in(stranger).get(f"{API}/users/{user.pk}").json()


def test_the_new_field_of_a_user_is_on_the_form_of_the_console(user: User, console: Client) -> None:
    page = console.get(f"/admin/accounts/user/{user.pk}/change/").content.decode()

    assert 'name="phone"' in page


def test_the_new_startup_rule_rejects_a_configuration(settings: Settings) -> None:
    settings.DEBUG, settings.LOG_LEVEL = False, "DEBUG"
    assert [message.id for message in checks.check_log_level()] == ["config.E101"]
    assert checks.check_log_level in checks.CHECKS

    settings.LOG_LEVEL = "INFO"
    assert checks.check_log_level() == []


def test_the_new_field_of_a_session_is_listed_and_documented(user: User, sign_in: SignIn) -> None:
    device = sign_in(user, HTTP_USER_AGENT="Mozilla/5.0 (iPhone) Mobile Safari/605")

    [session] = device.get(f"{API}/auth/sessions").json()["results"]

    assert session["is_mobile"] is True
    described = json.loads(schema())["components"]["schemas"]["Session"]
    assert described["properties"]["is_mobile"]["type"] == "boolean"


def test_the_new_field_of_the_log_is_written(
    client: APIClient, caplog: pytest.LogCaptureFixture
) -> None:
    client.get(f"{API}/health", HTTP_USER_AGENT="curl/8")

    assert [r.user_agent for r in caplog.records if r.name == "ops.requests"] == ["curl/8"]


def test_the_new_kind_of_event_is_recorded_and_documented(user: User, sign_in: SignIn) -> None:
    device = sign_in(user)

    device.patch(f"{API}/users/{user.pk}", {"username": "archer"})

    events = device.get(f"{API}/auth/events").json()["results"]
    assert "username_changed" in {event["event"] for event in events}
    assert "username_changed" in json.loads(schema())["components"]["schemas"]["EventEnum"]["enum"]
