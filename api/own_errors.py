"""
What becomes of an app's own error responses.

In the API their code, their detail and their other members become part of the problem document.
Elsewhere they are pages, which are kept.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import BadRequest, PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template import TemplateDoesNotExist
from django.template.loader import get_template
from django.urls import get_resolver
from django.views import defaults

from api.requests import is_api

logger = logging.getLogger(__name__)

# The members that the service determines.
RESERVED = {"type", "title", "status", "errors", "request_id"}
LONGEST_BODY = 64 * 1024  # bytes of a body that is read again
LONGEST_TEXT = 500  # characters
DEEPEST_ERRORS = 10  # serializers in serializers
# The statuses for which Django has a handler, with what the handler is told.
HANDLED = {400: BadRequest, 403: PermissionDenied, 404: Http404, 500: None}


def own_members(body: Any) -> dict[str, Any]:
    """Return the members that a body, or the detail of an exception, adds to a problem document."""
    if isinstance(body, str):
        return {"detail": body}
    if not isinstance(body, Mapping):
        return {}
    members = {str(name): value for name, value in body.items() if name not in RESERVED}
    texts = {name for name in ("code", "detail") if not isinstance(members.get(name), str)}
    return {name: value for name, value in members.items() if name not in texts}


def own_body(response: HttpResponseBase) -> Any:
    """Return the body of an error response: JSON, a text without markup, or None for any other."""
    data = getattr(response, "data", None)
    if is_field_errors(data):
        return data  # Its texts have codes.
    if not isinstance(response, HttpResponse) or len(response.content) > LONGEST_BODY:
        return None
    text = response.content.decode(errors="replace")
    if response.headers.get("Content-Type", "").partition(";")[0].endswith("json"):
        return read_json(text)
    is_text = text.isprintable() and "<" not in text and len(text) <= LONGEST_TEXT
    return text if is_text else None


def read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def is_field_errors(data: Any, depth: int = 0) -> bool:
    """Return whether a body has the shape of a serializer's `errors`: lists of texts by field."""
    if depth > DEEPEST_ERRORS or not data:
        return False
    if isinstance(data, Mapping):
        return all(
            isinstance(entry, Mapping | list) and is_field_errors(entry, depth + 1)
            for entry in data.values()
        )
    return isinstance(data, list) and all(
        isinstance(entry, str) or entry == {} or is_field_errors(entry, depth + 1) for entry in data
    )


def mark_own(response: HttpResponseBase) -> HttpResponseBase:
    response.is_own = True  # type: ignore[attr-defined]  # read by is_own_page
    return response


def is_own_page(request: HttpRequest, response: HttpResponseBase) -> bool:
    """Return whether a view outside the API and the console made this error response."""
    return getattr(response, "is_own", False) and has_own_pages(request)


def has_own_pages(request: HttpRequest) -> bool:
    return not (is_api(request.path_info) or hasattr(request, "render_problem"))


def own_page(request: HttpRequest, status: int) -> HttpResponse | None:
    """Return the project's own page for an error outside the API: of a handler or a template."""
    if status not in HANDLED or not has_own_pages(request):
        return None
    resolver = get_resolver(getattr(request, "urlconf", None))
    handler: Any = resolver.resolve_error_handler(status)
    if handler.__module__ == defaults.__name__ and not has_template(f"{status}.html"):
        return None
    kind = HANDLED[status]
    try:
        page: HttpResponse = handler(request, exception=kind()) if kind else handler(request)
    except Exception:
        logger.exception("The page for the status %s failed.", status)
        return None
    mark_own(page)
    return page


def has_template(name: str) -> bool:
    try:
        get_template(name)
    except TemplateDoesNotExist:
        return False
    return True
