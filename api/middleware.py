"""
Middleware for every request and response, one class for each purpose.

The order in `MIDDLEWARE` matters. Views rely on it: `REMOTE_ADDR` is the client's address, an API
path has no trailing slash, and the body has been read and is within its limit. A view with an
`upload_limit` (api.uploads) reads its body itself.
"""

import contextlib
import ipaddress
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from corsheaders import middleware as corsheaders
from django.conf import settings
from django.core.exceptions import BadRequest, RequestDataTooBig, SuspiciousOperation
from django.http import HttpRequest, HttpResponse
from django.http.request import UnreadablePostError
from django.http.response import HttpResponseBase
from django.urls import is_valid_path
from rest_framework.exceptions import (
    APIException,
    ParseError,
    UnsupportedMediaType,
)

from api import errors, exceptions, own_errors
from api.methods import allowed_methods, serve_head
from api.parsers import is_unstorable, unstorable_error
from api.policies import API_POLICY, page_policy
from api.requests import is_api, is_health
from api.throttling import is_limited, uncounted_headers
from api.uploads import PartCounter, limit_of, prepare_upload

GetResponse = Callable[[HttpRequest], HttpResponseBase]

CREDENTIALS_PATH = f"/{settings.API_PATH}auth/"
LONGEST_QUERY = 4096  # characters; gunicorn rejects longer request lines
# The forms that proxies write: IPv4 with a port, or IPv6 in brackets with or without a port.
ADDRESS_AND_PORT = re.compile(r"\[(?P<ipv6>[^\]]+)\](:[0-9]{1,5})?|(?P<ipv4>[^:]+):[0-9]{1,5}")
DRAINED_BYTES = 16 * 1024 * 1024
# Decoding 1 MiB of percent signs takes 0.25 s. The longest text of a form fits into this limit.
LONGEST_FORM = 192 * 1024
FORMS = {"application/x-www-form-urlencoded", "multipart/form-data"}
# Parsing the parameters of a part's header is quadratic.
MAXIMUM_PARAMETERS = 1_000


class ClientAddressMiddleware:
    """Set `REMOTE_ADDR` to the client's address, for rate limits and the log."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        request.META["REMOTE_ADDR"] = client_address(request)
        return self.get_response(request)


class CorsMiddleware(corsheaders.CorsMiddleware):
    """Add the CORS headers; let routes respond to a preflight as to any other OPTIONS."""

    def check_preflight(self, request: HttpRequest) -> None:
        """Return no response. django-cors-headers would respond with 200 for unknown paths too."""

    def add_response_headers(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        """Allow credentials where the cookie of a refresh token is used, to listed origins only."""
        response = super().add_response_headers(request, response)
        origin = request.headers.get("Origin", "")
        is_listed = origin in settings.CORS_ALLOWED_ORIGINS
        if settings.REFRESH_COOKIE and is_listed and request.path_info.startswith(CREDENTIALS_PATH):
            # Where all origins are allowed, the header is `*`, with which browsers accept none.
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Allow-Credentials"] = "true"
        return response


class ResponseHeadersMiddleware:
    """Add the content security policy, the rate limit headers and `no-store`."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        is_html = response.headers.get("Content-Type", "").startswith("text/html")
        is_page = is_html and not is_api(request.path_info)
        policy = page_policy() if is_page else API_POLICY
        # A browser gives the headers of a 304 to the page that it has stored (RFC 9111, 3.2).
        if response.status_code != HTTPStatus.NOT_MODIFIED:
            response.headers.setdefault("Content-Security-Policy", policy)
        limits = getattr(request, "rate_limit", None) or uncounted_headers(request)
        for header, value in limits.items():
            response.headers.setdefault(header, value)
        if has_token(request):
            response.headers["Cache-Control"] = "no-store"
        return response


def has_token(request: HttpRequest) -> bool:
    """Tell whether a request may present or get a token, in a header or in a body."""
    is_post = request.method == "POST"
    return is_post or "Authorization" in request.headers or "/auth/" in request.path_info


class ProblemMiddleware:
    """Convert exceptions and error responses of inner layers into problem documents."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response: HttpResponseBase
        try:
            response = self.get_response(request)
        except Exception as error:  # noqa: BLE001 - the outermost boundary; it logs unexpected errors
            response = exceptions.response_for(request, error)
        return errors.as_problem(request, response)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse:
        """Respond to an exception of a view, before Django's own pages for errors."""
        return exceptions.response_for(request, error)


class OwnErrorsMiddleware:
    """Mark the error responses that views return. It must be the last of `MIDDLEWARE`."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        # Django's page for a path without a view is not a view's own.
        return own_errors.mark_own(response) if request.resolver_match else response


class TrailingSlashMiddleware:
    """Accept API paths with and without a trailing slash, whichever form their route has."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        path = request.path_info
        if not is_api(path):
            return self.get_response(request)
        if path.endswith("/"):
            if not is_valid_path(path):
                request.path_info, request.path = path[:-1], request.path[:-1]
            return self.get_response(request)
        response = self.get_response(request)
        # Most routes have no slash, so the other form is tried only where no view was found.
        if response.status_code == 404 and not request.resolver_match and is_valid_path(f"{path}/"):
            request.path_info, request.path = f"{path}/", f"{request.path}/"
            return self.get_response(request)
        return response


class RequestValidationMiddleware:
    """
    Reject a body that is too long, an unknown host and a query that cannot be stored.

    Such a request to a limited route counts, unless any web page can send it (RouteThrottle).
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        limit = limit_of(request)
        try:
            validate_request(request, limit)
        except (BadRequest, SuspiciousOperation, UnreadablePostError, APIException) as error:
            # Django would convert every SuspiciousOperation into the same 400.
            is_counted = request.content_type == "application/json" and is_limited(request)
            rejection = exceptions.count_rejected(request, error) if is_counted else error
            return exceptions.response_for(request, rejection)
        try:
            return self.get_response(request)
        finally:
            # Without a view, TrailingSlashMiddleware tries the other form of the path.
            if limit and request.resolver_match:
                with contextlib.suppress(UnreadablePostError, APIException):
                    drain(request)


class AllowedMethodsMiddleware:
    """Respond to OPTIONS and to unsupported methods before authentication and rate limits."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        method = request.method
        response = self.get_response(request)
        request.method = method
        return response

    def process_view(
        self,
        request: HttpRequest,
        view: Callable[..., HttpResponseBase],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> HttpResponseBase | None:
        allowed = allowed_methods(view) if is_api(request.path_info) else None
        if allowed is None:
            return None
        if request.method == "OPTIONS":
            response = HttpResponse()
        elif request.method in allowed:
            serve_head(request, view)
            return None
        else:
            response = errors.problem(request, 405, code="method_not_allowed")
        response.headers["Allow"] = ", ".join(allowed)
        return response


def client_address(request: HttpRequest) -> str:
    """
    Return the client's address: the socket's, or the one that the trusted proxies forwarded.

    Each proxy appends the address of its peer. With N trusted proxies the client's address is the
    Nth entry from the right. The client can forge all entries further left.
    """
    count: int = settings.TRUSTED_PROXY_COUNT
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
    if count and len(forwarded) >= count and (address := canonical_address(forwarded[-count])):
        return address
    # A Unix socket has no address; all its requests count as one client.
    return canonical_address(request.META.get("REMOTE_ADDR", "")) or "0.0.0.0"  # noqa: S104 - a placeholder, not bound


def canonical_address(text: str) -> str | None:
    """Return an address without port and zone, IPv4-mapped IPv6 as IPv4, or None if invalid."""
    text = text.strip()
    if match := ADDRESS_AND_PORT.fullmatch(text):
        text = match["ipv6"] or match["ipv4"]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def validate_request(request: HttpRequest, limit: int | None = None) -> None:
    """Raise an exception if a request is invalid; read the body unless the view has a `limit`."""
    try:
        # A view may respond before it reads the body. A socket that is closed with unread bytes is
        # reset, and the client does not receive the response.
        if limit:
            prepare_upload(request, limit)
        else:
            _ = request.body
    except (RequestDataTooBig, APIException):
        drain(request)
        raise
    if request.content_type in FORMS:
        reject_costly_form(request, is_upload=bool(limit))
    if not is_health(request.path_info):
        request.get_host()
    reject_unstorable(request.META.get("QUERY_STRING", ""))


def reject_costly_form(request: HttpRequest, *, is_upload: bool) -> None:
    """Raise an exception for a form that would take too long to decode."""
    charset = (request.content_params or {}).get("charset", "utf-8").lower()
    if charset not in {"utf-8", "utf8"}:
        # A client would choose Python's codec. That of Punycode is quadratic.
        raise UnsupportedMediaType(request.content_type or "")
    if is_upload:
        return
    if is_api(request.path_info):
        PartCounter(request).add(request.body)
        return
    is_multipart = request.content_type == "multipart/form-data"
    has_many = is_multipart and request.body.count(b";") > MAXIMUM_PARAMETERS
    if len(request.body) > LONGEST_FORM or has_many:
        raise RequestDataTooBig


def drain(stream: Any) -> None:
    """Read the rest of a body, up to `DRAINED_BYTES`, so that the client reads the response."""
    for _ in range(DRAINED_BYTES // 65536):
        if not stream.read(65536):
            return


def reject_unstorable(query: str) -> None:
    """Raise an exception if a query string contains NUL, lone surrogates or invalid UTF-8."""
    if len(query) > LONGEST_QUERY:
        raise BadRequest
    text = query.encode("latin-1").decode(errors="surrogateescape")  # WSGI passes bytes as latin-1
    pairs = parse_qsl(text, keep_blank_values=True, errors="surrogateescape")
    if any(is_unstorable(name) for name, _ in pairs):
        raise ParseError
    if found := [name for name, value in pairs if is_unstorable(value)]:
        raise unstorable_error(found)
