"""What several views of accounts respond, and need."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.utils.translation import gettext_lazy as _
from rest_framework import status
from rest_framework.exceptions import APIException, NotFound
from rest_framework.permissions import AllowAny
from rest_framework.response import Response

from accounts.authentication import TokenNotValid
from accounts.models import (
    ApiTokenLimitError,
    EmailNotVerifiedError,
    PasskeyLimitError,
    SecondFactorRequiredError,
    StaleLoginError,
    User,
)
from accounts.permissions import EmailNotVerified, factor_added_since

# These routes ignore the Authorization header.
WITHOUT_TOKEN: Any = {"authentication_classes": [], "permission_classes": [AllowAny]}


class LimitReached(APIException):
    """The account has as many of these as an account may have."""

    status_code, default_code = status.HTTP_409_CONFLICT, "limit_reached"
    default_detail = _("The account has as many of these as it may have. Delete one first.")


@contextmanager
def changing_credentials(user: User) -> Iterator[None]:
    """Reject a change of factors or API tokens for which the session or the account has changed."""
    try:
        yield
    except StaleLoginError as error:
        raise TokenNotValid from error
    except SecondFactorRequiredError as error:
        raise factor_added_since(user) from error
    except EmailNotVerifiedError as error:
        raise EmailNotVerified from error
    except (ApiTokenLimitError, PasskeyLimitError) as error:
        raise LimitReached from error


def accepted() -> Response:
    """Return the one response of a route that sends an email, or sends none."""
    return Response({}, status=status.HTTP_202_ACCEPTED)


def require_email() -> None:
    """Raise NotFound with EMAIL_URL=none: a route that only sends emails does not exist."""
    if not settings.EMAIL_ENABLED:
        raise NotFound
