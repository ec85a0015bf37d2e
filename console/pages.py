"""What the console's own pages share."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.views import RedirectURLMixin, redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.generic import FormView

from api import errors, throttling


@method_decorator([never_cache, sensitive_post_parameters()], name="dispatch")
class FormPage(FormView):
    """A page with a form, whose POSTs are limited like the API's logins."""

    title: Any = ""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return rate_limit_response(request) or super().dispatch(request, *args, **kwargs)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context = {**admin.site.each_context(self.request), "title": self.title, "subtitle": None}
        return {**context, **super().get_context_data(**kwargs)}


class TargetMixin(RedirectURLMixin):
    """A page of the sign-in, which in the end leads to the page that was requested."""

    request: HttpRequest
    next_page = "admin:index"

    def with_target(self, page: str) -> str:
        """Return the URL of another page of the sign-in that leads to the same page."""
        target = self.get_redirect_url()
        query = {self.redirect_field_name: target} if target else None
        return reverse(f"admin:{page}", query=query)


def rate_limit_response(request: HttpRequest) -> HttpResponse | None:
    """Count a POST like the API's logins, and return the 429 above the limit, else None."""
    if request.method != "POST":
        return None
    usage = throttling.count(request, "auth")
    if not usage["should_limit"]:
        return None
    return errors.problem(request, 429, retry_after=usage["reset"])


def sign_in_again(request: HttpRequest) -> HttpResponse:
    """Lead to the sign-in, and from there to this page."""
    return redirect_to_login(request.get_full_path(), reverse("admin:login"))
