from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.forms import AdminUserCreationForm, UserChangeForm
from django.db.models import QuerySet
from django.http import HttpRequest

from accounts.models import Session, SessionQuerySet, User


class NewUserForm(AdminUserCreationForm):
    class Meta(AdminUserCreationForm.Meta):
        model = User
        fields = ("username", "email", "names")


class UserForm(UserChangeForm):
    class Meta(UserChangeForm.Meta):
        model = User


@admin.register(User)
class UserAdmin(DjangoUserAdmin):
    form = UserForm
    add_form = NewUserForm
    list_display = ["username", "email", "names", "is_active", "is_staff", "date_joined"]
    list_filter = ["is_active", "is_staff", "is_superuser", "groups"]
    search_fields = ["username", "email", "names"]
    ordering = ["-id"]
    show_full_result_count = False
    readonly_fields = ["last_login", "date_joined", "password_changed_at"]
    fieldsets = [
        (None, {"fields": ["username", "email", "names", "password"]}),
        (
            "Permissions",
            {"fields": ["is_active", "is_staff", "is_superuser", "groups", "user_permissions"]},
        ),
        ("Dates", {"fields": ["date_joined", "last_login", "password_changed_at"]}),
    ]
    add_fieldsets = [
        (None, {"fields": ["username", "email", "names", "password1", "password2"]}),
    ]
    actions = ["end_sessions"]

    @admin.action(description="End all sessions of the selected users", permissions=["end"])
    def end_sessions(self, request: HttpRequest, users: QuerySet[User]) -> None:
        ended = Session.objects.filter(user__in=users).active().end(Session.Reason.STAFF)
        messages.success(request, f"{ended} session(s) ended.")

    def has_end_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("accounts.change_session")

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Let a user be deleted with the sessions, which nobody may delete by themselves."""
        to_delete, counts, lacking, protected = super().get_deleted_objects(objs, request)
        return to_delete, counts, lacking - {Session._meta.verbose_name}, protected


@admin.register(Session)
class SessionAdmin(admin.ModelAdmin):
    """Sessions are looked at and ended; a row is a record, which nobody adds, edits or deletes."""

    list_display = ["user", "device", "ip_address", "created_at", "last_used_at", "state"]
    list_filter = ["end_reason", "created_at", "last_used_at"]
    list_select_related = ["user"]
    search_fields = ["user__username", "user__email", "ip_address"]
    ordering = ["-last_used_at", "-id"]
    show_full_result_count = False
    fields = ["user", "device", "user_agent", "ip_address", "created_at", "last_used_at"]
    fields += ["expires_at", "ended_at", "end_reason"]
    actions = ["end"]

    @admin.display(description="state")
    def state(self, session: Session) -> str:
        return session.state

    @admin.action(description="End selected sessions", permissions=["end"])
    def end(self, request: HttpRequest, sessions: SessionQuerySet) -> None:
        ended = sessions.active().end(Session.Reason.STAFF)
        messages.success(request, f"{ended} session(s) ended.")

    def has_end_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("accounts.change_session")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Session | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Session | None = None) -> bool:
        return False
