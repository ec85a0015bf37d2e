"""Errors of the console are HTML pages with the status of the API's errors."""

import logging

import pytest
from django.core.exceptions import BadRequest, FieldError, ValidationError
from django.db import DataError, IntegrityError
from django.db.models import ProtectedError, RestrictedError
from django.test import Client, RequestFactory
from pytest_django import Settings

from api import exceptions
from console.middleware import render_page


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("accounts/user/?_to_field=password", 400),
        ("accounts/user/?q=%00", 400),
        ("accounts/user/?q=" + "a" * 5000, 400),
        ("accounts/event/add/", 403),
        ("accounts/user/x/password/", 404),
        ("nothing/", 404),
        ("logout/", 405),
    ],
)
def test_an_error_page_discloses_nothing(
    console: Client, settings: Settings, path: str, status: int, debug: bool
) -> None:
    settings.DEBUG = debug

    page = console.get(f"/admin/{path}")

    assert page.status_code == status
    assert page.headers["Content-Type"].startswith("text/html")
    text = page.content.decode()
    assert f"Request {page.headers['X-Request-ID']}" in text
    assert not any(word in text for word in ("Django", "Traceback", "<style", "URLconf"))


@pytest.mark.parametrize(
    "error", [ValueError(), OverflowError(), DataError(), FieldError(), ValidationError("")]
)
def test_invalid_input_is_a_bad_request_and_is_logged_with_its_traceback(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    request = RequestFactory().get("/admin/x")
    request.render_problem = render_page
    with caplog.at_level(logging.WARNING):
        response = exceptions.problem_for(request, error)

    assert response is not None
    assert response.status_code == 400
    assert caplog.records[0].exc_info[1] is error


@pytest.mark.parametrize("error", [ValueError(), OverflowError(), FieldError(), TypeError()])
def test_a_defect_of_the_api_is_no_bad_request(error: Exception) -> None:
    assert exceptions.problem_for(RequestFactory().get("/api/v1/x"), error) is None


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ProtectedError("", set()), 409, "conflict"),
        (RestrictedError("", set()), 409, "conflict"),
        (IntegrityError(), 409, "conflict"),
        (BadRequest(), 400, "parse_error"),
    ],
)
def test_the_api_has_a_code_for_it(error: Exception, status: int, code: str) -> None:
    response = exceptions.problem_for(RequestFactory().get("/api/v1/x"), error)

    assert response is not None
    assert response.status_code == status
    assert f'"code": "{code}"'.encode() in response.content
