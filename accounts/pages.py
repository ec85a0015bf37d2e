"""
The pages that emailed links lead to, for services without a front end of their own.

A GET changes nothing, because mail scanners open every link. The token is in the fragment: only
the page's script reads it. Forms call the API.
"""

from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import path
from django.views.generic import TemplateView

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class PageView(TemplateView):
    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response = super().dispatch(request, *args, **kwargs)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cache-Control"] = "no-store"
        return response


def page(name: str, template: str) -> Any:
    view = PageView.as_view(template_name=f"accounts/pages/{template}.html")
    return path(name, view, name=f"page-{name}")


urlpatterns = [
    page("reset-password", "reset_password"),
    page("verify-email", "verify_email"),
    page("register", "register"),
    page("invite", "register"),
]
