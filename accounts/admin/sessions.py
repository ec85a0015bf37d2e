from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _

from accounts.admin.pages import (
    RecordAdmin,
    as_address,
    end_and_say,
    end_sessions_of,
    link,
    moment,
    tag,
)
from accounts.models import Session, SessionQuerySet, User

TIMES = [
    moment("last_used_at", "last used"),
    moment("created_at", "signed in"),
    moment("expires_at", "expires"),
]


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("active", "active"), ("expired", "expired"), *Session.Reason.choices]

    def queryset(self, request: HttpRequest, sessions: Any) -> Any:
        if self.value() is None:
            return sessions
        if self.value() == "active":
            return sessions.active()
        if self.value() == "expired":
            return sessions.filter(ended_at=None, expires_at__lte=Now())
        return sessions.filter(end_reason=self.value())


@admin.register(Session)
class SessionAdmin(RecordAdmin):
    list_display = ["device", "of", "state_tag", "ip_address"]
    list_display += [*TIMES, "record"]
    list_filter = [StateFilter, "created_at", "last_used_at"]
    list_select_related = ["user"]
    search_fields = ["user__username"]  # what there is to search; get_search_results does it
    search_help_text = _("A user name or an e-mail address, or a part of one; or an address")
    ordering = ["-created_at", "-id"]
    fields = ["of", "device", "user_agent", "ip_address", "created_at", "last_used_at"]
    fields += ["expires_at", "ended_at", "state_tag", "record"]
    actions = ["end", "end_all_of_users"]

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        return lookup == "user__id__exact" or super().lookup_allowed(lookup, value, request)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Session], search_term: str
    ) -> tuple[QuerySet[Session], bool]:
        """Look for one address, or for the users by the index on their names."""
        term = search_term.strip()
        if not term:
            return queryset, False
        if address := as_address(term):
            return queryset.filter(ip_address=address), False
        users = User.objects.filter(Q(username__icontains=term) | Q(email__icontains=term))
        return queryset.filter(user__in=users.values("pk")), False

    @admin.display(description=_("user"), ordering="user__username")
    def of(self, session: Session) -> str:
        return link("user_change", session.user, session.user_id)

    @admin.display(description=_("state"))
    def state_tag(self, session: Session) -> str:
        if session.state == "active":
            return tag("active", "good")
        is_alarming = session.end_reason == Session.Reason.TOKEN_REUSE
        return tag(session.state, "bad" if is_alarming else "none")

    @admin.display(description=_("record"))
    def record(self, session: Session) -> str:
        return link("event_changelist", "events", session_id__exact=session.pk)

    def has_end_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("accounts.end_session")

    @admin.action(description=_("End selected sessions"), permissions=["end"])
    def end(self, request: HttpRequest, sessions: SessionQuerySet) -> None:
        end_and_say(request, sessions.active().end)

    @admin.action(description=_("End all sessions of these users"), permissions=["end"])
    def end_all_of_users(
        self, request: HttpRequest, sessions: SessionQuerySet
    ) -> HttpResponse | None:
        users = User.objects.filter(pk__in=sessions.order_by().values("user"))
        return end_sessions_of(self, request, users, "end_all_of_users")
