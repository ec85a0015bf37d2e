"""Middleware for HTML pages: error pages, sessions, authentication and messages."""

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.contrib.auth import middleware as auth
from django.contrib.auth.models import AnonymousUser
from django.contrib.messages import middleware as messages
from django.contrib.sessions import middleware as sessions
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.utils.deprecation import MiddlewareMixin
from django.utils.functional import SimpleLazyObject

from api.errors import ErrorPage
from api.middleware import GetResponse
from api.policies import PAGE_POLICY
from api.requests import is_api


class ConsoleMiddleware:
    """Render errors of the console as HTML, and set a policy that allows its static files."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not is_console(request.path_info):
            return self.get_response(request)
        request.render_problem = render_page  # type: ignore[attr-defined]  # read by api.errors
        response = self.get_response(request)
        response.headers.setdefault("Content-Security-Policy", PAGE_POLICY)
        return response


def is_console(path: str) -> bool:
    return settings.ADMIN_ENABLED and path.startswith(f"/{settings.ADMIN_PATH}")


def render_page(problem: Mapping[str, Any]) -> HttpResponse:
    page = render_to_string("console/error.html", {"problem": problem})
    return ErrorPage(page, status=problem["status"])


class PagesOnly(MiddlewareMixin):
    """Skip API requests, which need no cookies, sessions or messages."""

    def __call__(self, request: HttpRequest) -> Any:
        if is_api(request.path_info):
            return self.get_response(request)
        return super().__call__(request)


class SessionMiddleware(PagesOnly, sessions.SessionMiddleware):
    """Sessions on HTML pages."""


class AuthenticationMiddleware(PagesOnly, auth.AuthenticationMiddleware):
    """`request.user`: the user of a page's session; in the API nobody until DRF authenticates."""

    def __call__(self, request: HttpRequest) -> Any:
        request.user = AnonymousUser()
        return super().__call__(request)

    def process_request(self, request: HttpRequest) -> None:
        """Set the user, and when it is read `user_id`, for the log."""
        super().process_request(request)
        user = request.user

        def read() -> Any:
            request.user_id = user.pk  # type: ignore[attr-defined]  # read by ops.requests
            return user

        request.user = SimpleLazyObject(read)  # type: ignore[assignment]  # as Django does


class MessageMiddleware(PagesOnly, messages.MessageMiddleware):
    """Messages on HTML pages."""
