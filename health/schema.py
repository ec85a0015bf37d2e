"""The probes in the OpenAPI document."""

from typing import Any

from api.schema import add_plain_route, refusal

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
    add_plain_route(result, "health", "What runs here.", {**status, "properties": about})
    live = {**status, "properties": {"status": OK}}
    add_plain_route(result, "health/live", "Whether the process responds.", live)
    operation = add_plain_route(
        result, "health/ready", "Whether requests can be served.", {**status, "properties": ready}
    )
    operation["responses"]["503"] = refusal(503, problem, is_limited=False)
    return result
