"""
Every error response as a problem document (RFC 9457).

`exception_handler` serves DRF's views; `ProblemMiddleware` covers what happens outside of them.
The texts are fixed by code: the text of an exception may name a library, a path or a value.
Where errors are pages for people, a middleware sets `request.render_problem`: a function that gets
the members of the problem document and returns the response.
"""

import http
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from django.core.exceptions import (
    BadRequest,
    FieldError,
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
    ValidationError,
)
from django.db import DataError, InterfaceError, InternalError, OperationalError
from django.db.models import ProtectedError, RestrictedError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.http.request import UnreadablePostError
from django.http.response import HttpResponseBase
from rest_framework import exceptions

from api.throttling import rate_limit_headers

logger = logging.getLogger(__name__)
Render = Callable[[Mapping[str, Any]], HttpResponse]

DETAILS = {
    "parse_error": "The request can't be read.",
    "not_authenticated": "This needs a bearer token.",
    "invalid_credentials": "The identity or the password is wrong.",
    "token_not_valid": "The token is not valid.",
    "permission_denied": "You may not do this.",
    "password_change_required": "This password must be changed first: POST /auth/password.",
    "not_found": "There is nothing here.",
    "method_not_allowed": "This method is not allowed here; the Allow header says which are.",
    "conflict": "Other rows refer to this one, so it cannot be deleted.",
    "length_required": "The request needs a Content-Length.",
    "payload_too_large": "The body is larger than 1 MiB, or a form larger than 192 KiB.",
    "unsupported_media_type": "The body must be application/json in UTF-8.",
    "rate_limited": "Too many requests; the Retry-After header says how many seconds to wait.",
    "server_error": "Something went wrong on our side; the request id helps to find out what.",
    "service_unavailable": "This can't be answered right now; try again in a moment.",
}
CODES = {
    400: "parse_error",
    401: "not_authenticated",
    403: "permission_denied",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    411: "length_required",
    413: "payload_too_large",
    415: "unsupported_media_type",
    429: "rate_limited",
    500: "server_error",
    503: "service_unavailable",
}
MAXIMUM_ERRORS = 20  # entries of `errors`, however many faults a request has
# As RFC 9110 names them; Python before 3.13 has the older names.
TITLES = {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}
STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (Http404, 404),
    (PermissionDenied, 403),
    (RequestDataTooBig, 413),
    (SuspiciousOperation, 400),
    (BadRequest, 400),
    (UnreadablePostError, 400),
    (ProtectedError, 409),
    (RestrictedError, 409),
)
# PostgreSQL away, out of connections, too slow, or (InternalError) not taking writes.
DATABASE_AWAY = (OperationalError, InterfaceError, InternalError)
DATABASE_RETRY_AFTER = 2
# What Django's admin raises where a query, a selection or a cookie does not fit its column.
UNREADABLE = (DataError, FieldError, OverflowError, ValidationError, ValueError)


class ErrorPage(HttpResponse):
    """A response of 400 or above as a page, which a middleware's `render_problem` makes."""


def exception_handler(error: Exception, context: Mapping[str, Any]) -> HttpResponse | None:
    """Respond to an exception of a DRF view; `ProblemMiddleware` takes what is unexpected."""
    return problem_for(context["request"]._request, error)


def problem_for(request: HttpRequest, error: Exception) -> HttpResponse | None:
    """Return the problem document of an expected exception, or None for any other."""
    if isinstance(error, exceptions.ValidationError):
        return validation_problem(request, error)
    if isinstance(error, exceptions.APIException):
        # The class knows the status: DRF turns an instance's 401 into a 403 where a view has no
        # authenticator, as login and refresh have none.
        status = type(error).status_code
        code = error.get_codes()
        code = code if isinstance(code, str) and code in DETAILS else CODES[status]
        wait = getattr(error, "wait", None)
        limit = getattr(error, "limit", None)
        headers = rate_limit_headers(*limit, reset=wait or 1) if limit else {}
        return problem(request, status, code=code, retry_after=wait, headers=headers)
    if isinstance(error, DATABASE_AWAY):
        logger.error("%s: %s", type(error).__name__, request.path, exc_info=error)
        return problem(request, 503, retry_after=DATABASE_RETRY_AFTER)
    known = status_of(request, error)
    return problem(request, known) if known else None


def status_of(request: HttpRequest, error: Exception) -> int | None:
    for kind, status in STATUSES:
        if isinstance(error, kind):
            return status
    if has_pages(request) and isinstance(error, UNREADABLE):
        # It may also be a fault of the code, so the log tells where it was raised.
        logger.warning("%s: %s", type(error).__name__, request.path, exc_info=error)
        return 400
    return None


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Respond where a page's form lacks the token that its cookie demands."""
    return problem(request, 403, detail="This form has expired. Load the page again.")


def response_for(request: HttpRequest, error: Exception) -> HttpResponse:
    """Respond to any exception; one that is not expected is logged, and nothing of it shown."""
    if response := problem_for(request, error):
        return response
    logger.error("%s: %s", type(error).__name__, request.path, exc_info=error)
    return problem(request, 500)


def as_problem(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Replace any other response of 400 and above, such as Django's own, with its headers kept."""
    if response.status_code < 400 or is_problem(response):
        return response
    replaced = {"content-type", "content-length"}
    kept = {h: v for h, v in response.items() if h.lower() not in replaced}
    return problem(request, response.status_code, headers=kept)


def validation_problem(request: HttpRequest, error: exceptions.ValidationError) -> HttpResponse:
    errors = list(itertools.islice(field_errors(error.get_full_details()), MAXIMUM_ERRORS))
    fields = len({entry["field"] for entry in errors})
    detail = "1 field needs attention." if fields == 1 else f"{fields} fields need attention."
    return problem(request, 400, code="validation_error", detail=detail, errors=errors)


def field_errors(details: Any, field: str | None = None) -> Iterator[dict[str, str | None]]:
    """Flatten DRF's nested details; a nested field is joined by dots."""
    if isinstance(details, list):
        for entry in details:
            yield from field_errors(entry, field)
    elif isinstance(details.get("code"), str) and isinstance(details.get("message"), str):
        yield {"field": field, "code": details["code"], "detail": details["message"]}
    else:
        for name, entry in details.items():
            path = name if field is None else f"{field}.{name}"
            yield from field_errors(entry, None if name == "non_field_errors" else path)


def problem(
    request: HttpRequest,
    status: int,
    *,
    code: str = "",
    detail: str = "",
    retry_after: float | None = None,
    headers: Mapping[str, str] = {},
    **members: Any,
) -> HttpResponse:
    """Build a response of 400 or above: a problem document, or a page where people read it."""
    code = code or CODES.get(status, "server_error" if status >= 500 else "parse_error")
    title = TITLES.get(status) or http.HTTPStatus(status).phrase
    detail = detail or DETAILS[code]
    request_id = getattr(request, "id", "")
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    body |= {"code": code, **members, "request_id": request_id}
    render: Render = getattr(request, "render_problem", render_document)
    response = render(body)
    for header, value in headers.items():
        response.headers[header] = value
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if retry_after is not None:
        response.headers["Retry-After"] = str(max(1, int(retry_after)))
    return response


def render_document(body: Mapping[str, Any]) -> HttpResponse:
    return JsonResponse(body, status=body["status"], content_type="application/problem+json")


def is_problem(response: HttpResponseBase) -> bool:
    content_type = response.headers.get("Content-Type", "")
    return content_type.startswith("application/problem+json") or isinstance(response, ErrorPage)


def has_pages(request: HttpRequest) -> bool:
    """Tell whether people read the errors of this path, in HTML."""
    return hasattr(request, "render_problem")
