"""
Limits of requests, counted by django-ratelimit.

A view names its limit with `throttle_scope`. `auth` counts each client address and route, and the
view may tell clients of one address apart with `throttle_ident`. `auth-read` counts each
`throttle_ident` and route. DRF throttles after permissions, so a request that is rejected for want
of a token is not counted; methods that a route lacks never come this far.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.http import HttpRequest
from django_ratelimit.core import get_usage
from rest_framework.exceptions import APIException, UnsupportedMediaType
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle
from rest_framework.utils.mediatypes import media_type_matches

if TYPE_CHECKING:  # DRF's views import this module while they are being imported.
    from rest_framework.views import APIView

RATES = {"auth": "AUTH_RATE_LIMIT", "auth-read": "AUTH_READ_LIMIT"}
# Called with the name of a limit when a client exceeds it, once for each window. An app that keeps
# a record adds a function in `AppConfig.ready()`.
on_limit_reached: list[Callable[[str], None]] = []


class AddressThrottle(BaseThrottle):
    def allow_request(self, request: Request, view: "APIView") -> bool:
        scope = getattr(view, "throttle_scope", None)
        if scope is None:
            return True
        trouble = None
        try:
            reject_foreign_body(request)
            ident = view.throttle_ident(request) if hasattr(view, "throttle_ident") else ""
        except UnsupportedMediaType:
            raise
        except APIException as error:  # A body that can't be read counts as well.
            ident, trouble = "", error
        self.usage = count(request._request, scope, ident)
        if trouble and not self.usage["should_limit"]:
            raise trouble
        return not self.usage["should_limit"]

    def wait(self) -> float:
        return float(self.usage["reset"])


def reject_foreign_body(request: Request) -> None:
    """
    Raise UnsupportedMediaType, uncounted, for what any web page can send.

    Browsers send forms, plain text and nothing at all across sites without a preflight. If it
    counted, a page could use up the limit of its visitors' address. An access token can't be sent
    so: a request that has one may lack a body.
    """
    is_readable = any(
        media_type_matches(parser.media_type, request.content_type)
        for parser in request.parsers or []
    )
    if not is_readable and (request.auth is None or request._request.body):
        raise UnsupportedMediaType(request.content_type)
    if request.auth is None:
        request.data  # noqa: B018 - It may be in another character set.


def count(request: HttpRequest, name: str, ident: str = "") -> Mapping[str, Any]:
    """
    Count a request to this route and leave its headers for the response.

    `reset` is the number of seconds until the next window has begun: django-ratelimit's window
    includes the second in which it ends, so a client that waited `time_left` would be rejected.
    """
    rate: tuple[int, int] = getattr(settings, RATES[name])
    usage = dict(count_in_cache(request, name, ident, rate))
    usage["reset"] = max(1, usage["time_left"] + 1)
    if usage["count"] == usage["limit"] + 1:
        for record in on_limit_reached:
            record(name)
    remaining = max(0, usage["limit"] - usage["count"])
    request.rate_limit = rate_limit_headers(  # type: ignore[attr-defined]
        name, rate, reset=usage["reset"], remaining=remaining
    )
    return usage


def count_in_cache(
    request: HttpRequest, name: str, ident: str, rate: tuple[int, int]
) -> Mapping[str, Any]:
    """
    Count where the processes share it, and return the usage.

    A cache that loses its key between two commands gives none (RATELIMIT_FAIL_OPEN). The request is
    then counted again; a fault of the cache must not reject a client within its limit.
    """
    route = request.resolver_match.route if request.resolver_match else ""
    method = "GET" if request.method == "HEAD" else request.method
    counting: dict[str, Any] = {
        "group": f"{name}:{method}:{route}:{ident}",
        "key": "ip" if name == "auth" else lambda group, request: ident,
        "rate": rate,
        "increment": True,
    }
    quota, window = rate
    first = {"count": 1, "limit": quota, "should_limit": False, "time_left": window}
    return get_usage(request, **counting) or get_usage(request, **counting) or first


def rate_limit_headers(
    name: str, rate: tuple[int, int], *, reset: float, remaining: int = 0
) -> dict[str, str]:
    """Describe a limit as draft-ietf-httpapi-ratelimit-headers does; `reset` in seconds."""
    quota, window = rate
    return {
        "RateLimit-Policy": f'"{name}";q={quota};w={window}',
        "RateLimit": f'"{name}";r={remaining};t={int(reset)}',
    }
