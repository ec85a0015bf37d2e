from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema

ACCESS_TOKEN = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
API_TOKEN = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "API token",
    "description": "A token of `POST /users/me/tokens`. With the scope `read` it allows safe "
    "methods only. Operations that do not list it respond with 403 `permission_denied`.",
}


class BearerScheme(OpenApiAuthenticationExtension):
    """Access tokens for every operation, API tokens for those of views that accept them."""

    target_class = "accounts.authentication.BearerAuthentication"
    name = ["bearer", "apiToken"]

    def get_security_requirement(self, auto_schema: AutoSchema) -> list[dict[str, list[Any]]]:
        is_allowed = getattr(auto_schema.view, "allows_api_tokens", False)
        return [{name: []} for name in (self.name if is_allowed else self.name[:1])]

    def get_security_definition(self, auto_schema: AutoSchema) -> list[dict[str, Any]]:
        return [ACCESS_TOKEN, API_TOKEN]
