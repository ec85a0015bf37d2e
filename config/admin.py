from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse

from config import errors, throttling


class ConsoleSite(admin.AdminSite):
    site_title = "Latchkey"
    site_header = "Latchkey"
    index_title = "Console"
    site_url = "/api/v1/docs"
    empty_value_display = "-"

    def login(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Count attempts like the API's logins; failures are counted by the backend for both."""
        if request.method == "POST":
            usage = throttling.count(request, "auth")
            if usage["should_limit"]:
                return errors.problem(request, 429, retry_after=usage["reset"])
        return super().login(request, extra_context)
