import functools
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.forms import AdminAuthenticationForm
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from accounts.models import Event
from config import errors, pagination, throttling
from config.dashboard import dashboard
from config.search import indexed


class SignInForm(AdminAuthenticationForm):
    # Django's own field applies NFKC, so that addresses which nobody registered would sign in.
    username = forms.CharField(max_length=254, widget=forms.TextInput(attrs={"autofocus": True}))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["username"].widget.attrs["maxlength"] = 254  # Django sets that of a username.

    def confirm_login_allowed(self, user: Any) -> None:
        super().confirm_login_allowed(user)
        if user.must_change_password:
            Event.objects.record_refusal(user, "password change required")
            raise ValidationError(
                "This password must be changed first: POST /api/v1/auth/password does it."
            )


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
        """Count attempts like the API's logins; failures are counted by the backend for both."""
        if request.method != "POST":
            return super().login(request, extra_context)
        usage = throttling.count(request, "auth")
        if usage["should_limit"]:
            return errors.problem(request, 429, retry_after=usage["reset"])
        response = super().login(request, extra_context)
        if response.status_code == 302:
            record(Event.Kind.SIGNED_IN, request)
        return response

    def logout(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        record(Event.Kind.SIGNED_OUT, request)
        return super().logout(request, extra_context)


def record(kind: str, request: HttpRequest) -> None:
    """Record that staff came or went; the console's own sessions are Django's."""
    user: Any = request.user
    Event.objects.record(kind, user, detail="console")
