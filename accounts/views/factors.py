"""The caller's second factors."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import status, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.failures import counting_enrolment
from accounts.models import User, WrongCodeError
from accounts.models.totp import uri_of
from accounts.permissions import IsFresh, IsVerified
from accounts.serializers.factors import (
    FirstRecoveryCodesSerializer,
    RecoveryCodesSerializer,
    TOTPConfirmationSerializer,
    TOTPSerializer,
)
from accounts.serializers.fields import wrong_code
from accounts.views.responses import changing_credentials


@extend_schema(tags=["users"])
class FactorViewSet(viewsets.GenericViewSet[User]):
    """Add and remove the caller's second factors."""

    permission_classes = [IsAuthenticated, IsFresh]

    @property
    def throttle_scope(self) -> str | None:
        # A code can be guessed, and new recovery codes send an email.
        return "auth" if self.action in {"totp_confirm", "recovery_codes"} else None

    def get_permissions(self) -> list[Any]:
        verified = [IsVerified()] if self.action == "totp" else []
        return [*super().get_permissions(), *verified]

    @extend_schema(
        operation_id="users_me_totp", request=None, responses={201: TOTPSerializer, 403: None}
    )
    @action(["POST"], False)
    def totp(self, request: Request) -> Response:
        """
        Begin to add an authenticator app: return its secret.

        It is inactive until `/users/me/totp/confirm` gets a code of it, within ten minutes. The
        newest secret counts. The token must be fresh, and the address verified.
        """
        user: Any = request.user
        with changing_credentials(user):
            secret = user.begin_totp(session=request.auth)
        return created({"secret": secret, "uri": uri_of(secret, user)})

    @extend_schema(operation_id="users_me_totp_delete", responses={204: None, 403: None, 404: None})
    @totp.mapping.delete
    def remove_totp(self, request: Request) -> Response:
        """
        Remove the authenticator app.

        With the last factor the recovery codes are removed too. The token must be fresh.
        """
        user: Any = request.user
        with changing_credentials(user):
            if not user.remove_totp(session=request.auth):
                raise NotFound
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(
        operation_id="users_me_totp_confirm",
        request=TOTPConfirmationSerializer,
        responses={200: FirstRecoveryCodesSerializer, 403: None},
    )
    @action(["POST"], False, url_path="totp/confirm")
    def totp_confirm(self, request: Request) -> Response:
        """
        Activate the authenticator app with a code of it; it replaces an earlier one.

        Recovery codes come with the first factor only. The caller's other sessions end, unless they
        were signed in with a second factor. The token must be fresh.
        """
        serializer = TOTPConfirmationSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        user: Any = request.user
        try:
            with changing_credentials(user), counting_enrolment(user, request.META["REMOTE_ADDR"]):
                codes = user.confirm_totp(serializer.validated_data["code"], session=request.auth)
        except WrongCodeError as error:
            raise ValidationError({"code": [wrong_code()]}) from error
        return Response({"recovery_codes": codes})

    @extend_schema(
        operation_id="users_me_recovery_codes",
        request=None,
        responses={201: RecoveryCodesSerializer, 403: None, 404: None},
    )
    @action(["POST"], False, url_path="recovery-codes")
    def recovery_codes(self, request: Request) -> Response:
        """
        Return ten new recovery codes; the old ones become invalid.

        They can never be read again. The token must be fresh.
        """
        user: Any = request.user
        with changing_credentials(user):
            codes = user.replace_recovery_codes(session=request.auth)
        if not codes:
            raise NotFound
        return created({"recovery_codes": codes})


def created(body: dict[str, Any]) -> Response:
    return Response(body, status=status.HTTP_201_CREATED)
