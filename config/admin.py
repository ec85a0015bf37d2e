"""The staff console: Django's admin site, with a first page and a sign-in of its own."""

import functools
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse

from accounts.models import Event
from config import errors, pagination, throttling
from config.dashboard import dashboard
from config.search import indexed
from config.sign_in import PasswordView, SignInForm


class BoundedPaginator(Paginator):
    """Pages of a table of any size: what lies beyond is for a search or a filter to find."""

    @functools.cached_property
    def count(self) -> int:
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]
        return min(pagination.bounded_count(rows), pagination.MAXIMUM_COUNT)


class BoundedAdmin(admin.ModelAdmin):
    paginator = BoundedPaginator
    show_full_result_count = False

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Read a bounded number of rows, as the API does, where the queryset has the conditions."""
        if not hasattr(queryset, "search_conditions"):
            return super().get_search_results(request, queryset, search_term)
        try:
            conditions = queryset.search_conditions(search_term)
        except ValidationError as error:
            messages.warning(request, error.message)
            return queryset.none(), False
        if conditions is None:
            return queryset, False
        found = indexed(queryset, conditions)
        if found.is_capped:
            messages.warning(request, "More rows match than are shown. Add a word.")
        return queryset.filter(pk__in=found.pks), False


class ConsoleSite(admin.AdminSite):
    site_title = "Latchkey"
    site_header = "Latchkey"
    index_title = "Console"
    site_url = "/api/v1/docs"
    empty_value_display = "-"
    enable_nav_sidebar = False  # There are five lists, and the first page has them.
    login_form = SignInForm

    def register(
        self,
        model_or_iterable: Any,
        admin_class: type[admin.ModelAdmin] | None = None,
        **options: Any,
    ) -> None:
        """Bound the list of every app, yours too, unless its admin says otherwise."""
        bases = (admin_class, BoundedAdmin) if admin_class else (BoundedAdmin,)
        bounded = type(bases[0].__name__, bases, {"__module__": bases[0].__module__})
        super().register(model_or_iterable, bounded, **options)

    def get_urls(self) -> list[Any]:
        # It comes before Django's own of the same name, which lets in only who is signed in.
        own = path("password_change/", self.password_change, name="password_change")
        return [own, *super().get_urls()]

    def index(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """Show where things stand to those who may see events and sessions."""
        context = dict(extra_context or {})
        if request.user.has_perms(["accounts.view_event", "accounts.view_session"]):
            context["dashboard"] = dashboard()
        return super().index(request, context)

    def login(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        response = limited(request) or super().login(request, extra_context)
        if request.method == "POST" and response.status_code == 302:
            record(Event.Kind.SIGNED_IN, request)
        return response

    def password_change(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        """Change one's own password, also before a sign-in that is rejected until it is changed."""
        is_signed_in = request.user.is_authenticated
        view = PasswordView.as_view(
            success_url=reverse("admin:password_change_done" if is_signed_in else "admin:login"),
            extra_context={
                **self.each_context(request),
                "title": "Password change",
                **(extra_context or {}),
            },
        )
        response = limited(request) or view(request)
        if response.status_code == 302 and not is_signed_in:
            messages.success(request, "Your password was changed. Sign in with the new one.")
        return response

    def logout(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        if request.method == "POST":
            record(Event.Kind.SIGNED_OUT, request)
        return super().logout(request, extra_context)


def limited(request: HttpRequest) -> HttpResponse | None:
    """Count an attempt like the API's logins; failures are counted by the backend for both."""
    if request.method != "POST":
        return None
    usage = throttling.count(request, "auth")
    if not usage["should_limit"]:
        return None
    return errors.problem(request, 429, retry_after=usage["reset"])


def record(kind: str, request: HttpRequest) -> None:
    """Record a sign-in or a sign-out of staff; the console's own sessions are Django's."""
    user: Any = request.user
    Event.objects.record(kind, user, detail="console")
