"""Startup rules for what Django and DRF document, but cannot work below `API_ROOT`."""

import re
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage
from rest_framework.authentication import SessionAuthentication

from api.routes import api_views
from api.throttling import scope_without_rate
from config.rules import error


def check_paths(**kwargs: Any) -> list[CheckMessage]:
    root, path = settings.API_ROOT, settings.API_PATH
    are_paths = all(re.fullmatch(r"([\w.-]+/)+", path) for path in (root, path))
    if are_paths and path.startswith(root) and not settings.ADMIN_PATH.startswith(root):
        return []
    return [error("config.E030")]


def check_transactions(**kwargs: Any) -> list[CheckMessage]:
    is_atomic = settings.DATABASES["default"].get("ATOMIC_REQUESTS")
    return [error("config.E031")] if is_atomic else []


def check_authentication(**kwargs: Any) -> list[CheckMessage]:
    found = {
        type(view).__name__
        for view in api_views()
        for kind in view.authentication_classes
        if issubclass(kind, SessionAuthentication)
    }
    return [error("config.E032", view=name) for name in sorted(found)]


def check_scopes(**kwargs: Any) -> list[CheckMessage]:
    """Reject limits without a rate, which DRF would notice with the first request."""
    found = {(type(v).__name__, scope_without_rate(v)) for v in api_views()}
    return [error("config.E033", view=name, scope=scope) for name, scope in found if scope]


CHECKS = (check_paths, check_transactions, check_authentication, check_scopes)
