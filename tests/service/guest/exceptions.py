from rest_framework.exceptions import APIException, PermissionDenied, ValidationError


class OrderShipped(APIException):
    status_code = 409
    default_detail = "The order has been shipped."
    default_code = "order_shipped"


class OutOfStock(APIException):
    status_code = 409
    default_detail = "The product is out of stock."
    default_code = "out_of_stock"


class PaymentRequired(APIException):
    status_code = 402
    default_detail = "The credit is used up."
    default_code = "credit_used_up"


class Gone(APIException):
    status_code = 410
    default_detail = "The order was archived."
    default_code = "order_archived"


class PreconditionFailed(APIException):
    status_code = 412
    default_detail = "The order has changed since it was read."
    default_code = "order_changed"


class Unprocessable(ValidationError):
    status_code = 422


class ClosedOnMondays(PermissionDenied):
    default_detail = "The shop is closed on Mondays."
    default_code = "closed_on_mondays"


class StaffOnly(PermissionDenied):
    default_detail = "Ask a member of the staff."
