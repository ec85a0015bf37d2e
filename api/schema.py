"""What the OpenAPI document adds to the serializers: rejections, limits, plain Django views."""

from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ComponentRegistry, ResolvedComponent
from rest_framework.permissions import BasePermission

from api.errors import CODES, DETAILS

ERROR = {
    "type": "object",
    "required": ["field", "code", "detail"],
    "properties": {
        "field": {
            "type": ["string", "null"],
            "description": "A field of the body or the query; null for what concerns several.",
        },
        "code": {"type": "string"},
        "detail": {"type": "string"},
    },
}
PROBLEM = {
    "type": "object",
    "description": "A refusal (RFC 9457).",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "code": {"type": "string", "enum": sorted({"validation_error", *DETAILS})},
        "errors": {"type": "array", "items": ERROR},
        "request_id": {"type": "string"},
    },
}
TITLES = {
    400: "The body or the query is not as it should be.",
    401: "There is no token, or it is not valid.",
    403: "It belongs to someone else.",
    404: "There is no such thing.",
    413: DETAILS["payload_too_large"],
    415: DETAILS["unsupported_media_type"],
    429: "Too many requests.",
    500: DETAILS["server_error"],
    503: "The database is away, or every place for hashing is taken.",
}
SEVERAL_CODES = {
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
        "description": "How many are left, and in how many seconds the window ends.",
    },
}


class ProblemAutoSchema(AutoSchema):
    """Describe how each operation refuses, as far as its shape tells."""

    def get_operation(
        self,
        path: str,
        path_regex: str,
        path_prefix: str,
        method: str,
        registry: ComponentRegistry,
    ) -> dict[str, Any] | None:
        operation = super().get_operation(path, path_regex, path_prefix, method, registry)
        if operation is None:  # pragma: no cover - what is excluded from the schema; nothing is
            return None
        problem = ResolvedComponent(
            name="Problem", type=ResolvedComponent.SCHEMA, object="Problem", schema=PROBLEM
        )
        registry.register_on_missing(problem)
        is_limited = getattr(self.view, "throttle_scope", None) is not None
        responses = operation["responses"]
        if is_limited:
            for response in responses.values():
                response["headers"] = LIMITS
        for status in sorted(self.refusals(operation, is_limited)):
            responses[str(status)] = refusal(status, problem.ref, is_limited)
        return operation

    def refusals(self, operation: dict[str, Any], is_limited: bool) -> set[int]:
        where = {parameter["in"] for parameter in operation.get("parameters", [])}
        rules = {
            400: "requestBody" in operation or "query" in where,
            401: "security" in operation or is_limited,
            403: "path" in where and self.method != "GET" and self.asks_for_objects(),
            404: "path" in where or "query" in where,
            413: self.method != "GET",
            415: "requestBody" in operation,
            429: is_limited,
            500: True,
            503: True,
        }
        return {status for status, applies in rules.items() if applies}

    def asks_for_objects(self) -> bool:
        asking = (
            type(permission).has_object_permission for permission in self.view.get_permissions()
        )
        return any(method is not BasePermission.has_object_permission for method in asking)


def refusal(status: int, schema: dict[str, Any], is_limited: bool) -> dict[str, Any]:
    headers = (LIMITS if is_limited else {}) | (RETRY_AFTER if status in {429, 503} else {})
    codes = ", ".join(f"`{code}`" for code in SEVERAL_CODES.get(status, [CODES[status]]))
    response: dict[str, Any] = {
        "description": f"{TITLES[status]} Code: {codes}.",
        "content": {"application/problem+json": {"schema": schema}},
    }
    return response | ({"headers": headers} if headers else {})


def add_schema_route(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    add_plain_route(result, "schema", "This document.", {"type": "object"})
    return result


def add_plain_route(
    result: dict[str, Any], path: str, description: str, schema: dict[str, Any]
) -> dict[str, Any]:
    """Add a route that a plain Django view serves, and return its operation."""
    operation: dict[str, Any] = {
        "operationId": path.replace("/", "_"),
        "description": description,
        "tags": [path.partition("/")[0]],
        "responses": {
            "200": {"description": "", "content": {"application/json": {"schema": schema}}}
        },
    }
    result["paths"][f"/api/v1/{path}"] = {"get": operation}
    return operation
