"""
What holds for every request before its view and for every response after it.

Each class does one thing; their order in `MIDDLEWARE` matters. What views rely on: the client's
address is in `REMOTE_ADDR`, an API path has no slash at its end, a body is read and not too long.
"""

import ipaddress
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from django.conf import settings
from django.core.exceptions import BadRequest, RequestDataTooBig, SuspiciousOperation
from django.http import HttpRequest, HttpResponse
from django.http.request import UnreadablePostError
from django.http.response import HttpResponseBase
from django.views import View
from rest_framework.exceptions import APIException, ParseError, ValidationError

from api import errors
from api.parsers import UNSTORABLE, is_unstorable

GetResponse = Callable[[HttpRequest], HttpResponseBase]

API_POLICY = "default-src 'none'; frame-ancestors 'none'"
PAGE_POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'"
)
LONGEST_QUERY = 4096  # characters: gunicorn takes no longer request line
# As a proxy may write it: an IPv4 address or an IPv6 one in brackets, each with a port or without.
ADDRESS_AND_PORT = re.compile(r"\[(?P<ipv6>[^\]]+)\](:[0-9]{1,5})?|(?P<ipv4>[^:]+):[0-9]{1,5}")
DRAINED_BYTES = 16 * 1024 * 1024
# Decoding 1 MiB of percent signs takes a quarter of a second. This holds a form's longest text.
LONGEST_FORM = 192 * 1024


class ClientAddressMiddleware:
    """Put the client's address into `REMOTE_ADDR`, where limits and log lines read it."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        request.META["REMOTE_ADDR"] = client_address(request)
        return self.get_response(request)


class ResponseHeadersMiddleware:
    """Add the content security policy, the state of a rate limit, and `no-store`."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        response.headers.setdefault("Content-Security-Policy", API_POLICY)
        for header, value in getattr(request, "rate_limit", {}).items():
            response.headers.setdefault(header, value)
        if "Authorization" in request.headers or "/auth/" in request.path_info:
            response.headers["Cache-Control"] = "no-store"
        return response


class ProblemMiddleware:
    """Turn exceptions and error responses from anywhere below into problem documents."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response: HttpResponseBase
        try:
            response = self.get_response(request)
        except Exception as error:  # noqa: BLE001 - the last boundary; what is unexpected is logged
            response = errors.response_for(request, error)
        return errors.as_problem(request, response)


class TrailingSlashMiddleware:
    """Accept a slash at the end of an API path."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if is_api(request.path_info) and request.path_info.endswith("/"):
            request.path_info = request.path_info[:-1]
            request.path = request.path[:-1]
        return self.get_response(request)


class UnfitRequestMiddleware:
    """Reject a request that no view should see: body too long, unknown host, unstorable query."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        try:
            refuse_unfit(request)
        except (BadRequest, SuspiciousOperation, UnreadablePostError, APIException) as error:
            # Raised further, Django would turn each SuspiciousOperation into the same 400.
            return errors.response_for(request, error)
        return self.get_response(request)


class AllowedMethodsMiddleware:
    """Respond to OPTIONS, and to methods that a route lacks, before any token or limit is read."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_view(
        self,
        request: HttpRequest,
        view: Callable[..., HttpResponseBase],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> HttpResponseBase | None:
        if not is_api(request.path_info):
            return None
        allowed = allowed_methods(view)
        if request.method in allowed and request.method != "OPTIONS":
            return None
        response = (
            HttpResponse()
            if request.method == "OPTIONS"
            else errors.problem(request, 405, code="method_not_allowed")
        )
        response.headers["Allow"] = ", ".join(allowed)
        return response


def is_api(path: str) -> bool:
    return path.startswith(("/api/", "/health/")) or path == "/health"


def is_health(path: str) -> bool:
    return path.startswith(("/health", "/api/v1/health"))


def allowed_methods(view: Callable[..., HttpResponseBase]) -> list[str]:
    """List a route's methods: those of a viewset's actions, or the handlers of a plain view."""
    view_class: type[View] = getattr(view, "cls", None) or view.view_class  # type: ignore[attr-defined]
    handlers = getattr(view, "actions", None) or dir(view_class)
    methods = {name for name in view_class.http_method_names if name in handlers}
    methods |= {"options"} | ({"head"} if "get" in methods else set())
    return sorted(method.upper() for method in methods)


def client_address(request: HttpRequest) -> str:
    """
    Return the address to count by: the socket's, or what the trusted proxies forwarded.

    Each proxy appends the address that it was called from, so of N proxies' entries the client's
    is the Nth from the right; whatever stands further left, the client may have made up.
    """
    count: int = settings.TRUSTED_PROXY_COUNT
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
    if count and len(forwarded) >= count and (address := canonical_address(forwarded[-count])):
        return address
    # A Unix socket has no address; all that comes through one counts as one client.
    return canonical_address(request.META.get("REMOTE_ADDR", "")) or "0.0.0.0"  # noqa: S104


def canonical_address(text: str) -> str | None:
    """Return an address in its one form: no port, no zone, IPv4 in IPv6 as IPv4; None for none."""
    text = text.strip()
    if match := ADDRESS_AND_PORT.fullmatch(text):
        text = match["ipv6"] or match["ipv4"]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def refuse_unfit(request: HttpRequest) -> None:
    """Raise for a request that no view should see, and read the body of any other."""
    try:
        # The answer may come before a view has read the body; a socket closed on unread bytes is
        # reset, and the client never sees the answer.
        body = request.body
    except RequestDataTooBig:
        drain(request)
        raise
    if len(body) > LONGEST_FORM and request.content_type == "application/x-www-form-urlencoded":
        raise RequestDataTooBig
    if not is_health(request.path_info):
        request.get_host()
    if is_api(request.path_info) or errors.has_pages(request):
        refuse_unstorable(request.META.get("QUERY_STRING", ""))


def drain(stream: Any) -> None:
    """Read what a client goes on sending, within reason, so that it comes to read the answer."""
    for _ in range(DRAINED_BYTES // 65536):
        if not stream.read(65536):
            return


def refuse_unstorable(query: str) -> None:
    """Raise where a query string holds NUL, or bytes that are no UTF-8 (lone surrogates too)."""
    if len(query) > LONGEST_QUERY:
        raise BadRequest
    text = query.encode("latin-1").decode(errors="surrogateescape")  # WSGI hands bytes as latin-1
    pairs = parse_qsl(text, keep_blank_values=True, errors="surrogateescape")
    if any(is_unstorable(name) for name, _ in pairs):
        raise ParseError
    if found := {name: [UNSTORABLE] for name, value in pairs if is_unstorable(value)}:
        raise ValidationError(found)
