"""What several views of accounts respond."""

from django.conf import settings
from drf_spectacular.types import OpenApiTypes
from rest_framework import status
from rest_framework.exceptions import NotFound
from rest_framework.response import Response

# The documented body of a route that sends an email, or sends none: an empty object.
EMPTY = OpenApiTypes.OBJECT


def accepted() -> Response:
    """Return the one response of a route that sends an email, or sends none."""
    return Response({}, status=status.HTTP_202_ACCEPTED)


def require_email() -> None:
    """Raise NotFound with EMAIL_URL=none: a route that only sends emails does not exist."""
    if not settings.EMAIL_ENABLED:
        raise NotFound
