from collections.abc import Callable

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from accounts.models.events import Origin, origin


def remember_origin(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Set the origin of the events of a request: the user, the address and the device."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        here = Origin(
            user=lambda: request.user,
            address=request.META["REMOTE_ADDR"],
            user_agent=request.headers.get("User-Agent", ""),
            request_id=getattr(request, "id", ""),
        )
        token = origin.set(here)
        try:
            return get_response(request)
        finally:
            origin.reset(token)

    return middleware
