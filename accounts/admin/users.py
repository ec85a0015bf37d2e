from collections.abc import Callable, Iterator
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.admin.templatetags.admin_urls import admin_urlname
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.forms import UserChangeForm
from django.core.exceptions import PermissionDenied
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import path, reverse
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_POST

from accounts.admin import changes
from accounts.admin.api_tokens import end_tokens, may_end
from accounts.admin.changes import can_manage
from accounts.admin.emails import state_tag
from accounts.admin.factors import FactorActions
from accounts.admin.pages import (
    count,
    end_and_say,
    end_sessions_of,
    link,
    moment,
    tag,
)
from accounts.models import (
    ApiToken,
    Event,
    Invitation,
    OutgoingEmail,
    Session,
    User,
    UserQuerySet,
)

RANKS = ("is_staff", "is_superuser", "groups", "user_permissions")
JOINED = moment("date_joined", "signed up")
# Shown in lists of their own on the user's page; nobody deletes them by themselves.
OWN_MODELS = (Session, ApiToken, OutgoingEmail)
SHOWN = 10  # rows of a user's sessions, events and emails, on the user's page


class UserForm(UserChangeForm):
    password = None  # type: ignore[assignment]  # None removes it: staff see no password.

    class Meta(UserChangeForm.Meta):
        model = User
        field_classes = {}  # Django's UsernameField would turn another username into a valid one.


@admin.register(User)
class UserAdmin(FactorActions, DjangoUserAdmin):
    form = UserForm
    list_display = ["username", "email", "names", "state", "second_factor", "devices"]
    list_display += ["is_staff", JOINED]
    list_filter = ["is_active", "must_change_password", "has_second_factor"]
    list_filter += ["is_staff", "is_superuser", "groups"]
    search_fields = ["username", "email", "names"]
    search_help_text = _("A part of the name or the e-mail address, or the whole number")
    ordering = ["-id"]
    readonly_fields = ["verified", "pending", "last_login", "date_joined", "password_changed_at"]
    fieldsets = [
        (None, {"fields": ["username", "email", "verified", "pending", "names"]}),
        ("State", {"fields": ["is_active", "must_change_password"]}),
        (_("Permissions"), {"fields": RANKS, "classes": ["collapse"]}),
        ("Dates", {"fields": ["date_joined", "last_login", "password_changed_at"]}),
    ]
    actions = ["end_sessions", "deactivate", "activate", "force_password_change"]
    actions += ["send_reset_link", "send_verification", "begin_factor_reset", "cancel_factor_reset"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        sessions = Session.objects.active().filter(user=OuterRef("pk")).order_by()
        number = sessions.values("user").annotate(number=Count("*")).values("number")
        users: QuerySet[User] = super().get_queryset(request)
        return users.annotate(device_count=Subquery(number))

    @admin.display(description=_("state"))
    def state(self, user: User) -> str:
        if not user.is_active:
            return tag("inactive", "bad")
        return tag("must change password", "bad") if user.must_change_password else "active"

    @admin.display(description=_("signed in on"))
    def devices(self, user: User) -> str:
        number = getattr(user, "device_count", None)
        if not number:
            return ""
        text = count(number, "device")
        return link("session_changelist", text, user__id__exact=user.pk, state="active")

    @admin.display(description=_("address verified"))
    def verified(self, user: User) -> str:
        return moment("email_verified_at", "")(user) or tag("not verified", "bad")

    @admin.display(description=_("pending change"))
    def pending(self, user: User) -> str:
        return user.pending_email or ""

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[User], search_term: str
    ) -> tuple[QuerySet[User], bool]:
        found, may_repeat = super().get_search_results(request, queryset, search_term)
        if search_term.isdecimal() and len(search_term) < 19:
            found = found | queryset.filter(pk=int(search_term))
        return found, may_repeat

    # Only superusers change staff and what they may do, and the address of a user: a reset link
    # goes there, so who sets it can sign in as the user.

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_change_permission(request, obj) and can_manage(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_delete_permission(request, obj) and can_manage(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> list[str]:
        names = list(super().get_readonly_fields(request, obj))
        if not request.user.is_superuser:
            names += [*RANKS, "email"]
        return names

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        """Save the user, and send a link to choose a password if another one is forced."""
        super().save_model(request, obj, form, change)
        if "must_change_password" in form.changed_data and obj.must_change_password:
            changes.report(request, changes.send_reset_link(obj))

    def save_related(self, request: HttpRequest, form: Any, *args: Any, **kwargs: Any) -> None:
        super().save_related(request, form, *args, **kwargs)
        if changed := [
            name for name in ("groups", "user_permissions") if name in form.changed_data
        ]:
            Event.objects.record(Event.Kind.CHANGED, form.instance, detail=", ".join(changed))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        """Delete one by one, as a user is deleted anywhere else."""
        for user in queryset:
            user.delete()

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Let a user be deleted with records that nobody may delete by themselves."""
        to_delete, counts, lacking, protected = super().get_deleted_objects(objs, request)
        if not all(can_manage(request, user) for user in objs):
            lacking = {*lacking, "staff"}
        own = {model._meta.verbose_name for model in OWN_MODELS}
        return to_delete, counts, lacking - own, protected

    # Actions, on the list and on a user's page

    def has_end_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("accounts.end_session")

    @admin.action(description=_("End all sessions of the selected users"), permissions=["end"])
    def end_sessions(self, request: HttpRequest, users: UserQuerySet) -> HttpResponse | None:
        return end_sessions_of(self, request, users, "end_sessions")

    @admin.action(description=_("Deactivate the selected users"), permissions=["change"])
    def deactivate(self, request: HttpRequest, users: QuerySet[User]) -> None:
        changes.change_all(request, users, changes.set_state(is_active=False))

    @admin.action(description=_("Activate the selected users"), permissions=["change"])
    def activate(self, request: HttpRequest, users: QuerySet[User]) -> None:
        changes.change_all(request, users, changes.set_state(is_active=True))

    @admin.action(
        description=_("Force a password change at the next sign-in"), permissions=["change"]
    )
    def force_password_change(self, request: HttpRequest, users: QuerySet[User]) -> None:
        changes.change_all(request, users, changes.set_state(must_change_password=True))

    @admin.action(description=_("Send a reset link to the selected users"), permissions=["change"])
    def send_reset_link(self, request: HttpRequest, users: QuerySet[User]) -> None:
        changes.change_all(request, users, changes.send_reset_link)

    @admin.action(description=_("Send the verification email again"), permissions=["change"])
    def send_verification(self, request: HttpRequest, users: QuerySet[User]) -> None:
        changes.change_all(request, users, changes.send_verification)

    def get_urls(self) -> list[Any]:
        def own(route: str, view: Callable[..., HttpResponse]) -> Any:
            name = f"accounts_user_{view.__name__}"
            return path(route, self.admin_site.admin_view(require_POST(view)), name=name)

        return [
            own("<int:pk>/end-sessions/", self.end_all),
            own("<int:pk>/end-session/<uuid:session>/", self.end_one),
            own("<int:pk>/end-api-token/<slug:token>/", self.end_api_token),
            own("<int:pk>/set/<slug:action>/", self.set_one),
            *super().get_urls(),
        ]

    def add_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Send an invitation: its recipient chooses the username and the password."""
        return self.admin_site.get_model_admin(Invitation).add_view(request)

    def user_change_password(self, *args: Any, **kwargs: Any) -> HttpResponse:
        """Reject Django's page for staff to choose a user's password."""
        raise Http404

    def end_one(self, request: HttpRequest, pk: int, session: Any) -> HttpResponse:
        return self.end(request, pk, Session.objects.active().filter(user=pk, pk=session).end)

    def end_all(self, request: HttpRequest, pk: int) -> HttpResponse:
        return self.end(request, pk, User.objects.filter(pk=pk).end_sessions)

    def end(self, request: HttpRequest, pk: int, end: Callable[[str], int]) -> HttpResponse:
        if not self.has_end_permission(request):
            raise PermissionDenied
        get_object_or_404(User, pk=pk)
        end_and_say(request, end)
        return redirect("admin:accounts_user_change", pk)

    def end_api_token(self, request: HttpRequest, pk: int, token: str) -> HttpResponse:
        if not may_end(request):
            raise PermissionDenied
        user = get_object_or_404(User, pk=pk)
        end_tokens(request, user.api_tokens.filter(pk=token))
        return redirect("admin:accounts_user_change", pk)

    def set_one(self, request: HttpRequest, pk: int, action: str) -> HttpResponse:
        actions = {
            "deactivate": self.deactivate,
            "activate": self.activate,
            "force-password-change": self.force_password_change,
            "send-reset-link": self.send_reset_link,
            "send-verification": self.send_verification,
            "begin-factor-reset": self.begin_factor_reset,
            "cancel-factor-reset": self.cancel_factor_reset,
        }
        user = get_object_or_404(User, pk=pk)
        if action not in actions or not self.permits(request, actions[action], user):
            raise PermissionDenied
        actions[action](request, User.objects.filter(pk=pk))
        return redirect("admin:accounts_user_change", pk)

    def permits(self, request: HttpRequest, action: Any, user: User) -> bool:
        """Tell whether an action of the list is permitted for this user."""
        checks = [getattr(self, f"has_{name}_permission") for name in action.allowed_permissions]
        return all(check(request, user) for check in checks)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Show with a user where they are signed in, and what happened lately."""
        user = context["original"]
        sees = request.user.has_perm
        sessions = user.sessions.active().order_by("-last_used_at", "-pk")
        events = Event.objects.filter(user_id=user.pk).order_by("-created_at", "-pk")
        emails = user.emails.order_by("-created_at", "-pk")[:SHOWN]
        context |= {
            "sessions": sessions[:SHOWN] if sees("accounts.view_session") else None,
            "session_count": self.get_paginator(request, sessions, SHOWN).count,
            "api_tokens": (
                user.api_tokens.active().order_by("-created_at", "-pk")
                if sees("accounts.view_apitoken")
                else None
            ),
            "may_end_api_tokens": may_end(request),
            "related_lists": list(self.related_lists(request, user)),
            "events": events[:SHOWN] if sees("accounts.view_event") else None,
            "emails": (
                [(email, state_tag(email)) for email in emails]
                if sees("accounts.view_outgoingemail")
                else None
            ),
            "factors": self.factors_of(request, user),
            "email_enabled": settings.EMAIL_ENABLED,
            "may_end": self.has_end_permission(request),
            "may_change": self.has_change_permission(request, user),
        }
        return super().render_change_form(request, context, *args, **kwargs)

    def related_lists(self, request: HttpRequest, user: User) -> Iterator[dict[str, Any]]:
        """Yield the lists of other apps that hold rows of a user, as far as staff may see them."""
        for relation in self.opts.related_objects:
            model: Any = relation.related_model
            if model in OWN_MODELS or not self.admin_site.is_registered(model):
                continue
            model_admin = self.admin_site.get_model_admin(model)
            if model_admin.has_view_permission(request):
                name = relation.field.name
                rows = model.objects.filter(**{name: user}).order_by("pk")
                number = model_admin.get_paginator(request, rows, 1).count
                url = reverse(admin_urlname(model._meta, "changelist"))  # type: ignore[arg-type]
                yield {"model": model._meta, "number": number, "to": f"{url}?{name}={user.pk}"}
