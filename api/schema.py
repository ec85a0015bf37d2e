"""Additions to the OpenAPI document: error responses, rate limits and plain Django views."""

from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ComponentRegistry, ResolvedComponent
from rest_framework.permissions import BasePermission

from api.errors import CODES, DETAILS, UNKNOWN_OUTCOME

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
        "code": {"type": "string", "enum": sorted({"validation_error", *DETAILS})},
        "errors": {"type": "array", "items": ERROR},
        "request_id": {"type": "string"},
    },
}
DESCRIPTIONS = {
    400: "The body or the query is invalid.",
    401: "The token is missing or not valid.",
    403: "The caller does not have permission.",
    404: "The resource does not exist.",
    413: DETAILS["payload_too_large"],
    415: DETAILS["unsupported_media_type"],
    429: "The rate limit is exceeded.",
    500: DETAILS["server_error"],
    503: "The database is unavailable, or all hashing slots are in use.",
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
        if operation is None:  # pragma: no cover - no operation is excluded
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
        for status in sorted(self.error_statuses(operation, is_limited)):
            responses[str(status)] = error_response(status, problem.ref, is_limited)
        return operation

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


def error_response(status: int, schema: dict[str, Any], is_limited: bool) -> dict[str, Any]:
    headers = (LIMITS if is_limited else {}) | (RETRY_AFTER if status in {429, 503} else {})
    codes = ", ".join(f"`{code}`" for code in CODES_OF_STATUS.get(status, [CODES[status]]))
    response: dict[str, Any] = {
        "description": f"{DESCRIPTIONS[status]} Code: {codes}.",
        "content": {"application/problem+json": {"schema": schema}},
    }
    return response | ({"headers": headers} if headers else {})


def add_schema_route(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    add_plain_route(
        result, "schema", "Get the schema", "Return this OpenAPI document.", {"type": "object"}
    )
    return result


def add_plain_route(
    result: dict[str, Any], path: str, summary: str, description: str, schema: dict[str, Any]
) -> dict[str, Any]:
    """Add the route of a plain Django view and return its operation."""
    operation: dict[str, Any] = {
        "operationId": path.replace("/", "_"),
        "summary": summary,
        "description": description,
        "tags": [path.partition("/")[0]],
        "responses": {
            "200": {"description": "OK", "content": {"application/json": {"schema": schema}}}
        },
    }
    result["paths"][f"/api/v1/{path}"] = {"get": operation}
    return operation
