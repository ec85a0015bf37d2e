"""What an app raises or returns reaches the client with the app's status, code and detail."""

from typing import Any

import pytest
from django.urls import path
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.test import APIClient
from rest_framework.views import APIView


class OutOfStock(exceptions.APIException):
    status_code = 409
    default_code = "out_of_stock"
    default_detail = "The product is out of stock."


class PaymentRequired(exceptions.APIException):
    status_code = 402


def with_status(status: int) -> exceptions.APIException:
    error = exceptions.APIException("Gone.", code="moved_on")
    error.status_code = status
    return error


RAISED: dict[str, tuple[Exception, int, str, str]] = {
    "own": (OutOfStock(), 409, "out_of_stock", "The product is out of stock."),
    "own-text": (OutOfStock("Two are left."), 409, "out_of_stock", "Two are left."),
    "own-code": (OutOfStock(code="sold"), 409, "sold", "The product is out of stock."),
    "own-status": (PaymentRequired("Pay."), 402, "payment_required", "Pay."),
    "instance": (with_status(410), 410, "moved_on", "Gone."),
    "unnamed": (with_status(499), 499, "moved_on", "Gone."),
    "five": (with_status(599), 599, "moved_on", "Gone."),
    "forbidden": (
        exceptions.PermissionDenied("Ask the owner.", code="not_invited"),
        403,
        "not_invited",
        "Ask the owner.",
    ),
    "forbidden-text": (exceptions.PermissionDenied("No."), 403, "permission_denied", "No."),
    "missing": (exceptions.NotFound("No order."), 404, "not_found", "No order."),
    "default": (
        exceptions.NotFound(),
        404,
        "not_found",
        "The requested resource does not exist.",
    ),
    "parser": (exceptions.ParseError("No number."), 400, "parse_error", "No number."),
    "nested": (OutOfStock({"a": ["b"]}), 409, "conflict", ""),
}
RETURNED: dict[str, tuple[Any, int, str, str]] = {
    "body": ({"code": "locked_out", "detail": "Locked."}, 423, "locked_out", "Locked."),
    "none": (None, 422, "unprocessable_content", "Unprocessable Content."),
    "list": (["a"], 409, "conflict", "The request conflicts with another resource."),
    "unknown": ({"code": 5}, 499, "client_error", "Client Error."),
}


class Raising(APIView):
    authentication_classes: list[Any] = []
    permission_classes: list[Any] = []

    def get(self, request: Request, name: str) -> Response:
        raise RAISED[name][0]


class Returning(Raising):
    def get(self, request: Request, name: str) -> Response:
        data, status, *_ = RETURNED[name]
        return Response(data, status)


urlpatterns = [
    path("api/v1/raised/<name>", Raising.as_view()),
    path("api/v1/returned/<name>", Returning.as_view()),
]
CASES = [("raised", name, *case[1:]) for name, case in RAISED.items()]
CASES += [("returned", name, *case[1:]) for name, case in RETURNED.items()]


@pytest.mark.urls(__name__)
@pytest.mark.parametrize(("route", "name", "status", "code", "detail"), CASES)
def test_an_app_has_its_own_status_code_and_detail(
    client: APIClient, route: str, name: str, status: int, code: str, detail: str
) -> None:
    response = client.get(f"/api/v1/{route}/{name}")

    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["detail"] == (detail or problem["detail"])
    assert problem["title"]
