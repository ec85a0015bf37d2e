from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from accounts.admin.pages import RecordAdmin, as_address, link, moment, tag
from accounts.models import Event, User

WHEN: Any = moment("created_at", "when")


@admin.register(Event)
class EventAdmin(RecordAdmin):
    list_display = [WHEN, "what", "whose", "by", "ip_address", "device", "session"]
    sortable_by = [WHEN]  # The largest table there is: by anything else it is for a search to find.
    list_display_links = ["what"]
    list_filter = ["kind", "created_at", "is_new_device"]
    search_fields = ["username"]
    search_help_text = _("A user name or an address, in full")
    ordering = ["-created_at", "-id"]
    fields = ["created_at", "what", "whose", "actor", "ip_address", "device", "is_new_device"]
    fields += ["session", "request_id"]

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        own = {"session_id__exact", "user_id__exact", "username__exact", "ip_address__exact"}
        return lookup in own or super().lookup_allowed(lookup, value, request)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Event], search_term: str
    ) -> tuple[QuerySet[Event], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        if address := as_address(term):
            return queryset.filter(ip_address=address), False
        user = User.objects.with_identity(term)
        of_user = Q(user_id=user.pk) if user else Q()
        return queryset.filter(Q(username=term) | of_user), False

    @admin.display(description=_("what"))
    def what(self, event: Event) -> str:
        alarming = {Event.Kind.REPLAYED, Event.Kind.REFUSED, Event.Kind.LIMIT_REACHED}
        word = tag(event.get_kind_display(), "bad" if event.kind in alarming else "none")
        new = tag("new device", "note") if event.is_new_device else ""
        return format_html("{} {} {}", word, new, event.detail.replace("_", " "))

    @admin.display(description=_("user"))
    def whose(self, event: Event) -> str:
        is_deleted = event.user_id is None or event.kind == Event.Kind.DELETED
        return event.username if is_deleted else link("user_change", event.username, event.user_id)

    @admin.display(description=_("done by"))
    def by(self, event: Event) -> str:
        return "" if event.is_own else event.actor

    @admin.display(description=_("session"))
    def session(self, event: Event) -> str:
        if event.session_id is None:
            return ""
        return link("session_change", str(event.session_id)[:8], event.session_id)
