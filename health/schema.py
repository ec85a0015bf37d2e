"""The health probes in the OpenAPI document."""

from typing import Any

from api.schema import add_plain_route, error_response

CHECKS = ["database", "cache", "migrations"]
OK = {"type": "string", "enum": ["ok"]}


def add_routes(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    status = {"type": "object", "required": ["status"]}
    outcome = {"type": "string", "enum": ["ok", "degraded", "failed"]}
    check = {"type": "object", "required": ["status"], "properties": {"status": outcome}}
    checks = {"type": "object", "required": CHECKS, "properties": dict.fromkeys(CHECKS, check)}
    about = {
        "status": OK,
        "service": {"type": "string"},
        "version": {"type": "string"},
        "revision": {"type": "string"},
        "timestamp": {"type": "string", "format": "date-time"},
    }
    ready = {"status": OK, "checks": checks}
    problem = {
        "allOf": [{"$ref": "#/components/schemas/Problem"}],
        "properties": {"checks": checks},
    }
    add_plain_route(
        result,
        "health",
        "Get the version",
        "Return the name and the version of the service.",
        {**status, "properties": about},
    )
    live = {**status, "properties": {"status": OK}}
    add_plain_route(
        result, "health/live", "Check liveness", "Return 200 if the process responds.", live
    )
    operation = add_plain_route(
        result,
        "health/ready",
        "Check readiness",
        "Return 200 if the instance can serve requests, 503 otherwise.",
        {**status, "properties": ready},
    )
    operation["responses"]["503"] = error_response(503, problem, is_limited=False)
    return result
