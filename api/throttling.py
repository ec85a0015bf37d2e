"""
Rate limits, counted by django-ratelimit.

A view selects its limit with `throttle_scope`. `auth` counts by client address and route, and
optionally by `throttle_ident`. `auth-read` counts by `throttle_ident` and route. Any other scope is
one of `DEFAULT_THROTTLE_RATES`, counted by DRF's `ScopedRateThrottle`. DRF checks limits after
permissions, so a request without a required token is not counted; nor is one for which
`throttle_ident` raises NotAuthenticated, or one with an unsupported method. Every response of a
route with a limit of ours has the headers, whether it was counted or not. A route is a method and a
path, so a 405 belongs to none.
"""

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import Resolver404, resolve
from django_ratelimit.core import get_usage
from rest_framework.exceptions import APIException, NotAuthenticated, UnsupportedMediaType
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle, ScopedRateThrottle

from api.requests import django_request

if TYPE_CHECKING:  # DRF's views import this module while they are being imported.
    from rest_framework.views import APIView

RATES = {"auth": "AUTH_RATE_LIMIT", "auth-read": "AUTH_READ_LIMIT"}
# Callbacks for a client that exceeds a limit, called with the name of the limit once per window.
# An app registers its own in `AppConfig.ready()`.
on_limit_reached: set[Callable[[str], None]] = set()


class RouteThrottle(BaseThrottle):
    def allow_request(self, request: Request, view: "APIView") -> bool:
        scope = getattr(view, "throttle_scope", None)
        if scope is None:
            return True
        if scope not in RATES:
            self.scoped = ScopedRateThrottle()
            return bool(self.scoped.allow_request(request, view))
        body_error = None
        try:
            reject_cross_site_body(request)
            ident = view.throttle_ident(request) if hasattr(view, "throttle_ident") else ""
        except (UnsupportedMediaType, NotAuthenticated):
            raise
        except APIException as error:  # A malformed body counts too.
            ident, body_error = "", error
        self.usage = count(django_request(request), scope, ident)
        if body_error and not self.usage["should_limit"]:
            raise body_error
        return not self.usage["should_limit"]

    def wait(self) -> float | None:
        return float(self.usage["reset"]) if hasattr(self, "usage") else self.scoped.wait()


def reject_cross_site_body(request: Request) -> None:
    """
    Raise UnsupportedMediaType for a body that any web page can send, without counting it.

    Browsers send forms, plain text and empty bodies across sites without a preflight. If they
    counted, a page could exhaust the limit of its visitors' address. Such requests cannot have an
    access token, so a request with one may lack a body.
    """
    negotiator: Any = request.negotiator
    parser = negotiator.select_parser(request, request.parsers)
    if parser is None and (request.auth is None or django_request(request).body):
        raise UnsupportedMediaType(request.content_type)
    if request.auth is None:
        request.data  # noqa: B018 - raises UnsupportedMediaType for other character sets


def is_limited(request: HttpRequest) -> bool:
    """Return whether the route of a request has a limit, before or after Django resolved it."""
    if request.resolver_match is None:
        try:
            request.resolver_match = resolve(request.path_info)
        except Resolver404:
            return False
    view = request.resolver_match.func
    view_class: Any = getattr(view, "cls", None)  # DRF's `as_view` sets it.
    if view_class is None:
        return False
    method = "get" if request.method == "HEAD" else str(request.method).lower()
    handlers = getattr(view, "actions", None) or {name: name for name in dir(view_class)}
    is_allowed = method in view_class.http_method_names and method != "options"
    return is_allowed and method in handlers and has_scope(view_class, handlers[method])


@functools.cache
def has_scope(view_class: Any, action: str) -> bool:
    """Return whether an action of a view has a limit, which a view may decide by its action."""
    view = view_class()
    view.action = action
    return getattr(view, "throttle_scope", None) in RATES


def uncounted_headers(request: HttpRequest) -> Mapping[str, str]:
    """Return the headers of a request that was not counted; none if its route has no limit."""
    if not is_limited(request):
        return {}
    count(request, "auth", increment=False)
    headers: Mapping[str, str] = request.rate_limit  # type: ignore[attr-defined]  # set by count
    return headers


def count(
    request: HttpRequest, name: str, ident: str = "", *, increment: bool = True
) -> Mapping[str, Any]:
    """
    Count a request to this route and set its headers on `request.rate_limit`.

    `reset` is the number of seconds until the next window. django-ratelimit's window includes the
    second in which it ends, so a client that waited only `time_left` would be rejected.
    """
    rate: tuple[int, int] = getattr(settings, RATES[name])
    usage = dict(count_in_cache(request, name, ident, rate, increment=increment))
    usage["reset"] = max(1, usage["time_left"] + 1)
    if increment and usage["count"] == usage["limit"] + 1:
        for record in on_limit_reached:
            record(name)
    remaining = max(0, usage["limit"] - usage["count"])
    request.rate_limit = rate_limit_headers(  # type: ignore[attr-defined]  # for the middleware
        name, rate, reset=usage["reset"], remaining=remaining
    )
    return usage


def count_in_cache(
    request: HttpRequest, name: str, ident: str, rate: tuple[int, int], *, increment: bool
) -> Mapping[str, Any]:
    """
    Count a request in the shared cache and return the usage.

    django-ratelimit returns no usage if the cache loses a key between two commands
    (RATELIMIT_FAIL_OPEN). The request is then counted again: a cache failure must not reject a
    client within its limit.
    """
    route = request.resolver_match.route if request.resolver_match else ""
    method = "GET" if request.method == "HEAD" else request.method
    counting: dict[str, Any] = {
        "group": f"{name}:{method}:{route}:{ident}",
        "key": "ip" if name == "auth" else lambda group, request: ident,
        "rate": rate,
        "increment": increment,
    }
    quota, window = rate
    first = {"count": int(increment), "limit": quota, "should_limit": False, "time_left": window}
    return get_usage(request, **counting) or get_usage(request, **counting) or first


def rate_limit_headers(
    name: str, rate: tuple[int, int], *, reset: float, remaining: int = 0
) -> dict[str, str]:
    """Return the headers of draft-ietf-httpapi-ratelimit-headers; `reset` is in seconds."""
    quota, window = rate
    return {
        "RateLimit-Policy": f'"{name}";q={quota};w={window}',
        "RateLimit": f'"{name}";r={remaining};t={int(reset)}',
    }


def scope_without_rate(view: Any) -> str | None:
    """Return the scope of a view if `RouteThrottle` knows no rate for it."""
    scope: Any = getattr(type(view), "throttle_scope", None)
    has_rate = scope in RATES or ScopedRateThrottle.THROTTLE_RATES.get(scope)
    # A property selects a scope for each request.
    is_fixed = isinstance(scope, str) and RouteThrottle in view.throttle_classes
    return scope if is_fixed and not has_rate else None
