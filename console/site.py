"""The staff console: Django's admin site with its own first page and sign-in."""

from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.views.autocomplete import AutocompleteJsonView
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.translation import gettext as _

from accounts.models import Event
from api import errors, throttling
from console.dashboard import dashboard
from console.model_admin import BoundedAdmin, combine, delete_selected
from console.sign_in import PasswordView, SignInForm


class ConsoleSite(admin.AdminSite):
    site_title = site_header = settings.PROJECT_NAME
    index_title = "Console"
    site_url = f"/{settings.API_PATH}docs"
    empty_value_display = "-"
    enable_nav_sidebar = False  # The first page has the few lists.
    login_form = SignInForm

    def __init__(self, name: str = "admin") -> None:
        super().__init__(name)
        self.add_action(delete_selected)

    def register(
        self,
        model_or_iterable: Any,
        admin_class: type[admin.ModelAdmin] | None = None,
        **options: Any,
    ) -> None:
        """Register models with the bounds of `BoundedAdmin`, which their admin can override."""
        if admin_class is None or issubclass(BoundedAdmin, admin_class):
            bounded = BoundedAdmin
        else:
            bounded = combine(admin_class, BoundedAdmin)
        super().register(model_or_iterable, bounded, **options)

    def get_urls(self) -> list[Any]:
        # It precedes Django's URL of the same name, which requires a signed-in user.
        own = path("password_change/", self.password_change, name="password_change")
        return [own, *super().get_urls()]

    def index(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """Add the dashboard for users with permission to view events and sessions."""
        context = dict(extra_context or {})
        if request.user.has_perms(["accounts.view_event", "accounts.view_session"]):
            sees_emails = request.user.has_perm("accounts.view_outgoingemail")
            context["dashboard"] = dashboard(with_emails=sees_emails)
        return super().index(request, context)

    def login(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        response = rate_limit_response(request) or super().login(request, extra_context)
        if request.method == "POST" and response.status_code == 302:
            request.user.clear_failures()  # type: ignore[union-attr]  # a User
            record(Event.Kind.SIGNED_IN, request)
        return response

    def password_change(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        """Change a password, also before the sign-in if it must be changed."""
        is_signed_in = request.user.is_authenticated
        view = PasswordView.as_view(
            success_url=reverse("admin:password_change_done" if is_signed_in else "admin:login"),
            extra_context={
                **self.each_context(request),
                "title": "Password change",
                **(extra_context or {}),
            },
        )
        response = rate_limit_response(request) or view(request)
        if response.status_code == 302 and not is_signed_in:
            messages.success(request, _("Your password was changed. Sign in with the new one."))
        return response

    def autocomplete_view(self, request: HttpRequest) -> Any:
        return AutocompleteView.as_view(admin_site=self)(request)

    def logout(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        if request.method == "POST":
            record(Event.Kind.SIGNED_OUT, request)
        return super().logout(request, extra_context)


class AutocompleteView(AutocompleteJsonView):
    def process_request(self, request: HttpRequest) -> Any:
        """Reject the names of reverse relations, which are not form fields."""
        term, model_admin, field, to_field = super().process_request(request)
        if not field.concrete:
            raise PermissionDenied
        return term, model_admin, field, to_field


def rate_limit_response(request: HttpRequest) -> HttpResponse | None:
    """Count a POST like the API's logins, and return the 429 above the limit, else None."""
    if request.method != "POST":
        return None
    usage = throttling.count(request, "auth")
    if not usage["should_limit"]:
        return None
    return errors.problem(request, 429, retry_after=usage["reset"])


def record(kind: str, request: HttpRequest) -> None:
    """Record a sign-in or a sign-out of staff."""
    user: Any = request.user
    Event.objects.record(kind, user, detail="console")
