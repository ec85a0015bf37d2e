"""
Error responses as problem documents (RFC 9457).

The code determines the text: the text of an exception may contain a library, a path or a value. A
middleware that renders errors as HTML sets `request.render_problem`, a function from the members of
the problem document to the response.
"""

import http
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from django.core.exceptions import (
    NON_FIELD_ERRORS,
)
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from rest_framework import exceptions
from rest_framework.settings import api_settings

from api.own_errors import is_field_errors, is_own_page, own_body, own_members, own_page

logger = logging.getLogger(__name__)
Render = Callable[[Mapping[str, Any]], HttpResponse]

DETAILS = {
    "parse_error": _("The request is malformed."),
    "not_authenticated": _("The request requires a bearer token."),
    "invalid_credentials": _("The identity or the password is incorrect."),
    "token_not_valid": _("The token is not valid."),
    "permission_denied": _("You do not have permission to perform this action."),
    "password_change_required": _("The password must be changed with POST /auth/password."),
    "mfa_required": _("Prove a second factor with POST /auth/mfa."),
    "reauthentication_required": _("Sign in again for this: POST /auth/reauthenticate."),
    "origin_not_allowed": _("Pages of this origin may not refresh by cookie."),
    "email_not_verified": _("Verify the email address first: POST /users/me/email/verification."),
    "not_found": _("The requested resource does not exist."),
    "method_not_allowed": _(
        "The method is not allowed. The Allow header lists the allowed methods."
    ),
    "conflict": _("The request conflicts with another resource."),
    "length_required": _("The request requires a Content-Length header."),
    "payload_too_large": _("The body exceeds 1 MiB, or the form exceeds 192 KiB."),
    "unsupported_media_type": _(
        "The media type is not supported. Unless documented, it is application/json in UTF-8."
    ),
    "rate_limited": _("The rate limit is exceeded. Retry after Retry-After seconds."),
    "server_error": _("An internal error occurred. It is logged with this request id."),
    "service_unavailable": _("The service is temporarily unavailable. Try again later."),
}
UNKNOWN_OUTCOME = _("The database did not respond. The request may have been processed.")
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
# The names of DRF and Django for errors that concern several fields.
OF_SEVERAL_FIELDS = {api_settings.NON_FIELD_ERRORS_KEY, NON_FIELD_ERRORS}
INVALID = {400, 422}  # statuses of invalid fields
MAXIMUM_ERRORS = 20  # entries of `errors`
# The names of RFC 9110. Python before 3.13 has the names of earlier RFCs.
TITLES = {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}


class ErrorPage(HttpResponse):
    """An error response as an HTML page, built by `request.render_problem`."""


def as_problem(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """
    Replace an error response that is no problem document, such as Django's; keep its headers.

    A view's own body is kept as far as a problem document can (api.own_errors).
    """
    status = response.status_code
    if status < 400 or is_problem(response) or is_own_page(request, response):
        return response
    body = own_body(response)
    replacement = (
        validation_problem(request, exceptions.ValidationError(body), status)
        if status in INVALID and is_field_errors(body)
        else problem(request, status, **own_arguments(own_members(body)))
    )
    for header, value in response.items():
        if header.lower() not in {"content-type", "content-length"}:
            replacement.headers[header] = value
    replacement.cookies = response.cookies
    return replacement


def own_arguments(members: dict[str, Any]) -> dict[str, Any]:
    """Return the members of an app as arguments of `problem`."""
    texts: dict[str, Any] = {
        name: members.pop(name) for name in ("code", "detail") if name in members
    }
    return {**texts, "members": members}


def validation_problem(
    request: HttpRequest, error: exceptions.ValidationError, status: int | None = None
) -> HttpResponse:
    errors = list(itertools.islice(field_errors(error.get_full_details()), MAXIMUM_ERRORS))
    fields = len({entry["field"] for entry in errors})
    detail = ngettext("%d field needs attention.", "%d fields need attention.", fields) % fields
    status = status or error.status_code
    return problem(
        request, status, code="validation_error", detail=detail, members={"errors": errors}
    )


def field_errors(details: Any, field: str | None = None) -> Iterator[dict[str, str | None]]:
    """Flatten DRF's nested details; join the names of nested fields with dots."""
    if isinstance(details, list):
        for entry in details:
            yield from field_errors(entry, field)
    elif isinstance(details.get("code"), str) and isinstance(details.get("message"), str):
        yield {"field": field, "code": details["code"], "detail": details["message"]}
    else:
        for name, entry in details.items():
            path = str(name) if field is None else f"{field}.{name}"
            yield from field_errors(entry, field if name in OF_SEVERAL_FIELDS else path)


def problem(
    request: HttpRequest,
    status: int,
    *,
    code: str = "",
    detail: str | Promise = "",
    retry_after: float | None = None,
    headers: Mapping[str, str] = {},
    members: Mapping[str, Any] = {},
) -> HttpResponse:
    """
    Build an error response: a problem document, a page of the project, or that of the console.

    `members` are added to the problem document (RFC 9457, section 3.2).
    """
    code = code or code_of(status)
    title = title_of(status)
    detail = str(detail or DETAILS.get(code) or DETAILS.get(code_of(status)) or f"{title}.")
    request_id = getattr(request, "id", "")
    body: dict[str, Any] = {"type": "about:blank", "title": title, "status": status}
    body |= {"detail": detail, "code": code, **members, "request_id": request_id}
    render: Render = getattr(request, "render_problem", render_document)
    response = own_page(request, status) or render(body)
    for header, value in headers.items():
        response.headers[header] = value
    if status == 401:
        response.headers.setdefault("WWW-Authenticate", "Bearer")
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
