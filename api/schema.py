"""
Additions to the OpenAPI document: error responses, rate limits and plain Django views.

An app documents its own errors where it documents an operation:
`@extend_schema(responses={200: OrderSerializer, **problems(OutOfStock, OrderClosed)})`.
"""

from typing import Any

from django.conf import settings
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ComponentRegistry, ResolvedComponent
from drf_spectacular.utils import OpenApiResponse
from rest_framework.exceptions import APIException
from rest_framework.permissions import BasePermission

from api.errors import CODES, DETAILS, UNKNOWN_OUTCOME
from api.throttling import RATES

ERROR = {
    "type": "object",
    "required": ["field", "code", "detail"],
    "properties": {
        "field": {
            "type": ["string", "null"],
            "description": "A field of the body or the query; null for an error of several.",
        },
        "code": {"type": "string"},
        "detail": {"type": "string"},
    },
}
PROBLEM = {
    "type": "object",
    "description": "An error response (RFC 9457).",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "code": {
            "type": "string",
            "description": "Stable. An operation may have codes of its own.",
            "examples": sorted({"validation_error", *DETAILS}),
        },
        "errors": {"type": "array", "items": ERROR},
        "request_id": {"type": "string"},
    },
}
PROBLEM_TYPE = "application/problem+json"
PROBLEM_REFERENCE = {"$ref": "#/components/schemas/Problem"}
DESCRIPTIONS = {
    400: "The body or the query is invalid.",
    401: "The token is missing or not valid.",
    403: "The caller does not have permission.",
    404: "The resource does not exist.",
    413: DETAILS["payload_too_large"],
    415: DETAILS["unsupported_media_type"],
    429: "The rate limit is exceeded.",
    500: DETAILS["server_error"],
    503: "The database is unavailable, or all slots for hashing or exports are in use.",
    504: UNKNOWN_OUTCOME,
}
CODES_OF_STATUS = {
    400: ["validation_error", "parse_error"],
    401: ["not_authenticated", "token_not_valid", "invalid_credentials"],
}
RETRY_AFTER = {
    "Retry-After": {
        "schema": {"type": "integer", "minimum": 1},
        "description": "Seconds to wait.",
    }
}
LIMITS = {
    "RateLimit-Policy": {
        "schema": {"type": "string"},
        "example": '"auth";q=5;w=60',
        "description": "The limit's name, its quota and its window in seconds.",
    },
    "RateLimit": {
        "schema": {"type": "string"},
        "example": '"auth";r=4;t=30',
        "description": "The requests left, and the seconds until the window ends.",
    },
}


class ProblemAutoSchema(AutoSchema):
    """Describe the error responses of each operation."""

    def get_operation(
        self,
        path: str,
        path_regex: str,
        path_prefix: str,
        method: str,
        registry: ComponentRegistry,
    ) -> dict[str, Any] | None:
        operation = super().get_operation(path, path_regex, path_prefix, method, registry)
        if operation is None:
            return None
        problem = ResolvedComponent(
            name="Problem", type=ResolvedComponent.SCHEMA, object="Problem", schema=PROBLEM
        )
        registry.register_on_missing(problem)
        is_limited = getattr(self.view, "throttle_scope", None) in RATES
        responses = operation["responses"]
        if is_limited:
            for response in responses.values():
                response["headers"] = response.get("headers", {}) | LIMITS
        # An operation documents a status of the shared codes without a body: `404: None`.
        declared = {int(s) for s in responses if int(s) >= 400 and "content" not in responses[s]}
        for status in declared:
            del responses[str(status)]
        for status in sorted(declared | self.error_statuses(operation, is_limited)):
            add_response(responses, str(status), error_response(status, problem.ref, is_limited))
        return operation

    def get_summary(self) -> str | None:
        """Return the first sentence of an operation's description, unless a view declares one."""
        first = self.get_description().partition("\n\n")[0].replace("\n", " ")
        return first.removesuffix(".") or None

    def error_statuses(self, operation: dict[str, Any], is_limited: bool) -> set[int]:
        where = {parameter["in"] for parameter in operation.get("parameters", [])}
        rules = {
            400: "requestBody" in operation or "query" in where,
            401: "security" in operation or is_limited,
            403: "path" in where and self.method != "GET" and self.checks_objects(),
            404: "path" in where or "query" in where,
            413: self.method != "GET",
            415: "requestBody" in operation,
            429: is_limited,
            500: True,
            503: True,
            504: self.method != "GET",
        }
        return {status for status, applies in rules.items() if applies}

    def checks_objects(self) -> bool:
        asking = (
            type(permission).has_object_permission for permission in self.view.get_permissions()
        )
        return any(method is not BasePermission.has_object_permission for method in asking)


def problems(
    *errors: type[APIException],
) -> dict[tuple[int, str], OpenApiResponse]:
    """Return the responses to an app's own exceptions, by status, for `extend_schema`."""
    statuses: dict[int, list[str]] = {}
    for error in errors:
        text = f"{error.default_detail} Code: `{error.default_code}`."
        statuses.setdefault(error.status_code, []).append(text)
    return {
        (status, PROBLEM_TYPE): OpenApiResponse(PROBLEM_REFERENCE, " ".join(texts))
        for status, texts in statuses.items()
    }


def add_response(responses: dict[str, Any], status: str, response: dict[str, Any]) -> None:
    """Add an error response; an app's own description of the same status comes first."""
    own = responses.get(status, {})
    texts = [own.get("description"), response["description"]]
    responses[status] = response | own | {"description": " ".join(filter(None, texts))}


def error_response(status: int, schema: dict[str, Any], is_limited: bool) -> dict[str, Any]:
    headers = (LIMITS if is_limited else {}) | (RETRY_AFTER if status in {429, 503} else {})
    codes = ", ".join(f"`{code}`" for code in CODES_OF_STATUS.get(status, [CODES[status]]))
    response: dict[str, Any] = {
        "description": f"{DESCRIPTIONS[status]} Code: {codes}.",
        "content": {PROBLEM_TYPE: {"schema": schema}},
    }
    return response | ({"headers": headers} if headers else {})


def add_own_routes(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Add the index and the schema."""
    names = ["service", "version", "documentation", "schema"]
    index = {
        "type": "object",
        "required": names,
        "properties": {name: {"type": "string"} for name in names},
    }
    add_plain_route(result, "", "Get the index", "Return the paths of the documentation.", index)
    add_plain_route(
        result, "schema", "Get the schema", "Return this OpenAPI document.", {"type": "object"}
    )
    return result


def add_plain_route(
    result: dict[str, Any], path: str, summary: str, description: str, schema: dict[str, Any]
) -> dict[str, Any]:
    """Add the route of a plain Django view and return its operation."""
    operation: dict[str, Any] = {
        "operationId": path.replace("/", "_") or "index",
        "summary": summary,
        "description": description,
        "tags": [path.partition("/")[0] or "index"],
        "responses": {
            "200": {"description": "OK", "content": {"application/json": {"schema": schema}}}
        },
    }
    result["paths"][f"/{settings.API_PATH}{path}".rstrip("/")] = {"get": operation}
    return operation
