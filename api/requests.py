from django.conf import settings
from django.http import HttpRequest
from rest_framework.request import Request


def django_request(request: Request | HttpRequest) -> HttpRequest:
    """Return the request of Django inside a request of DRF, which gives it no public name."""
    inner: HttpRequest = getattr(request, "_request", request)
    return inner


def is_api(path: str) -> bool:
    return path.startswith((f"/{settings.API_ROOT}", "/health/")) or path == "/health"


def is_health(path: str) -> bool:
    return path.startswith(("/health", f"/{settings.API_PATH}health"))
