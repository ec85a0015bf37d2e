"""
The limit of requests for each client address and route, counted by django-ratelimit.

A view names its limit with `throttle_scope` and may tell clients of one address apart with
`throttle_ident`. DRF throttles after permissions, so a request that is refused for want of a token
uses nothing up; methods that a route lacks never come this far.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.http import HttpRequest
from django_ratelimit.core import get_usage
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from accounts.models import Event

if TYPE_CHECKING:  # DRF's views import this module while they are being imported.
    from rest_framework.views import APIView


class AddressThrottle(BaseThrottle):
    def allow_request(self, request: Request, view: "APIView") -> bool:
        scope = getattr(view, "throttle_scope", None)
        if scope is None:
            return True
        trouble = None
        try:
            ident = view.throttle_ident(request) if hasattr(view, "throttle_ident") else ""
        except APIException as error:  # A body that can't be read counts as well.
            ident, trouble = "", error
        self.usage = count(request._request, scope, ident)
        if trouble and not self.usage["should_limit"]:
            raise trouble
        return not self.usage["should_limit"]

    def wait(self) -> float:
        return float(self.usage["reset"])


def count(request: HttpRequest, name: str, ident: str = "") -> Mapping[str, Any]:
    """
    Count a request of this address to this route and leave its headers for `EdgeMiddleware`.

    `reset` is the number of seconds until the next window has begun: django-ratelimit's window
    includes the second in which it ends, so a client that waited `time_left` would be refused.
    """
    route = request.resolver_match.route if request.resolver_match else ""
    method = "GET" if request.method == "HEAD" else request.method
    group = f"{name}:{method}:{route}:{ident}"
    usage: dict[str, Any] = get_usage(
        request, group=group, key="ip", rate=settings.AUTH_RATE_LIMIT, increment=True
    )
    usage["reset"] = max(1, usage["time_left"] + 1)
    if usage["count"] == usage["limit"] + 1:
        Event.objects.record_limit(name)
    remaining = max(0, usage["limit"] - usage["count"])
    request.rate_limit = rate_limit_headers(  # type: ignore[attr-defined]
        name, settings.AUTH_RATE_LIMIT, reset=usage["reset"], remaining=remaining
    )
    return usage


def rate_limit_headers(
    name: str, rate: tuple[int, int], *, reset: float, remaining: int = 0
) -> dict[str, str]:
    """Describe a limit as draft-ietf-httpapi-ratelimit-headers does; `reset` in seconds."""
    quota, window = rate
    return {
        "RateLimit-Policy": f'"{name}";q={quota};w={window}',
        "RateLimit": f'"{name}";r={remaining};t={int(reset)}',
    }
