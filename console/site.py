"""The staff console: Django's admin site with its own first page and sign-in."""

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.admin.views.autocomplete import AutocompleteJsonView
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import path

from accounts.models import Event
from console import access, factors
from console.dashboard import dashboard
from console.model_admin import BoundedAdmin, combine, delete_selected
from console.pages import sign_in_again
from console.passwords import ForcedPasswordView, PasswordView
from console.sign_in import PasskeyOptionsView, SecondFactorView, SignInForm, SignInView


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

    def has_permission(self, request: HttpRequest) -> bool:
        """Tell whether staff are signed in, with a second factor if they have or need one."""
        return super().has_permission(request) and access.has_access(request)

    def admin_view(self, view: Callable[..., Any], cacheable: bool = False) -> Any:
        """Guard a page: staff who need a second factor can only add one."""
        guarded = super().admin_view(view, cacheable)

        def inner(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if access.must_enrol(request):
                return redirect("admin:factors")
            return guarded(request, *args, **kwargs)

        return update_wrapper(inner, view)

    def get_urls(self) -> list[Any]:
        own = [
            path("login/second-factor/", SecondFactorView.as_view(), name="second_factor"),
            path("login/second-factor/passkey/", PasskeyOptionsView.as_view(), name="use_passkey"),
            path("login/password/", ForcedPasswordView.as_view(), name="forced_password"),
            # It precedes Django's, which requires permission to see the console.
            path("logout/", self.logout, name="logout"),
            *factors.urls,
        ]
        return [*own, *super().get_urls()]

    def index(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """Add the dashboard for users with permission to view events and sessions."""
        context = dict(extra_context or {})
        if request.user.has_perms(["accounts.view_event", "accounts.view_session"]):
            sees_emails = request.user.has_perm("accounts.view_outgoingemail")
            context["dashboard"] = dashboard(with_emails=sees_emails)
        return super().index(request, context)

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return SignInView.as_view(extra_context=extra_context)(request)

    def password_change(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        user: Any = request.user
        if user.has_second_factor and not access.is_fresh(request):
            return sign_in_again(request)
        return PasswordView.as_view(extra_context=extra_context)(request)

    def autocomplete_view(self, request: HttpRequest) -> Any:
        return AutocompleteView.as_view(admin_site=self)(request)

    def logout(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        user: Any = request.user
        if request.method == "POST" and user.is_authenticated:
            Event.objects.record(Event.Kind.SIGNED_OUT, user, detail="console")
        return super().logout(request, extra_context)


class AutocompleteView(AutocompleteJsonView):
    def process_request(self, request: HttpRequest) -> Any:
        """Reject the names of reverse relations, which are not form fields."""
        term, model_admin, field, to_field = super().process_request(request)
        if not field.concrete:
            raise PermissionDenied
        return term, model_admin, field, to_field
