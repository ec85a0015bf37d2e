"""The id, the log line and the duration metric of each request."""

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
VALID_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
KNOWN_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

REQUESTS = Histogram(
    "http_request_duration_seconds",
    "Duration of HTTP requests in seconds.",
    ["method", "route", "status"],
)


class RequestIdMiddleware:
    """Add a request id to the response and to every log line, and log each request."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        started = time.monotonic()
        given = request.headers.get("X-Request-ID", "")
        request_id = given if VALID_REQUEST_ID.fullmatch(given) else new_request_id()
        request.id = request_id  # type: ignore[attr-defined]  # read by api.errors
        # It is not reset, so that lines after the response have the id too.
        logs.request_id.set(request_id)
        response = self.get_response(request)
        response.headers["X-Request-ID"] = request_id
        if isinstance(response, HttpResponse):
            response.headers.setdefault("Content-Length", str(len(response.content)))
            if request.method == "HEAD":  # gunicorn drops a body too, with a warning for each.
                response.content = b""
        log(request, response, time.monotonic() - started)
        return response


def new_request_id() -> str:
    """Return a random id. `uuid4` makes a system call, which yields to other threads."""
    return f"{random.getrandbits(128):032x}"


def log(request: HttpRequest, response: HttpResponseBase, seconds: float) -> None:
    """Log and count a request by its route, because clients can send any number of paths."""
    method = request.method if request.method in KNOWN_METHODS else "OTHER"
    route = f"/{request.resolver_match.route}" if request.resolver_match else "-"
    REQUESTS.labels(method, route, response.status_code).observe(seconds)
    auth = getattr(request, "auth", None)  # An app's own authentication may set anything.
    fields = {
        "method": method,
        "route": route,
        "status": response.status_code,
        "duration_ms": round(1000 * seconds, 1),
        # A page has the second. It is set when the user is read: a log line reads no session.
        "user_id": getattr(auth, "user_id", getattr(request, "user_id", None)),
        "session_id": getattr(auth, "session_id", None),
        "api_token_id": getattr(auth, "api_token_id", None),
        "address": request.META["REMOTE_ADDR"],
    }
    text = "%(method)s %(route)s %(status)s %(duration_ms).0f ms"
    logger.info(text, fields, extra=fields)
