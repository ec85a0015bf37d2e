"""The id, the log line and the duration of each request."""

import logging
import random
import re
import time

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from prometheus_client import Histogram

from api.middleware import GetResponse
from ops import logs

logger = logging.getLogger(__name__)
SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
KNOWN_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

REQUESTS = Histogram(
    "http_request_duration_seconds",
    "Requests that were answered, by how long that took.",
    ["method", "route", "status"],
)


class RequestIdMiddleware:
    """Name each request, in its answer and in every log line, and log the request itself."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        started = time.monotonic()
        given = request.headers.get("X-Request-ID", "")
        request_id = given if SANE_REQUEST_ID.fullmatch(given) else new_request_id()
        request.id = request_id  # type: ignore[attr-defined]
        # It stays until the thread's next request: what is logged after the answer is its as well.
        logs.request_id.set(request_id)
        response = self.get_response(request)
        response.headers["X-Request-ID"] = request_id
        if isinstance(response, HttpResponse):
            response.headers.setdefault("Content-Length", str(len(response.content)))
        log(request, response, time.monotonic() - started)
        return response


def new_request_id() -> str:
    """Name a request; `uuid4` would ask the kernel, and let another thread go first."""
    return f"{random.getrandbits(128):032x}"


def log(request: HttpRequest, response: HttpResponseBase, seconds: float) -> None:
    """Write the request's line and count it, by its route: a raw path is anyone's to make up."""
    method = request.method if request.method in KNOWN_METHODS else "OTHER"
    route = f"/{request.resolver_match.route}" if request.resolver_match else "-"
    REQUESTS.labels(method, route, response.status_code).observe(seconds)
    session = getattr(request, "auth", None)
    staff = getattr(request, "_cached_user", None)
    fields = {
        "method": method,
        "route": route,
        "status": response.status_code,
        "duration_ms": round(1000 * seconds, 1),
        "user_id": session.user_id if session else getattr(staff, "pk", None),
        "session_id": session and session.pk,
        "address": request.META["REMOTE_ADDR"],
    }
    text = "%(method)s %(route)s %(status)s %(duration_ms).0f ms"
    logger.info(text, fields, extra=fields)
