import pytest
from django.core.exceptions import MiddlewareNotUsed
from django.test import Client
from pytest_django import Settings

from conftest import API


class Unused:
    def __init__(self, get_response: object) -> None:
        raise MiddlewareNotUsed


def test_pages_have_cookies_and_csrf_and_the_api_has_neither(db: None) -> None:
    browser = Client(enforce_csrf_checks=True)

    page = browser.get("/admin/login/")
    rejected = browser.post("/admin/login/", {"username": "alice"})
    response = browser.post(f"{API}/auth/logout", {}, "application/json")

    assert page.wsgi_request.session is not None
    assert rejected.status_code == 403
    assert response.status_code == 401
    for name in ("session", "_messages"):
        assert not hasattr(response.wsgi_request, name)


def test_without_the_console_middleware_pages_stay_protected(db: None, settings: Settings) -> None:
    middleware = list(settings.MIDDLEWARE)
    for place in range(len(middleware) + 1):
        settings.MIDDLEWARE = [*middleware[:place], f"{__name__}.Unused", *middleware[place:]]
        browser = Client(enforce_csrf_checks=True)

        assert browser.get("/admin/login/").wsgi_request.session is not None
        assert browser.post("/admin/login/", {"username": "alice"}).status_code == 403


@pytest.mark.parametrize("enabled", [True, False])
def test_errors_below_the_path_of_the_console_are_pages(
    db: None, settings: Settings, enabled: bool
) -> None:
    settings.ADMIN_ENABLED = enabled

    response = Client().post("/admin/", "x" * (settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1), "x/y")

    assert response.status_code == 413
    assert response.headers["Content-Type"].startswith("text/html") == enabled
    assert ("default-src 'self'" in response.headers["Content-Security-Policy"]) == enabled
