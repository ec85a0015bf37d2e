"""
The responses to exceptions of views, of the ORM and of Django.

`exception_handler` handles the exceptions of DRF's views, `ProblemMiddleware` all others.
"""

import logging
import traceback
from collections.abc import Mapping
from typing import Any

import psycopg
from django.core.exceptions import (
    BadRequest,
    FieldError,
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
    ValidationError,
)
from django.db import DataError, IntegrityError, InterfaceError, InternalError, OperationalError
from django.db.models import ProtectedError, RestrictedError
from django.http import Http404, HttpRequest, HttpResponse
from django.http.request import UnreadablePostError
from django.utils.translation import gettext as _
from rest_framework import exceptions
from rest_framework.fields import get_error_detail

from api.errors import (
    UNKNOWN_OUTCOME,
    code_of,
    has_pages,
    own_arguments,
    problem,
    validation_problem,
)
from api.own_errors import own_members
from api.requests import django_request
from api.throttling import RATES, count, rate_limit_headers

logger = logging.getLogger(__name__)

# The codes of DRF for which the contract has others.
DRF_CODES = frozenset({"authentication_failed", "error", "invalid", "not_acceptable", "throttled"})
# DRF writes the texts of these itself, from what a client sent.
DRF_TEXTS = (
    exceptions.MethodNotAllowed,
    exceptions.NotAcceptable,
    exceptions.Throttled,
    exceptions.UnsupportedMediaType,
)
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
# The libraries whose texts may name a model, a path or what a client sent.
LIBRARIES = ("django.", "rest_framework.")
# Django's admin raises these for a query, a selection or a cookie that does not fit its column.
INPUT_ERRORS = (DataError, FieldError, OverflowError, ValidationError, ValueError)
# SQLSTATEs of values that a constraint rejects by themselves. Others conflict with other rows.
INVALID_VALUES = {
    psycopg.errors.NotNullViolation.sqlstate,
    psycopg.errors.CheckViolation.sqlstate,
}


def exception_handler(error: Exception, context: Mapping[str, Any]) -> HttpResponse | None:
    """Return the response to an exception of a DRF view, or None if the exception is unexpected."""
    request = django_request(context["request"])
    is_limited = getattr(context["view"], "throttle_scope", None) in RATES
    if is_limited and isinstance(error, exceptions.AuthenticationFailed):
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
    if isinstance(error, ValidationError) and not has_pages(request):
        error = exceptions.ValidationError(get_error_detail(error))
    if isinstance(error, exceptions.ValidationError):
        return validation_problem(request, error)
    if isinstance(error, exceptions.APIException):
        return api_problem(request, error)
    if isinstance(error, DATABASE_ERRORS):
        return database_problem(request, error)
    if status := status_of(request, error):
        return problem(request, status, detail=own_text(request, error))
    return integrity_problem(request, error) if isinstance(error, IntegrityError) else None


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
    """Return an API exception's status, with the code, detail and `members` that an app gave it."""
    # DRF changes the status of an instance from 401 to 403 if the view has no authenticator, as in
    # login and refresh. The class keeps the status.
    status = 401 if type(error).status_code == 401 else error.status_code
    code = error.get_codes()
    if not isinstance(code, str) or code in DRF_CODES:
        code = code_of(status)
    own = {"code": code, **own_members(error.detail), **getattr(error, "members", {})}
    if has_text_of_drf(error):
        own.pop("detail", None)
    wait, limit = getattr(error, "wait", None), getattr(error, "limit", None)
    headers = rate_limit_headers(*limit, reset=wait or 1) if limit else {}
    if header := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = header
    return problem(request, status, **own_arguments(own), retry_after=wait, headers=headers)


def has_text_of_drf(error: exceptions.APIException) -> bool:
    """Return whether DRF wrote the text of an exception, which may repeat what a client sent."""
    if isinstance(error, DRF_TEXTS):
        return True
    if isinstance(error, exceptions.ParseError) and raising_module(error).startswith(LIBRARIES):
        return True
    author: Any = next(base for base in type(error).__mro__ if "default_detail" in vars(base))
    is_default = str(error.detail) == str(author.default_detail)
    return is_default and author.__module__.startswith(LIBRARIES)


def integrity_problem(request: HttpRequest, error: IntegrityError) -> HttpResponse:
    """Return a 400 for values that a constraint rejects, and a 409 for a conflict with a row."""
    log_integrity_error(request, error)
    if not is_invalid_value(error):
        return problem(request, 409)
    detail = exceptions.ErrorDetail(_("The values violate a rule of the database."), code="invalid")
    return validation_problem(request, exceptions.ValidationError([detail]))


def log_integrity_error(request: HttpRequest, error: IntegrityError) -> None:
    # The message of PostgreSQL would contain the values.
    constraint = getattr(getattr(error.__cause__, "diag", None), "constraint_name", None)
    logger.warning("IntegrityError: %s (%s)", request.path, constraint or "not null")


def status_of(request: HttpRequest, error: Exception) -> int | None:
    for error_type, status in STATUSES:
        if isinstance(error, error_type):
            return status
    is_page_input = has_pages(request) and isinstance(error, INPUT_ERRORS)
    if is_page_input or is_input_error(error, request.META.get("QUERY_STRING", "")):
        # The cause may also be a defect in the code, so the traceback is logged.
        logger.warning("%s: %s", type(error).__name__, request.path, exc_info=error)
        return 400
    return None


def own_text(request: HttpRequest, error: Exception) -> str:
    """Return the text that an app gave Django's 403 or 404, or the reason of a blocked deletion."""
    if isinstance(error, ProtectedError | RestrictedError):
        return _("The resource cannot be deleted because others refer to it.")
    text = error.args[0] if isinstance(error, Http404 | PermissionDenied) and error.args else ""
    is_own = not raising_module(error).startswith(LIBRARIES) and not has_pages(request)
    return text if is_own and isinstance(text, str) else ""


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Return the response to a form whose CSRF token is missing or expired."""
    return problem(request, 403, detail=_("This form has expired. Reload the page."))


def response_for(request: HttpRequest, error: Exception) -> HttpResponse:
    """Return the response to any exception; log an unexpected one without disclosing it."""
    if response := problem_for(request, error):
        return response
    logger.error("%s: %s", type(error).__name__, request.path, exc_info=error)
    return problem(request, 500)


def raising_module(error: BaseException) -> str:
    """Return the name of the module that raised an exception, or an empty string."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return str(frames[-1].f_globals["__name__"]) if frames else ""


def is_invalid_value(error: IntegrityError) -> bool:
    return getattr(error.__cause__, "sqlstate", None) in INVALID_VALUES


def is_input_error(error: Exception, query: str) -> bool:
    """
    Return whether an exception was probably caused by a value that a client sent.

    The database cannot store or compare the value, the ORM does not know a field that the query
    string may name, or the value is not of its field's kind. Python rejects JSON that is nested too
    deeply.
    """
    if isinstance(error, DataError) or (isinstance(error, FieldError) and query):
        return True
    module = raising_module(error)
    if isinstance(error, RecursionError):
        return module.startswith("json.")
    is_conversion = isinstance(error, ValueError | TypeError | OverflowError)
    return is_conversion and module.startswith("django.db.models.fields")
