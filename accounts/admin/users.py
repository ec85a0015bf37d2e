from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.templatetags.admin_urls import admin_urlname
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.forms import (
    AdminPasswordChangeForm,
    AdminUserCreationForm,
    UserChangeForm,
)
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import path, reverse
from django.views.decorators.http import require_POST

from accounts.admin.pages import (
    count,
    end_and_say,
    end_sessions_of,
    link,
    moment,
    tag,
)
from accounts.models import Event, PasswordUnchangedError, Session, User, UserQuerySet

RANKS = ("is_staff", "is_superuser", "groups", "user_permissions")
JOINED = moment("date_joined", "signed up")
SHOWN = 10  # rows of a user's sessions and events, on the user's page


class NewUserForm(AdminUserCreationForm):
    class Meta(AdminUserCreationForm.Meta):
        model = User
        fields = ("username", "email", "names")
        field_classes = {}  # Django's UsernameField would turn another username into a valid one.

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields.pop("usable_password", None)  # Every account has a password.


class UserForm(UserChangeForm):
    class Meta(UserChangeForm.Meta):
        model = User
        field_classes = {}


class SetPasswordForm(AdminPasswordChangeForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # There is no other way to sign in than with a password; "Deactivate" closes an account.
        self.fields.pop("usable_password", None)

    def save(self, commit: bool = True) -> User:
        """Write the password alone: hashing takes a second, in which the row may change."""
        user: User = super().save(commit=False)
        user.must_change_password = False
        with transaction.atomic():
            get_object_or_404(User.objects.select_for_update(no_key=True), pk=user.pk)
            user.save(update_fields=["password", "must_change_password"])
        return user


@admin.register(User)
class UserAdmin(DjangoUserAdmin):
    form = UserForm
    change_password_form = SetPasswordForm
    change_user_password_template = "admin/password_change.html"  # noqa: S105 - a path
    add_form = NewUserForm
    list_display = ["username", "email", "names", "state", "devices", "is_staff", JOINED]
    list_filter = ["is_active", "must_change_password", "is_staff", "is_superuser", "groups"]
    search_fields = ["username", "email", "names"]
    search_help_text = "A part of the name or the e-mail address, or the whole number"
    ordering = ["-id"]
    readonly_fields = ["last_login", "date_joined", "password_changed_at"]
    fieldsets = [
        (None, {"fields": ["username", "email", "names", "password"]}),
        ("State", {"fields": ["is_active", "must_change_password"]}),
        ("Permissions", {"fields": RANKS, "classes": ["collapse"]}),
        ("Dates", {"fields": ["date_joined", "last_login", "password_changed_at"]}),
    ]
    add_fieldsets = [
        (None, {"fields": ["username", "email", "names", "password1", "password2"]}),
    ]
    actions = ["end_sessions", "deactivate", "activate", "force_password_change"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        sessions = Session.objects.active().filter(user=OuterRef("pk")).order_by()
        number = sessions.values("user").annotate(number=Count("*")).values("number")
        users: QuerySet[User] = super().get_queryset(request)
        return users.annotate(device_count=Subquery(number))

    @admin.display(description="state")
    def state(self, user: User) -> str:
        if not user.is_active:
            return tag("inactive", "bad")
        return tag("must change password", "bad") if user.must_change_password else "active"

    @admin.display(description="signed in on")
    def devices(self, user: User) -> str:
        number = getattr(user, "device_count", None)
        if not number:
            return ""
        text = count(number, "device")
        return link("session_changelist", text, user__id__exact=user.pk, state="active")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[User], search_term: str
    ) -> tuple[QuerySet[User], bool]:
        found, may_repeat = super().get_search_results(request, queryset, search_term)
        if search_term.isdecimal() and len(search_term) < 19:
            found = found | queryset.filter(pk=int(search_term))
        return found, may_repeat

    def user_change_password(
        self,
        request: HttpRequest,
        id: str,  # noqa: A002 - the URL names it
        form_url: str = "",
    ) -> HttpResponse:
        try:
            return super().user_change_password(request, id, form_url)
        except PasswordUnchangedError:
            messages.error(request, "The new password must differ from the current one.")
            return redirect(request.path)

    # Ranks: staff and what they may do are for superusers only.

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_change_permission(request, obj) and can_manage(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_delete_permission(request, obj) and can_manage(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> list[str]:
        ranks = [] if request.user.is_superuser else list(RANKS)
        return [*super().get_readonly_fields(request, obj), *ranks]

    def save_related(self, request: HttpRequest, form: Any, *args: Any) -> None:
        super().save_related(request, form, *args)
        if changed := [
            name for name in ("groups", "user_permissions") if name in form.changed_data
        ]:
            Event.objects.record(Event.Kind.CHANGED, form.instance, detail=", ".join(changed))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        """Delete one by one, as a user is deleted anywhere else."""
        for user in queryset:
            user.delete()

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Let a user be deleted with the sessions, which nobody may delete by themselves."""
        to_delete, counts, lacking, protected = super().get_deleted_objects(objs, request)
        if not all(can_manage(request, user) for user in objs):
            lacking = {*lacking, "staff"}
        return to_delete, counts, lacking - {Session._meta.verbose_name}, protected

    # Actions, on the list and on a user's page

    def has_end_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("accounts.end_session")

    @admin.action(description="End all sessions of the selected users", permissions=["end"])
    def end_sessions(self, request: HttpRequest, users: UserQuerySet) -> HttpResponse | None:
        return end_sessions_of(self, request, users, "end_sessions")

    @admin.action(description="Deactivate the selected users", permissions=["change"])
    def deactivate(self, request: HttpRequest, users: QuerySet[User]) -> None:
        self.set_all(request, users, is_active=False)

    @admin.action(description="Activate the selected users", permissions=["change"])
    def activate(self, request: HttpRequest, users: QuerySet[User]) -> None:
        self.set_all(request, users, is_active=True)

    @admin.action(description="Force a password change at the next sign-in", permissions=["change"])
    def force_password_change(self, request: HttpRequest, users: QuerySet[User]) -> None:
        self.set_all(request, users, must_change_password=True)

    def set_all(self, request: HttpRequest, users: QuerySet[User], **state: bool) -> None:
        """Change each user in a transaction of its own, and say what became of how many."""
        results = Counter(
            set_state(request, pk, state) for pk in users.values_list("pk", flat=True)
        )
        if number := results["staff"]:
            messages.error(request, f"{number} of them are staff, whom only superusers change.")
        if number := results["deleted"]:
            messages.warning(request, f"{count(number, 'user')} deleted meanwhile.")
        messages.success(request, f"{count(results['changed'], 'user')} changed.")

    def get_urls(self) -> list[Any]:
        def own(route: str, view: Callable[..., HttpResponse]) -> Any:
            name = f"accounts_user_{view.__name__}"
            return path(route, self.admin_site.admin_view(require_POST(view)), name=name)

        return [
            own("<int:pk>/end-sessions/", self.end_all),
            own("<int:pk>/end-session/<uuid:session>/", self.end_one),
            own("<int:pk>/set/<slug:action>/", self.set_one),
            *super().get_urls(),
        ]

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

    def set_one(self, request: HttpRequest, pk: int, action: str) -> HttpResponse:
        actions = {
            "deactivate": self.deactivate,
            "activate": self.activate,
            "force-password-change": self.force_password_change,
        }
        user = get_object_or_404(User, pk=pk)
        if action not in actions or not self.has_change_permission(request, user):
            raise PermissionDenied
        actions[action](request, User.objects.filter(pk=pk))
        return redirect("admin:accounts_user_change", pk)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Show with a user where they are signed in, and what happened lately."""
        if user := context.get("original"):
            sees = request.user.has_perm
            sessions = user.sessions.active().order_by("-last_used_at", "-pk")
            events = Event.objects.filter(user_id=user.pk).order_by("-created_at", "-pk")
            context |= {
                "sessions": sessions[:SHOWN] if sees("accounts.view_session") else None,
                "session_count": self.get_paginator(request, sessions, SHOWN).count,
                "related_lists": list(self.related_lists(request, user)),
                "events": events[:SHOWN] if sees("accounts.view_event") else None,
                "may_end": self.has_end_permission(request),
                "may_change": self.has_change_permission(request, user),
            }
        return super().render_change_form(request, context, *args, **kwargs)

    def related_lists(self, request: HttpRequest, user: User) -> Iterator[dict[str, Any]]:
        """Yield the lists of other apps that hold rows of a user, as far as staff may see them."""
        for relation in self.opts.related_objects:
            model: Any = relation.related_model
            if model is Session or not self.admin_site.is_registered(model):
                continue
            model_admin = self.admin_site.get_model_admin(model)
            if model_admin.has_view_permission(request):
                name = relation.field.name
                rows = model.objects.filter(**{name: user}).order_by("pk")
                number = model_admin.get_paginator(request, rows, 1).count
                url = reverse(admin_urlname(model._meta, "changelist"))  # type: ignore[arg-type]
                yield {"model": model._meta, "number": number, "to": f"{url}?{name}={user.pk}"}


def set_state(request: HttpRequest, pk: int, state: dict[str, bool]) -> str:
    """Change a user as they are now, and name the result."""
    with transaction.atomic():
        user = User.objects.select_for_update(no_key=True).filter(pk=pk).first()
        if user is None:
            return "deleted"
        if not can_manage(request, user):
            return "staff"
        for name, value in state.items():
            setattr(user, name, value)
        user.save(update_fields=[*state])
        return "changed"


def can_manage(request: HttpRequest, user: User | None) -> bool:
    """Tell whether staff may change this user: only superusers change staff."""
    return request.user.is_superuser or user is None or not (user.is_staff or user.is_superuser)
