"""
Error responses as problem documents (RFC 9457).

`exception_handler` handles the exceptions of DRF's views, `ProblemMiddleware` all others. The code
determines the text: the text of an exception may contain a library, a path or a value. A middleware
that renders errors as HTML sets `request.render_problem`, a function from the members of the
problem document to the response.
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

from api.throttling import count, rate_limit_headers

logger = logging.getLogger(__name__)
Render = Callable[[Mapping[str, Any]], HttpResponse]

DETAILS = {
    "parse_error": "The request is malformed.",
    "not_authenticated": "The request requires a bearer token.",
    "invalid_credentials": "The identity or the password is incorrect.",
    "token_not_valid": "The token is not valid.",
    "permission_denied": "You do not have permission to perform this action.",
    "password_change_required": "The password must be changed with POST /auth/password.",
    "not_found": "The requested resource does not exist.",
    "method_not_allowed": "The method is not allowed. The Allow header lists the allowed methods.",
    "conflict": "The resource cannot be deleted because others refer to it.",
    "length_required": "The request requires a Content-Length header.",
    "payload_too_large": "The body exceeds 1 MiB, or the form exceeds 192 KiB.",
    "unsupported_media_type": "The body must be application/json in UTF-8.",
    "rate_limited": "The rate limit is exceeded. Retry after Retry-After seconds.",
    "server_error": "An internal error occurred. It is logged with this request id.",
    "service_unavailable": "The service is temporarily unavailable. Try again later.",
}
UNKNOWN_OUTCOME = "The database did not respond. The request may have been processed."
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
    502: "server_error",
    503: "service_unavailable",
    504: "server_error",
}
# The codes of DRF for which the contract has others.
DRF_CODES = frozenset({"authentication_failed", "error", "invalid", "not_acceptable", "throttled"})
# DRF writes the texts of these itself, from what a client sent.
DRF_TEXTS = (
    exceptions.MethodNotAllowed,
    exceptions.NotAcceptable,
    exceptions.ParseError,
    exceptions.Throttled,
    exceptions.UnsupportedMediaType,
)
MAXIMUM_ERRORS = 20  # entries of `errors`
# The names of RFC 9110. Python before 3.13 has the names of earlier RFCs.
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
# PostgreSQL is unavailable, out of connections, too slow or (InternalError) read-only.
DATABASE_ERRORS = (OperationalError, InterfaceError, InternalError)
DATABASE_RETRY_AFTER = 2
OUTCOME_UNKNOWN = "40003"  # SQLSTATE statement_completion_unknown, raised by ops.database
# Django's admin raises these for a query, a selection or a cookie that does not fit its column.
INPUT_ERRORS = (DataError, FieldError, OverflowError, ValidationError, ValueError)


class ErrorPage(HttpResponse):
    """An error response as an HTML page, built by `request.render_problem`."""


def exception_handler(error: Exception, context: Mapping[str, Any]) -> HttpResponse | None:
    """Return the response to an exception of a DRF view, or None if the exception is unexpected."""
    request = context["request"]._request
    scope = getattr(context["view"], "throttle_scope", None)
    if scope and isinstance(error, exceptions.AuthenticationFailed):
        error = count_rejected(request, error)
    return problem_for(request, error)


def count_rejected(request: HttpRequest, error: Exception) -> Exception:
    """
    Count a request that is rejected before its view, and return what it is rejected with.

    DRF authenticates before it throttles, so a token that is not valid would not be counted. The
    credentials of a body are verified after it was.
    """
    if hasattr(request, "rate_limit"):
        return error
    usage = count(request, "auth")
    return exceptions.Throttled(wait=usage["reset"]) if usage["should_limit"] else error


def problem_for(request: HttpRequest, error: Exception) -> HttpResponse | None:
    """Return the problem document of an expected exception, or None for any other."""
    if isinstance(error, exceptions.ValidationError):
        return validation_problem(request, error)
    if isinstance(error, exceptions.APIException):
        return api_problem(request, error)
    if isinstance(error, DATABASE_ERRORS):
        return database_problem(request, error)
    known = status_of(request, error)
    return problem(request, known) if known else None


def database_problem(request: HttpRequest, error: Exception) -> HttpResponse:
    """Return a 503 if nothing was done, or a 504 if a write may have been committed."""
    logger.error("%s: %s", type(error).__name__, request.path, exc_info=error)
    if is_outcome_unknown(error):
        # Clients repeat any request after a 503, but after a 504 only what they may do twice.
        return problem(request, 504, detail=UNKNOWN_OUTCOME)
    return problem(request, 503, retry_after=DATABASE_RETRY_AFTER)


def is_outcome_unknown(error: BaseException | None) -> bool:
    """Return whether an error, or one during whose handling it was raised, says so."""
    while error and getattr(error, "sqlstate", None) != OUTCOME_UNKNOWN:
        error = error.__cause__ or error.__context__
    return error is not None


def api_problem(request: HttpRequest, error: exceptions.APIException) -> HttpResponse:
    """Return an API exception's status, with the code and the detail that an app gave it."""
    # DRF changes the status of an instance from 401 to 403 if the view has no authenticator, as in
    # login and refresh. The class keeps the status.
    status = 401 if type(error).status_code == 401 else error.status_code
    code = error.get_codes()
    if not isinstance(code, str) or code in DRF_CODES:
        code = code_of(status)
    is_default = str(error.detail) == str(type(error).default_detail)
    is_own = isinstance(error.detail, str) and not isinstance(error, DRF_TEXTS)
    detail = str(error.detail) if is_own and not (is_default and code in DETAILS) else ""
    wait = getattr(error, "wait", None)
    limit = getattr(error, "limit", None)
    headers = rate_limit_headers(*limit, reset=wait or 1) if limit else {}
    return problem(request, status, code=code, detail=detail, retry_after=wait, headers=headers)


def status_of(request: HttpRequest, error: Exception) -> int | None:
    for error_type, status in STATUSES:
        if isinstance(error, error_type):
            return status
    if has_pages(request) and isinstance(error, INPUT_ERRORS):
        # The cause may also be a defect in the code, so the traceback is logged.
        logger.warning("%s: %s", type(error).__name__, request.path, exc_info=error)
        return 400
    return None


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Return the response to a form whose CSRF token is missing or expired."""
    return problem(request, 403, detail="This form has expired. Reload the page.")


def response_for(request: HttpRequest, error: Exception) -> HttpResponse:
    """Return the response to any exception; log an unexpected one without disclosing it."""
    if response := problem_for(request, error):
        return response
    logger.error("%s: %s", type(error).__name__, request.path, exc_info=error)
    return problem(request, 500)


def as_problem(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """
    Replace an error response that is no problem document, such as Django's; keep its headers.

    The `code` and the `detail` of a DRF response's own body are kept.
    """
    if response.status_code < 400 or is_problem(response):
        return response
    replaced = {"content-type", "content-length"}
    kept = {h: v for h, v in response.items() if h.lower() not in replaced}
    data = getattr(response, "data", None)
    own = {name: data.get(name) for name in ("code", "detail")} if isinstance(data, Mapping) else {}
    texts: Any = {name: text for name, text in own.items() if isinstance(text, str)}
    return problem(request, response.status_code, headers=kept, **texts)


def validation_problem(request: HttpRequest, error: exceptions.ValidationError) -> HttpResponse:
    errors = list(itertools.islice(field_errors(error.get_full_details()), MAXIMUM_ERRORS))
    fields = len({entry["field"] for entry in errors})
    detail = "1 field needs attention." if fields == 1 else f"{fields} fields need attention."
    return problem(request, 400, code="validation_error", detail=detail, errors=errors)


def field_errors(details: Any, field: str | None = None) -> Iterator[dict[str, str | None]]:
    """Flatten DRF's nested details; join the names of nested fields with dots."""
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
    """Build an error response: a problem document, or the page of `request.render_problem`."""
    code = code or code_of(status)
    title = title_of(status)
    detail = detail or DETAILS.get(code, f"{title}.")
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


def title_of(status: int) -> str:
    """Return the name of a status, of its class if it has none."""
    if status in TITLES:
        return TITLES[status]
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Client Error" if status < 500 else "Server Error"


def code_of(status: int) -> str:
    """Return the code of a status that no exception and no view gave one."""
    return CODES.get(status) or title_of(status).lower().replace(" ", "_").replace("-", "_")


def render_document(body: Mapping[str, Any]) -> HttpResponse:
    return JsonResponse(body, status=body["status"], content_type="application/problem+json")


def is_problem(response: HttpResponseBase) -> bool:
    content_type = response.headers.get("Content-Type", "")
    return content_type.startswith("application/problem+json") or isinstance(response, ErrorPage)


def has_pages(request: HttpRequest) -> bool:
    """Return whether errors of this request are rendered as HTML pages."""
    return hasattr(request, "render_problem")
